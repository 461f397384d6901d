"""One logic, two ways to run it.

Work that takes several calls is written once as a generator that yields each call
of a client and is sent its answer. With the synchronous client a call has been made
when it is yielded; with the asynchronous one it is an awaitable.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")
Steps = Generator[Any, Any, ResultT]


def run(steps: Steps[ResultT]) -> ResultT:
    """Run steps whose calls are already answered.

    Examples
    --------
    >>> def twice(call):
    ...     answer = yield call()
    ...     return 2 * answer
    >>> run(twice(lambda: 21))
    42
    """
    answer = None
    while True:
        try:
            answer = steps.send(answer)
        except StopIteration as end:
            return end.value


async def run_async(steps: Steps[ResultT]) -> ResultT:
    """Run steps whose calls are awaitables."""
    try:
        call = steps.send(None)
        while True:
            try:
                answer = await call
            except BaseException as error:
                # Also a cancellation: the steps may have something to clean up.
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        return end.value
