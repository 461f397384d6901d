"""The header Idempotency-Key: a call that is repeated gets its first answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, wraps
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from ..market import Call, Coming
from ..store.answers import digest
from .base import ApiHandler, Scope

T = TypeVar("T")


async def once(
    handler: ApiHandler,
    answer: type[T],
    body: BaseModel | None,
    function: Callable[..., T],
    *args: Any,
    coming: Coming | None = None,
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
    coming : Coming, optional
        What it will look for, if it may share its transaction with others: see
        `market.together`.
    """
    key = handler.request.headers.get("Idempotency-Key")
    if key is None:
        return await _run(handler, coming, function, *args)
    caller = handler.require(*Scope)
    sent = b"" if body is None else body.model_dump_json().encode()
    asked = digest(str(handler.request.method), handler.request.path, sent)
    call = Call(f"{caller.kind}:{caller.name}", key, asked)
    handler.replayed = True

    @wraps(function)
    def first(*args: Any) -> T:
        handler.replayed = False
        return function(*args)

    market = handler.services.market
    if coming is not None:
        coming = replace(coming, call=call)
    return await _run(handler, coming, market.once, call, _adapter(answer), first, *args)  # type: ignore[arg-type]


@cache
def _adapter(answer: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(answer)


async def _run(
    handler: ApiHandler, coming: Coming | None, function: Callable[..., T], *args: Any
) -> T:
    if coming is None:
        return await handler.run(function, *args)
    return await handler.run_together(coming, function, *args)
