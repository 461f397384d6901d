"""A call that is repeated gets its first answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ..answers import MarketError
from ..store.answers import Answers, KeyReused
from .state import PoolState

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A call with an idempotency key: whose, and a digest of what is asked."""

    caller: str
    key: str
    request: str


class Once:
    """Keeps the first answers, in the transactions of their calls."""

    def __init__(self, state: PoolState) -> None:
        self.state = state

    def once(self, call: Call, answer: TypeAdapter[T], function: Callable[..., T], *args: Any) -> T:
        """The answer that this call got when it came first, or what `function` returns.

        What a failed call would have changed has not happened: it may succeed when it is
        repeated.

        Raises
        ------
        MarketError
            If the key was used for another request.
        """
        with self.state.transaction() as session:
            answers = Answers(session)
            try:
                first = answers.find(call.caller, call.key, call.request)
            except KeyReused as error:
                raise MarketError(str(error)) from None
            if first is not None:
                return answer.validate_json(first.body)
            result = function(*args)
            body = answer.dump_json(result).decode()
            now = self.state.clock()
            answers.keep(call.caller, call.key, call.request, 200, body, now)
            return result
