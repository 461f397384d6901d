"""How a job's files, variables and command get into its pod, whatever the image.

All of it becomes one shell script, compressed, in Secrets; the pod sees pieces of it
as variables, which a few lines of `sh` put together and run. That needs no volume, no
tool but ``sh``, ``base64`` and ``gzip``, keeps what users write out of the pod's
description, and lets no ``$(NAME)`` in it be expanded by Kubernetes.
"""

from __future__ import annotations

import base64
import gzip
import re
import shlex
from collections.abc import Collection, Mapping

from era_hub.clouds.base import CloudError, JobSpec

PIECE = 96 * 1024  # bytes; Linux takes no variable longer than 128 KiB
PER_SECRET = 8  # pieces: a Secret holds at most 1 MiB
MOST_PIECES = 2 * PER_SECRET  # all variables together must stay below 2 MiB

PROLOGUE = r"""fail() { echo "$1" >&2; exit 1; }
case $ERA_DIRECTORY in /*) ;; *) ERA_DIRECTORY=${HOME:-/tmp}/$ERA_DIRECTORY ;; esac
export ERA_DIRECTORY
(umask 077 && mkdir -p -- "$ERA_DIRECTORY") && cd -- "$ERA_DIRECTORY" ||
  fail "the job's directory can't be made: $ERA_DIRECTORY"
order=$(printf %s "{pieces}" | base64 -d | gzip -dc) ||
  fail "the job's files can't be unpacked: its image needs base64 and gzip"
unset {names}
eval "$order"
"""

WRITE = r"""put() {
  [ "$ERA_RUN" != 0 ] && [ -e "./$1" ] && return
  printf %s "$2" >"./.era-$ERA_RANK" && mv -f "./.era-$ERA_RANK" "./$1" ||
    fail "the job's files could not be written: $1"
}
"""

EPILOGUE = r"""lost() { echo "command not found: $1" >&2; exit 127; }
case $1 in
  */*)
    [ -e "$1" ] || lost "$1"
    [ -x "$1" ] || { echo "permission denied: $1 is not executable" >&2; exit 126; } ;;
  *) command -v -- "$1" >/dev/null || lost "$1" ;;
esac
exec "$@"
"""


def script(spec: JobSpec, owned: Collection[str]) -> str:
    """What the pod runs once it stands in the job's directory.

    Parameters
    ----------
    owned : collection of str
        Variables that are the cloud's own: those of the user don't replace them.

    Raises
    ------
    CloudError
        If something in there can't be said to a shell.
    """
    for name in spec.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise CloudError(f"{name!r} is not a name for an environment variable")
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in spec.environment.items()
        if name not in owned
    ]
    lines.append(WRITE)
    lines += [f"put {shlex.quote(name)} {shlex.quote(text)}" for name, text in spec.files.items()]
    lines.append("set -- " + " ".join(map(shlex.quote, spec.command)))
    lines.append(EPILOGUE)
    text = "\n".join(lines)
    if "\0" in text:
        raise CloudError("the job's files, command and variables may not hold NUL characters")
    return text


def pieces(text: str) -> list[str]:
    """The script in pieces that fit into environment variables.

    Raises
    ------
    CloudError
        If it is too large even when compressed, or no text.
    """
    try:
        packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    except UnicodeEncodeError:
        raise CloudError("the job's files, command or variables are not valid text") from None
    found = [packed[begin : begin + PIECE] for begin in range(0, len(packed), PIECE)]
    if len(found) > MOST_PIECES:
        limit, size = (n * 3 // 4 // 1024 for n in (MOST_PIECES * PIECE, len(packed)))
        raise CloudError(
            f"the job's files are too large: {size} KiB when compressed, at most {limit} KiB"
        )
    return found


def variable(piece: int) -> str:
    """The variable that holds a piece; also its key in the Secret."""
    return f"ERA_ORDER_{piece}"


def secrets(found: list[str]) -> list[Mapping[str, str]]:
    """The pieces by key, as many as fit for each Secret."""
    return [
        {variable(i): found[i] for i in range(begin, min(begin + PER_SECRET, len(found)))}
        for begin in range(0, len(found), PER_SECRET)
    ]


def bootstrap(count: int) -> str:
    """The shell script of the pod, for an order of so many pieces."""
    names = [variable(i) for i in range(count)]
    together = "".join(f"${{{name}}}" for name in names)
    return PROLOGUE.replace("{pieces}", together).replace("{names}", " ".join(names))
