"""What admins ask and change: the calls below ``admin/``.

Every change takes ``?preview=true`` and then says only what it would do. Before each,
the hub is asked once more whether the caller is an admin still.
"""

from __future__ import annotations

from contextlib import suppress

from .. import admin_models as models
from ..admin import Questions, grants, people, policies, pool, quotas
from ..admin_models import AdminChange
from ..hub import HubError
from .admin_base import (
    ADMINS,
    AccountQuery,
    AccountsQuery,
    AdminHandler,
    AuditQuery,
    ChangeQuery,
    DemandQuery,
    GrantsQuery,
    HoldersQuery,
    PolicyQuery,
    QuotaQuery,
    UserQuery,
    VersionQuery,
    WindowsQuery,
    number,
)
from .base import ApiHandler, endpoint

# -- accounts ----------------------------------------------------------------------------


class AdminAccountsHandler(AdminHandler):
    """GET admin/accounts"""

    @endpoint(
        "Accounts with their balances", models.AccountPage, query=AccountsQuery, scopes=ADMINS
    )
    async def get(self, query: AccountsQuery) -> models.AccountPage:
        return await self.ask(
            lambda session, now: Questions(session, now).accounts(**query.model_dump())
        )


class AdminAccountHandler(AdminHandler):
    """GET admin/account"""

    @endpoint(
        "An account with its entries, each explained",
        models.AdminStatement,
        query=AccountQuery,
        scopes=ADMINS,
    )
    async def get(self, query: AccountQuery) -> models.AdminStatement:
        return await self.ask(
            lambda session, now: Questions(session, now).statement(**query.model_dump())
        )


class CreditsGrantHandler(AdminHandler):
    """POST admin/account/grant"""

    @endpoint(
        "Give credits now, once",
        AdminChange,
        body=models.CreditsGrant,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.CreditsGrant, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.accounts.grant, body)


class CreditsWithdrawalHandler(AdminHandler):
    """POST admin/account/withdraw"""

    @endpoint(
        "Take credits back",
        AdminChange,
        body=models.CreditsWithdrawal,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.CreditsWithdrawal, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.accounts.withdraw, body)


class OverdraftHandler(AdminHandler):
    """POST admin/account/overdraft"""

    @endpoint(
        "Say how far a balance may fall below zero",
        AdminChange,
        body=models.OverdraftChange,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.OverdraftChange, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.accounts.set_overdraft, body)


# -- grants, policies, quotas ------------------------------------------------------------


class GrantsHandler(AdminHandler):
    """GET and POST admin/grants"""

    @endpoint(
        "Standing grants, newest first",
        list[models.StandingGrant],
        query=GrantsQuery,
        scopes=ADMINS,
    )
    async def get(self, query: GrantsQuery) -> list[models.StandingGrant]:
        return await self.ask(
            lambda session, now: grants.listed(session, now, **query.model_dump())
        )

    @endpoint(
        "Plan credits, once or periodically",
        AdminChange,
        body=models.GrantRequest,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.GrantRequest, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.grants.create, body)


class GrantHandler(AdminHandler):
    """POST and DELETE admin/grants/{id}"""

    @endpoint(
        "Give other amounts from the next time on",
        AdminChange,
        body=models.GrantChange,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(
        self, grant_id: str, body: models.GrantChange, query: ChangeQuery
    ) -> AdminChange:
        which = number(grant_id, "grant")
        return await self.change(query, self.admin.grants.change, which, body)

    @endpoint("End a standing grant", AdminChange, query=VersionQuery, scopes=ADMINS, fresh=True)
    async def delete(self, grant_id: str, query: VersionQuery) -> AdminChange:
        which = number(grant_id, "grant")
        return await self.change(query, self.admin.grants.end, which, query.version)


class PoliciesHandler(AdminHandler):
    """GET, POST and DELETE admin/policies"""

    @endpoint("Who pays where a bid does not say", list[models.PayerPolicy], scopes=ADMINS)
    async def get(self) -> list[models.PayerPolicy]:
        return await self.ask(lambda session, _now: policies.listed(session))

    @endpoint(
        "Set who pays",
        AdminChange,
        body=models.PayerPolicyRequest,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.PayerPolicyRequest, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.policies.set, body)

    @endpoint("Forget who pays", AdminChange, query=PolicyQuery, scopes=ADMINS, fresh=True)
    async def delete(self, query: PolicyQuery) -> AdminChange:
        return await self.change(
            query, self.admin.policies.remove, query.kind, query.name, query.version
        )


class QuotasHandler(AdminHandler):
    """GET, POST and DELETE admin/quotas"""

    @endpoint("All limits", list[models.Quota], scopes=ADMINS)
    async def get(self) -> list[models.Quota]:
        return await self.ask(lambda session, _now: quotas.listed(session))

    @endpoint(
        "Set limits",
        AdminChange,
        body=models.QuotaRequest,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.QuotaRequest, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.quotas.set, body)

    @endpoint("Lift limits", AdminChange, query=QuotaQuery, scopes=ADMINS, fresh=True)
    async def delete(self, query: QuotaQuery) -> AdminChange:
        return await self.change(
            query, self.admin.quotas.remove, query.kind, query.name, query.version
        )


# -- the pool ----------------------------------------------------------------------------


class PoolHandler(AdminHandler):
    """GET and POST admin/pool"""

    @endpoint("Settings of the pool", models.PoolSettings, scopes=ADMINS)
    async def get(self) -> models.PoolSettings:
        market = self.services.market
        return await self.ask(lambda session, _now: pool.settings(session, market))

    @endpoint(
        "Set price bounds, and how many GPUs are held back",
        AdminChange,
        body=models.PoolSettingsRequest,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.PoolSettingsRequest, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.pool.set, body)


class WindowsHandler(AdminHandler):
    """GET and POST admin/maintenance"""

    @endpoint(
        "Maintenance windows, earliest first",
        list[models.MaintenanceWindow],
        query=WindowsQuery,
        scopes=ADMINS,
    )
    async def get(self, query: WindowsQuery) -> list[models.MaintenanceWindow]:
        market = self.services.market
        return await self.ask(lambda session, _now: pool.windows(session, market, query.past))

    @endpoint(
        "Plan maintenance",
        AdminChange,
        body=models.MaintenanceRequest,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(self, body: models.MaintenanceRequest, query: ChangeQuery) -> AdminChange:
        return await self.change(query, self.admin.pool.plan, body)


class WindowHandler(AdminHandler):
    """POST and DELETE admin/maintenance/{id}"""

    @endpoint(
        "Change a maintenance window",
        AdminChange,
        body=models.MaintenanceChange,
        query=ChangeQuery,
        scopes=ADMINS,
        fresh=True,
    )
    async def post(
        self, window: str, body: models.MaintenanceChange, query: ChangeQuery
    ) -> AdminChange:
        which = number(window, "maintenance window")
        return await self.change(query, self.admin.pool.change, which, body)

    @endpoint("Call maintenance off", AdminChange, query=VersionQuery, scopes=ADMINS, fresh=True)
    async def delete(self, window: str, query: VersionQuery) -> AdminChange:
        which = number(window, "maintenance window")
        return await self.change(query, self.admin.pool.drop, which, query.version)


# -- people and records --------------------------------------------------------------------


class HoldersHandler(AdminHandler):
    """GET admin/holders"""

    @endpoint("Who holds and waits for what", models.HolderPage, query=HoldersQuery, scopes=ADMINS)
    async def get(self, query: HoldersQuery) -> models.HolderPage:
        return await self.ask(
            lambda session, now: Questions(session, now).holders(**query.model_dump())
        )


class DemandHandler(AdminHandler):
    """GET admin/demand"""

    @endpoint("What was asked for, by day", models.Demand, query=DemandQuery, scopes=ADMINS)
    async def get(self, query: DemandQuery) -> models.Demand:
        name = self.services.market.pool
        return await self.ask(lambda session, now: Questions(session, now).demand(name, query.days))


class UserReportHandler(AdminHandler):
    """GET admin/user"""

    @endpoint(
        "A user's account, limits and reservations",
        models.UserReport,
        query=UserQuery,
        scopes=ADMINS,
    )
    async def get(self, query: UserQuery) -> models.UserReport:
        groups: tuple[str, ...] | None = None
        with suppress(HubError):
            groups = await self.services.hub.groups(query.name)
        return await self.ask(lambda session, now: people.report(session, now, query.name, groups))


class AuditHandler(AdminHandler):
    """GET admin/audit"""

    @endpoint(
        "What admins changed, newest first", models.AuditPage, query=AuditQuery, scopes=ADMINS
    )
    async def get(self, query: AuditQuery) -> models.AuditPage:
        return await self.ask(
            lambda session, now: Questions(session, now).audit(**query.model_dump())
        )


class BooksHandler(AdminHandler):
    """GET admin/books"""

    @endpoint("Whether the books add up, proved from every entry", models.Books, scopes=ADMINS)
    async def get(self) -> models.Books:
        return await self.ask(lambda session, now: Questions(session, now).books())


ADMIN_ROUTES: list[tuple[str, type[ApiHandler]]] = [
    ("admin/accounts", AdminAccountsHandler),
    ("admin/account", AdminAccountHandler),
    ("admin/account/grant", CreditsGrantHandler),
    ("admin/account/withdraw", CreditsWithdrawalHandler),
    ("admin/account/overdraft", OverdraftHandler),
    ("admin/grants", GrantsHandler),
    ("admin/grants/{id}", GrantHandler),
    ("admin/policies", PoliciesHandler),
    ("admin/quotas", QuotasHandler),
    ("admin/pool", PoolHandler),
    ("admin/maintenance", WindowsHandler),
    ("admin/maintenance/{id}", WindowHandler),
    ("admin/holders", HoldersHandler),
    ("admin/demand", DemandHandler),
    ("admin/user", UserReportHandler),
    ("admin/audit", AuditHandler),
    ("admin/books", BooksHandler),
]
