"""The calls of admins, for command lines and scripts: not needed in notebooks."""

from __future__ import annotations

from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel

from .. import admin_models as models
from .http import EraClient


class AdminClient(EraClient):
    """Synchronous client with the calls below ``admin/``; see `era_hub.admin_models`.

    Every change takes ``preview=True`` and then only says what it would do. A change
    has an Idempotency-Key: whatever lies between may send it again, and it is made once.
    """

    def __enter__(self) -> Self:
        return self

    # -- accounts ---------------------------------------------------------------

    def all_accounts(self, **query: Any) -> models.AccountPage:
        """Accounts; `kind`, `search`, `below`, `after` and `limit` narrow them down."""
        return self._get("accounts", models.AccountPage, query)

    def statement(self, kind: str, name: str, **query: Any) -> models.AdminStatement:
        """An account and its entries; `before` and `limit`."""
        query = {"kind": kind, "name": name, **query}
        return self._get("account", models.AdminStatement, query)

    def give(self, body: models.CreditsGrant, preview: bool = False) -> models.AdminChange:
        """Give credits now."""
        return self._change("POST", "account/grant", body, preview)

    def withdraw(self, body: models.CreditsWithdrawal, preview: bool = False) -> models.AdminChange:
        """Take credits back."""
        return self._change("POST", "account/withdraw", body, preview)

    def set_overdraft(
        self, body: models.OverdraftChange, preview: bool = False
    ) -> models.AdminChange:
        """Say how far a balance may fall below zero."""
        return self._change("POST", "account/overdraft", body, preview)

    # -- grants, policies, quotas -------------------------------------------------

    def grants(self, **query: Any) -> list[models.StandingGrant]:
        """Standing grants; `kind`, `name` and `ended`."""
        return self._get("grants", list[models.StandingGrant], query)

    def create_grant(self, body: models.GrantRequest, preview: bool = False) -> models.AdminChange:
        """Plan credits, once or periodically."""
        return self._change("POST", "grants", body, preview)

    def change_grant(
        self, grant_id: int, body: models.GrantChange, preview: bool = False
    ) -> models.AdminChange:
        """Give other amounts from the next time on."""
        return self._change("POST", f"grants/{grant_id}", body, preview)

    def end_grant(self, grant_id: int, version: int, preview: bool = False) -> models.AdminChange:
        """Give nothing more."""
        return self._change("DELETE", f"grants/{grant_id}", None, preview, version=version)

    def policies(self) -> list[models.PayerPolicy]:
        """Who pays where a bid does not say."""
        return self._get("policies", list[models.PayerPolicy], {})

    def set_policy(
        self, body: models.PayerPolicyRequest, preview: bool = False
    ) -> models.AdminChange:
        """Set who pays."""
        return self._change("POST", "policies", body, preview)

    def remove_policy(
        self, kind: str, name: str, version: int, preview: bool = False
    ) -> models.AdminChange:
        """Forget who pays."""
        query = {"kind": kind, "name": name, "version": version}
        return self._change("DELETE", "policies", None, preview, **query)

    def quotas(self) -> list[models.Quota]:
        """All limits."""
        return self._get("quotas", list[models.Quota], {})

    def set_quota(self, body: models.QuotaRequest, preview: bool = False) -> models.AdminChange:
        """Set all limits of a row."""
        return self._change("POST", "quotas", body, preview)

    def remove_quota(
        self, kind: str, name: str, version: int, preview: bool = False
    ) -> models.AdminChange:
        """Lift the limits of a row."""
        query = {"kind": kind, "name": name, "version": version}
        return self._change("DELETE", "quotas", None, preview, **query)

    # -- the pool -------------------------------------------------------------------

    def pool_settings(self) -> models.PoolSettings:
        """What is set for the pool."""
        return self._get("pool", models.PoolSettings, {})

    def set_pool(
        self, body: models.PoolSettingsRequest, preview: bool = False
    ) -> models.AdminChange:
        """Set price bounds, and how many GPUs are held back."""
        return self._change("POST", "pool", body, preview)

    def maintenance(self, past: bool = False) -> list[models.MaintenanceWindow]:
        """Maintenance windows."""
        query = {"past": past or None}
        return self._get("maintenance", list[models.MaintenanceWindow], query)

    def plan_maintenance(
        self, body: models.MaintenanceRequest, preview: bool = False
    ) -> models.AdminChange:
        """Take GPUs out of the market for some time."""
        return self._change("POST", "maintenance", body, preview)

    def change_maintenance(
        self, window: int, body: models.MaintenanceChange, preview: bool = False
    ) -> models.AdminChange:
        """Change a maintenance window as a whole."""
        return self._change("POST", f"maintenance/{window}", body, preview)

    def drop_maintenance(
        self, window: int, version: int, preview: bool = False
    ) -> models.AdminChange:
        """Call a maintenance window off."""
        return self._change("DELETE", f"maintenance/{window}", None, preview, version=version)

    # -- people and records -----------------------------------------------------------

    def holders(self, **query: Any) -> models.HolderPage:
        """Who holds and waits for what; `user`, `after` and `limit`."""
        return self._get("holders", models.HolderPage, query)

    def demand(self, days: int = 14) -> models.Demand:
        """What was asked for, by day."""
        return self._get("demand", models.Demand, {"days": days})

    def user_report(self, name: str) -> models.UserReport:
        """A user's account, limits and reservations."""
        return self._get("user", models.UserReport, {"name": name})

    def audit_log(self, **query: Any) -> models.AuditPage:
        """What admins changed; `actor`, `subject`, `action`, `before` and `limit`."""
        return self._get("audit", models.AuditPage, query)

    def books(self) -> models.Books:
        """Whether the books add up."""
        return self._get("books", models.Books, {})

    # -- inside -------------------------------------------------------------------------

    def _get(self, path: str, answer: Any, query: dict[str, Any]) -> Any:
        return self._call("GET", f"admin/{path}", answer, params=query)

    def _change(
        self, method: str, path: str, body: BaseModel | None, preview: bool, **query: Any
    ) -> models.AdminChange:
        found: models.AdminChange = self._call(
            method,
            f"admin/{path}",
            models.AdminChange,
            body=body,
            params={**query, "preview": "true" if preview else None},
            idempotency_key=None if preview else uuid4().hex,
        )
        return found
