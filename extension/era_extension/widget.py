"""`Market`: the market inside a notebook."""

from __future__ import annotations

import os
from typing import Any

import anywidget
import traitlets

from . import bundle
from .feed import Background, Feed
from .session import AsyncEra


class Market(anywidget.AnyWidget):  # type: ignore[misc]
    """Prices, a bid form for background jobs, your jobs with their logs, and your time.

    It updates itself while it is displayed, also while a cell runs, and stops with
    `close`. Jobs show their progress by printing a tqdm bar.

    The kernel does all talking to the service; the browser never sees the token.

    Parameters
    ----------
    url, token : str, optional
        See `era_hub.client.discover`.

    Examples
    --------
    >>> from era_extension import Market
    >>> Market()  # doctest: +SKIP
    """

    _esm = bundle.script()
    _css = bundle.static("market_widget.css")

    now = traitlets.Float(0, help="The service's time, ms since 1970").tag(sync=True)
    market = traitlets.Dict(help="Prices; see `snapshot.market_state`").tag(sync=True)
    account = traitlets.Dict(help="Balance and holds").tag(sync=True)
    accounts: Any = traitlets.List(help="Those that may pay for a job").tag(sync=True)
    jobs: Any = traitlets.List(help="The newest jobs").tag(sync=True)
    notebook = traitlets.Dict(help="This notebook's own reservation, or empty").tag(sync=True)
    notices: Any = traitlets.List(help="What the user should know now").tag(sync=True)
    files: Any = traitlets.List(help="Scripts in the notebook's folder").tag(sync=True)
    logs = traitlets.Dict(help="Texts of the logs looked at, by job").tag(sync=True)
    error = traitlets.Unicode(help="Why the rest may be out of date").tag(sync=True)

    def __init__(self, url: str | None = None, token: str | None = None, **options: Any) -> None:
        # Kept in plain attributes: a trait could be synced to the browser.
        self._url, self._token = url, token
        self._background: Background | None = None
        self._feed: Feed | None = None
        self._closed = False
        super().__init__(**options)
        self.on_msg(self._on_message)

    def refresh(self) -> None:
        """Look at the market now, and wait for the answer."""
        if feed := self._start():
            feed[1].call(feed[0].refresh()).result()

    def close(self) -> None:
        """Stop the updates and remove the widget."""
        self._closed = True
        if self._background is not None:
            self._background.stop()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        # Not left to the browser's first message: where that waits for the end of the
        # cell, a widget displayed at the top of a long cell would stay empty.
        self._start()
        return super()._repr_mimebundle_(**options)

    def _start(self) -> tuple[Feed, Background] | None:
        if self._closed:
            return None
        if self._feed is None or self._background is None:
            self._feed = Feed(self._connect, self._take, self.send)
            self._background = Background(self._feed.run, f"era-market-{os.getpid()}")
        return self._feed, self._background

    def _connect(self) -> AsyncEra:
        return AsyncEra(self._url, self._token)

    def _take(self, **state: Any) -> None:
        if not self._closed:
            # One message for all that has changed.
            with self.hold_sync():
                for name, value in state.items():
                    setattr(self, name, value)

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        # Messages come from the kernel's thread, or from a subshell's: hand over and
        # return, since a cell may be waiting.
        if feed := self._start():
            feed[1].call(feed[0].act(content))
