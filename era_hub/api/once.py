"""The header Idempotency-Key: a call that is repeated gets its first answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from ..market import Call
from ..store.answers import digest
from .base import ApiHandler, Scope

T = TypeVar("T")


async def once(
    handler: ApiHandler,
    answer: type[T],
    body: BaseModel | None,
    function: Callable[..., T],
    *args: Any,
) -> T:
    """Call the market on its writer thread; what was answered first is answered again.

    Every call that changes something goes through here. What is kept is what `function`
    returns, so it must be the whole answer, as this caller may see it. A call that fails
    has changed nothing, and nothing is kept of it.

    Parameters
    ----------
    answer : type
        The model of what `function` returns.
    body : BaseModel or None
        Another body under the same key is refused.
    """
    key = handler.request.headers.get("Idempotency-Key")
    if key is None:
        return await handler.run(function, *args)
    caller = handler.require(*Scope)
    sent = b"" if body is None else body.model_dump_json().encode()
    asked = digest(str(handler.request.method), handler.request.path, sent)
    call = Call(f"{caller.kind}:{caller.name}", key, asked)
    market = handler.services.market
    return await handler.run(market.once, call, TypeAdapter(answer), function, *args)
