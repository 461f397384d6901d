"""What admins change and ask, over both stores and with a clock that tests set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from era_hub import admin_models
from era_hub.admin import Admin, Call, Questions, people
from era_hub.market import Market, NotFound
from era_hub.store.database import Database
from era_hub.store.grants import Grants
from tests.era_hub.small_market import DAWN, Clock, market_on, notebook

MILLION = 1_000_000
DAY = 86_400
STORES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
NOW, SEEN = Call("admin:root"), Call("admin:root", preview=True)


@pytest.fixture(params=STORES)
def market(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Market]:
    url: str | URL = f"sqlite:///{tmp_path / 'era.sqlite'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.url(server.create())
    database = Database(url)
    database.migrate()
    yield market_on(database, clock)
    database.close()


def test_all_questions_have_answers(market: Market, clock: Clock) -> None:
    admin = Admin(market)
    lapsing = admin_models.CreditsGrant(
        kind="user", name="ann", amount=7 * MILLION, expires_after=DAY
    )
    admin.accounts.grant(NOW, lapsing)
    held = market.reserve("ann", notebook(6, 2)).reservation
    assert held is not None
    for value in ("0.000001", "0.000002", "0.000003", "0.000004", "0.000005"):
        assert not market.reserve("bob", notebook(2, 1, value)).accepted
    clock.now += DAY
    with market.reading() as session:
        ask = Questions(session, clock.now)
        (ann, bob) = ask.accounts().items
        # What was spent came from what lapses first, and the rest of that is gone.
        assert (ann.name, ann.balance) == ("ann", 100 * MILLION)
        assert (ann.lapsing, ann.held, ann.open_reservations) == (0, held.price, 1)
        assert (bob.name, ask.accounts(after="user:ann").items) == ("bob", [bob])
        assert [each.kind for each in ask.statement("user", "ann").items] == [
            "hold",
            "grant",
            "grant",
        ]
        (holder,) = ask.holders().items
        assert (holder.user, holder.gpus_waiting, holder.held) == ("ann", 6, held.price)
        (day,) = ask.demand(market.pool, 2).days
        assert (day.bids, day.accepted, day.declined) == (6, 1, 5)
        assert (day.gpu_hours_asked, day.gpu_hours_accepted) == (22.0, 12.0)
        assert day.turned_away == 15
        assert ask.books({market.pool: 8}).sound
        assert people.report(session, clock.now, "ann").payer == "own"
        assert [each.action for each in ask.audit().items] == ["credits.grant"]


def test_few_declined_bids_give_no_sum(market: Market, clock: Clock) -> None:
    for _ in range(4):
        assert not market.reserve("bob", notebook(2, 1, "0.000007")).accepted
    clock.now += DAY
    with market.reading() as session:
        (day,) = Questions(session, clock.now).demand(market.pool, 2).days
    assert (day.declined, day.turned_away) == (4, None)


def test_a_planned_grant_comes_at_its_times(market: Market, clock: Clock) -> None:
    admin = Admin(market)
    wanted = admin_models.GrantRequest(
        kind="user", name="ann", amount=10 * MILLION, period=7 * DAY, cap=15 * MILLION
    )
    assert not admin.grants.create(SEEN, wanted).applied
    made = admin.grants.create(NOW, wanted)
    number = int(made.subject.partition(":")[2])

    def balance() -> int:
        with market.transaction() as session:
            while Grants(session, clock.now).run():
                pass
        with market.reading() as session:
            return Questions(session, clock.now).account("user", "ann").balance

    assert balance() == 10 * MILLION
    clock.now = DAWN + 7 * DAY
    assert balance() == 15 * MILLION
    admin.grants.end(NOW, number, 1)
    clock.now = DAWN + 14 * DAY
    admin.accounts.withdraw(NOW, admin_models.CreditsWithdrawal(kind="user", name="ann"))
    assert balance() == 0


def test_a_preview_leaves_no_trace(market: Market) -> None:
    admin = Admin(market)
    admin.accounts.grant(
        SEEN, admin_models.CreditsGrant(kind="group", name="lab", amount=5 * MILLION)
    )
    admin.quotas.set(SEEN, admin_models.QuotaRequest(kind="everyone", gpus=1))
    admin.pool.set(SEEN, admin_models.PoolSettingsRequest(version=0, held_back=4))
    with market.reading() as session:
        ask = Questions(session, DAWN)
        assert (ask.accounts().items, ask.audit().items) == ([], [])
    assert market.reserve("ann", notebook(8, 1)).accepted


def test_a_group_above_its_limit_is_named(market: Market) -> None:
    admin = Admin(market)
    lab = admin_models.CreditsGrant(kind="group", name="lab", amount=500 * MILLION)
    admin.accounts.grant(NOW, lab)
    bid = notebook(6, 1, account="group:lab")
    assert market.reserve("ann", bid, groups=("lab",)).accepted
    change = admin.quotas.set(
        SEEN, admin_models.QuotaRequest(kind="group", name="lab", gpus=2, longest="4h")
    )
    texts = [each.text for each in change.effects if each.level == "warning"]
    assert len(texts) == 1
    assert "the group lab is above a limit now with 6 GPUs of 2" in texts[0]


@pytest.mark.parametrize(
    ("groups", "found"), [(None, (["lab"], "last bid")), (["new"], (["new"], "hub"))]
)
def test_a_report_says_whose_word_the_groups_are(
    market: Market, groups: list[str] | None, found: Any
) -> None:
    """What the hub says counts; where it says nothing, the last bid is named as the source."""
    assert market.reserve("ann", notebook(), groups=("lab",)).accepted
    with market.reading() as session:
        report = people.report(session, market.clock(), "ann", groups)
        assert (report.groups, report.groups_from) == found
        # Somebody of the hub who never came, and nobody.
        assert people.report(session, market.clock(), "bob", ["lab"]).account is None
        for unknown in (None, []):
            with pytest.raises(NotFound):
                people.report(session, market.clock(), "nobody", unknown)
