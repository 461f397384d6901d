"""The groups that a user is in now, as the hub says."""

from __future__ import annotations

from ..hub import HubError
from .base import ApiHandler, Problem


async def groups_of(handler: ApiHandler, user: str) -> tuple[str, ...]:
    """The user's groups: from the login if it is the caller, else from the hub's API.

    Raises
    ------
    Problem
        If the hub can't be asked.
    """
    caller, login = handler.principal, handler._hub_auth_user_cache or {}
    if caller is not None and (caller.kind, caller.name) == ("user", user) and "groups" in login:
        return tuple(login["groups"])
    try:
        return await handler.services.hub.groups(user)
    except HubError as error:
        raise Problem(503, f"the groups of {user} are not known: {error}", 5) from error
