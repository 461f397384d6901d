"""A log as a terminal would show it, without one.

Progress bars redraw their line with carriage returns: read literally, an hour of
tqdm is a line of a megabyte. A `Screen` keeps what would be left to see.
"""

from __future__ import annotations

import re
from collections import deque

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST_ESCAPE = 256


class Screen:
    """The last lines of a log; carriage returns overwrite, colours are dropped.

    Parameters
    ----------
    limit : int
        Lines kept.

    Examples
    --------
    >>> screen = Screen()
    >>> screen.feed("start\\n 10%|#  |\\r 20%|## |")
    'start\\n'
    >>> screen.text()
    'start\\n 20%|## |'
    """

    def __init__(self, limit: int = 500) -> None:
        self._lines: deque[str] = deque(maxlen=limit)
        self._line = ""
        self._column = 0
        self._pending = ""

    def feed(self, text: str) -> str:
        """Take the next piece of the log; returns the lines that it finished."""
        text = self._pending + text
        # An escape sequence may be cut in two between pieces.
        cut = _UNFINISHED.search(text)
        split = cut.start() if cut and len(text) - cut.start() < _LONGEST_ESCAPE else len(text)
        text, self._pending = text[:split], text[split:]
        finished = []
        for part in re.split(r"([\r\n])", _ESCAPE.sub("", text)):
            if part == "\n":
                finished.append(self._line.rstrip())
                self._line, self._column = "", 0
            elif part == "\r":
                self._column = 0
            elif part:
                self._overwrite(_CONTROL.sub("", part))
        self._lines.extend(finished)
        return "".join(f"{line}\n" for line in finished)

    def _overwrite(self, part: str) -> None:
        end = self._column + len(part)
        self._line = self._line[: self._column] + part + self._line[end:]
        self._column = end

    def rest(self) -> str:
        """The line that isn't finished yet."""
        return self._line.rstrip()

    def text(self) -> str:
        """All that is left to see."""
        return "".join(f"{line}\n" for line in self._lines) + self.rest()
