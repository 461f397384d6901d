"""Passing a request on to the service that writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..logs import request_id
from ..replicas.forwarding import HOP, answer_headers
from ..store.election import NotLeading

if TYPE_CHECKING:
    from .base import ApiHandler


async def passed_on(handler: ApiHandler, body: bytes) -> bool:
    """Have the writer answer, if that is another service; whether it has answered.

    Raises
    ------
    NotLeading
        If the request has been passed on to this service, which does not write either.
    Unavailable
        If no writer could be asked.
    """
    services = handler.services
    if services.replica.leading:
        return False
    if HOP in handler.request.headers:
        raise NotLeading(f"this service does not write for pool {services.market.pool} now")
    answer = await services.forwarding.ask(handler.request, body, request_id() or "")
    if answer is None:
        return False
    handler.set_status(answer.status_code, answer.reason_phrase)
    for name, _ in answer_headers(answer):
        handler.clear_header(name)
    for name, value in answer_headers(answer):
        handler.add_header(name, value)
    handler.finish(answer.content or None)
    return True
