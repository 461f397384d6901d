"""Ports on the loopback interface that nothing listens on."""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import ExitStack


def is_free(port: int) -> bool:
    """Whether this port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def free_port(taken: Collection[int] = ()) -> int:
    """A free port that is none of those others will listen on soon.

    A port that was free a moment ago may be handed out again at once: some kernels
    do so each time.
    """
    with ExitStack() as held:
        while True:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port not in taken:
                return port
