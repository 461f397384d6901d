"""What admins do through the REST API of a real service: roles, previews, changes, records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from era_hub import admin_models, models
from era_hub.client import EraClient, EraError
from era_hub.client.admin import AdminClient
from tests.running_hub import RunningHub, until

MILLION = 1_000_000
LATER = datetime.now(UTC) + timedelta(hours=20)


@pytest.fixture(scope="module")
def people(hub: RunningHub) -> dict[str, EraClient]:
    """One caller of each role: none of them owns what belongs to admins."""
    return {
        "owner": hub.client("ann"),
        "other": hub.client("anna"),
        "admin": hub.client("admin"),
        "service": hub.spawner(),
    }


@pytest.fixture(scope="module")
def admin(hub: RunningHub) -> AdminClient:
    return AdminClient(f"{hub.url}services/era", hub.user_token("admin"))


@pytest.fixture(scope="module")
def ann(people: dict[str, EraClient]) -> EraClient:
    return people["owner"]


def fresh_name() -> str:
    return f"user-{uuid4().hex[:8]}"


def bid(**changes: Any) -> models.ReservationRequest:
    begin = datetime.now(UTC) + timedelta(hours=6)
    wanted = {
        "configuration": "gpu-1",
        "duration": 600,
        "arrival": begin,
        "deadline": begin + timedelta(hours=1),
        "value": 50 * MILLION,
        "server_name": uuid4().hex,
    }
    return models.ReservationRequest(**(wanted | changes))


def texts(change: admin_models.AdminChange) -> str:
    return "\n".join(each.text for each in change.effects)


# -- roles ---------------------------------------------------------------------------

WINDOW = {"start": LATER.isoformat(), "end": (LATER + timedelta(hours=1)).isoformat()}
ANN = {"kind": "user", "name": "ann"}
ADMINS_ONLY = [
    ("GET", "admin/accounts", None, 200),
    ("GET", "admin/account?kind=user&name=ann", None, 200),
    ("POST", "admin/account/grant", ANN | {"amount": 1}, 200),
    ("POST", "admin/account/withdraw", ANN | {"amount": 1}, 200),
    ("POST", "admin/account/overdraft", ANN | {"overdraft": 0}, 200),
    ("GET", "admin/grants", None, 200),
    ("POST", "admin/grants", {"kind": "user", "name": "ann", "amount": 1}, 200),
    ("POST", "admin/grants/999", {"version": 1, "amount": 1}, 404),
    ("DELETE", "admin/grants/999?version=1", None, 404),
    ("GET", "admin/policies", None, 200),
    ("POST", "admin/policies", {"kind": "user", "name": "ann", "pays": "own"}, 200),
    ("DELETE", "admin/policies?kind=user&name=nobody&version=1", None, 404),
    ("GET", "admin/quotas", None, 200),
    ("POST", "admin/quotas", {"kind": "user", "name": "ann", "gpus": 8}, 200),
    ("DELETE", "admin/quotas?kind=user&name=nobody&version=1", None, 404),
    ("GET", "admin/pool", None, 200),
    ("POST", "admin/pool", {"version": 0}, 200),
    ("GET", "admin/maintenance", None, 200),
    ("POST", "admin/maintenance", WINDOW, 200),
    ("POST", "admin/maintenance/999", WINDOW | {"version": 1}, 404),
    ("DELETE", "admin/maintenance/999?version=1", None, 404),
    ("GET", "admin/holders", None, 200),
    ("GET", "admin/demand", None, 200),
    ("GET", "admin/user?name=ann", None, 200),
    ("GET", "admin/audit", None, 200),
    ("GET", "admin/books", None, 200),
]


def preview(path: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}preview=true"


@pytest.mark.parametrize(("method", "path", "body", "expected"), ADMINS_ONLY)
def test_each_endpoint_is_for_admins_only(
    hub: RunningHub,
    people: dict[str, EraClient],
    ann: EraClient,
    method: str,
    path: str,
    body: Any,
    expected: int,
) -> None:
    ann.account()  # opens the account that is asked for
    path = path if method == "GET" else preview(path)
    answers = {
        role: client._http.request(method, path, json=body) for role, client in people.items()
    }
    found = {role: answer.status_code for role, answer in answers.items()}
    assert found == {"owner": 403, "other": 403, "admin": expected, "service": 403}
    assert "custom:era:admin" in answers["owner"].json()["detail"]
    stranger = httpx.request(method, f"{hub.url}services/era/api/v1/{path}", json=body)
    assert stranger.status_code == 401


def test_all_endpoints_are_tested_in_each_role() -> None:
    from era_hub.api.admin import ADMIN_ROUTES

    documented = {
        (method.upper(), route)
        for route, handler in ADMIN_ROUTES
        for method in ("get", "post", "delete")
        if hasattr(getattr(handler, method), "endpoint")
    }

    def route(path: str) -> str:
        return path.partition("?")[0].replace("999", "{id}")

    assert {(method, route(path)) for method, path, _, _ in ADMINS_ONLY} == documented


def test_an_admins_token_needs_the_scope(hub: RunningHub) -> None:
    limited = hub.client("admin", ["access:services!service=era", "custom:era:bid"])
    answer = limited._http.post("admin/account/grant", json=ANN | {"amount": 1})
    assert answer.status_code == 403


def test_who_is_no_admin_any_more_changes_nothing(hub: RunningHub) -> None:
    token = hub.user_token("admin")
    client = AdminClient(f"{hub.url}services/era", token)
    assert client.pool_settings().gpus == 8
    listed = hub.http.get("/users/admin/tokens").json()["api_tokens"]
    newest = max(listed, key=lambda each: each["created"])
    assert hub.http.delete(f"/users/admin/tokens/{newest['id']}").is_success
    with pytest.raises(EraError) as refused:
        client.give(admin_models.CreditsGrant(kind="user", name="ann", amount=1))
    assert refused.value.status == 401


# -- previews and changes --------------------------------------------------------------


def test_a_preview_changes_nothing(admin: AdminClient) -> None:
    name = fresh_name()
    grant = admin_models.CreditsGrant(
        kind="user", name=name, amount=50 * MILLION, memo="for the paper"
    )
    before = admin.audit_log(limit=1).items
    seen = admin.give(grant, preview=True)
    assert not seen.applied
    assert f"{name}'s balance 0.00 -> 50.00 credits" in texts(seen)
    with pytest.raises(EraError) as missing:
        admin.statement("user", name)
    assert missing.value.status == 404
    assert admin.audit_log(limit=1).items == before


def test_credits_are_granted_and_withdrawn(admin: AdminClient) -> None:
    name = fresh_name()
    grant = admin_models.CreditsGrant(
        kind="user", name=name, amount=50 * MILLION, memo="for the paper"
    )
    given = admin.give(grant)
    assert given.applied
    assert (given.before, given.after["balance"]) == ({"balance": 0}, 50 * MILLION)
    taken = admin.withdraw(
        admin_models.CreditsWithdrawal(kind="user", name=name, amount=20 * MILLION)
    )
    assert f"{name}'s balance 50.00 -> 30.00 credits" in texts(taken)
    statement = admin.statement("user", name)
    assert statement.account.balance == 30 * MILLION
    assert [each.amount for each in statement.items] == [-20 * MILLION, 50 * MILLION]
    assert statement.items[-1].text == "Credits given by admin: for the paper"
    assert {each.actor for each in statement.items} == {"admin:admin"}
    rest = admin.withdraw(admin_models.CreditsWithdrawal(kind="user", name=name))
    assert rest.after["balance"] == 0
    with pytest.raises(EraError, match="has 0.00 credits to take back"):
        admin.withdraw(admin_models.CreditsWithdrawal(kind="user", name=name, amount=1))


def test_a_repeated_key_grants_once(admin: AdminClient) -> None:
    name = fresh_name()
    headers = {"Idempotency-Key": uuid4().hex}

    def grant(amount: int) -> httpx.Response:
        body = {"kind": "user", "name": name, "amount": amount}
        return admin._http.post("admin/account/grant", json=body, headers=headers)

    answers = [grant(MILLION) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert grant(2 * MILLION).status_code == 422
    assert admin.statement("user", name).account.balance == MILLION


def test_a_misspelt_preview_is_no_change(admin: AdminClient) -> None:
    name = fresh_name()
    body = {"kind": "user", "name": name, "amount": MILLION}
    answer = admin._http.post("admin/account/grant?previw=true", json=body)
    assert answer.status_code == 422
    assert name not in {each.name for each in admin.all_accounts(search=name).items}


def test_a_new_user_gets_the_starting_grant_beside_what_was_granted(
    hub: RunningHub, admin: AdminClient
) -> None:
    admin.give(admin_models.CreditsGrant(kind="user", name="bob", amount=5 * MILLION))
    assert hub.client("bob").account().balance == 105 * MILLION


def test_credits_that_lapse_are_told_apart(admin: AdminClient) -> None:
    name = fresh_name()
    grant = admin_models.CreditsGrant(
        kind="user", name=name, amount=7 * MILLION, expires_after="30d"
    )
    assert "lapses at" in texts(admin.give(grant))
    statement = admin.statement("user", name)
    assert statement.account.lapsing == 7 * MILLION
    assert [each.remaining for each in statement.lots] == [7 * MILLION]
    days = (statement.lots[0].expires - datetime.now(UTC)) / timedelta(days=1)
    assert 29.9 < days <= 30
    assert "they lapse at" in statement.items[0].text


def test_an_overdraft_lets_a_balance_fall_below_zero(admin: AdminClient) -> None:
    name = fresh_name()
    admin.give(admin_models.CreditsGrant(kind="user", name=name, amount=2 * MILLION))
    change = admin_models.OverdraftChange(kind="user", name=name, overdraft=3 * MILLION, expected=0)
    assert f"{name} can spend 2.00 -> 5.00 credits" in texts(admin.set_overdraft(change))
    with pytest.raises(EraError, match="look again") as stale:
        admin.set_overdraft(change)
    assert stale.value.status == 409
    assert admin.statement("user", name).account.overdraft == 3 * MILLION


def test_a_standing_grant_is_made_changed_and_ended(admin: AdminClient) -> None:
    name = fresh_name()
    admin.give(admin_models.CreditsGrant(kind="user", name=name, amount=15 * MILLION))
    wanted = admin_models.GrantRequest(
        kind="user", name=name, amount=10 * MILLION, period="7d", cap=20 * MILLION
    )
    seen = admin.create_grant(wanted, preview=True)
    assert f"{name}'s balance 15.00 -> 20.00 credits" in texts(seen)
    assert admin.grants(name=name) == []
    admin.create_grant(wanted)
    (grant,) = admin.grants(name=name)
    assert (grant.period, grant.cap, grant.actor) == (7 * 86_400, 20 * MILLION, "admin:admin")
    changed = admin.change_grant(
        grant.id, admin_models.GrantChange(version=grant.version, amount=MILLION)
    )
    assert "10.00 credits" in changed.effects[0].text
    assert "1.00 credits" in changed.effects[1].text
    with pytest.raises(EraError, match="look again") as stale:
        admin.end_grant(grant.id, grant.version)
    assert stale.value.status == 409
    admin.end_grant(grant.id, admin.grants(name=name)[0].version)
    assert admin.grants(name=name) == []
    (over,) = admin.grants(name=name, ended=True)
    assert (over.ended is not None, over.next_at) == (True, None)


def test_who_pays_is_set_and_forgotten(admin: AdminClient) -> None:
    group = fresh_name()
    policy = admin_models.PayerPolicyRequest(
        kind="group", name=group, pays=f"group:{group}", rank=7
    )
    assert "has no account yet" in texts(admin.set_policy(policy, preview=True))
    admin.give(admin_models.CreditsGrant(kind="group", name=group, amount=MILLION))
    assert "has no account yet" not in texts(admin.set_policy(policy))
    assert [each.name for each in admin.policies()] == [group]
    other = policy.model_copy(update={"name": fresh_name()})
    with pytest.raises(EraError, match="rank 7"):
        admin.set_policy(other)
    with pytest.raises(EraError, match="look again"):
        admin.set_policy(policy)  # as if it were new
    admin.remove_policy("group", group, 1)
    assert admin.policies() == []


# -- quotas ------------------------------------------------------------------------------


def test_a_quota_says_who_is_above_it_and_binds_new_bids(
    admin: AdminClient, ann: EraClient
) -> None:
    held = ann.reserve(bid(configuration="gpu-6")).reservation
    try:
        seen = admin.set_quota(admin_models.QuotaRequest(kind="user", name="ann", gpus=4))
        assert "ann is above a limit now with 6 GPUs of 4" in texts(seen)
        assert ann.reservation(held.id).state is models.State.ACCEPTED
        refused = ann.reserve(bid(arrival=held.start, deadline=held.end))
        assert not refused.accepted
        assert "gpus" in refused.reason
        report = admin.user_report("ann")
        assert [each.limit for each in report.limits] == ["gpus"]
        assert [each.id for each in report.reservations] == [held.id]
        # Those that the hub says, whatever the last bid was made with.
        assert (report.groups, report.groups_from) == (["lab"], "hub")
    finally:
        ann.give_back(held.id)
        admin.remove_quota("user", "ann", 1)
    assert admin.quotas() == []
    assert ann.reserve(bid(value=0)).reason != refused.reason


def test_a_quota_is_replaced_by_its_version_only(admin: AdminClient) -> None:
    name = fresh_name()
    wanted = admin_models.QuotaRequest(kind="group", name=name, longest="4h", horizon="7d")
    first = admin.set_quota(wanted)
    assert "reservations of at most 4 h" in texts(first)
    with pytest.raises(EraError) as stale:
        admin.set_quota(wanted)
    assert stale.value.status == 409
    second = admin.set_quota(wanted.model_copy(update={"version": 1, "longest": 3600}))
    assert (second.before["longest"], second.after["longest"]) == (4 * 3600, 3600)
    admin.remove_quota("group", name, 2)


BAD = [
    ("admin/account/grant", ANN | {"amount": 0}, "amount"),
    ("admin/account/grant", ANN | {"amount": -5}, "amount"),
    ("admin/account/grant", ANN | {"amount": 10**30}, "amount"),
    ("admin/account/grant", ANN | {"amount": 1, "colour": "red"}, "colour"),
    ("admin/grants", {"kind": "user", "amount": 1}, "name"),
    ("admin/grants", {"kind": "everyone", "name": "x", "amount": 1}, "name"),
    ("admin/policies", {"kind": "group", "name": "x", "pays": "own"}, "rank"),
    ("admin/policies", {"kind": "user", "name": "x", "pays": "bank"}, "pays"),
    ("admin/quotas", {"kind": "everyone", "gpu_seconds": 5}, "period"),
    ("admin/quotas", {"kind": "all"}, "kind"),
    ("admin/pool", {"version": 0, "held_back": 9}, "held_back"),
    ("admin/pool", {"version": 0, "price_floor": 5, "price_ceiling": 4}, "price_ceiling"),
    ("admin/maintenance", WINDOW | {"gpus": 9}, "gpus"),
    ("admin/maintenance", {"start": WINDOW["end"], "end": WINDOW["start"]}, "end"),
]


@pytest.mark.parametrize(("path", "body", "word"), BAD)
def test_bad_input_is_explained(
    admin: AdminClient, path: str, body: dict[str, Any], word: str
) -> None:
    before = admin.audit_log(limit=1).items
    answer = admin._http.post(path, json=body)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]
    assert admin.audit_log(limit=1).items == before


@pytest.mark.parametrize(
    "path", ["admin/account?kind=user&name=nobody", "admin/user?name=nobody", "admin/x"]
)
def test_what_is_not_there(admin: AdminClient, path: str) -> None:
    assert admin._http.get(path).status_code == 404


# -- the pool ------------------------------------------------------------------------------


def test_held_back_gpus_break_what_they_must_and_say_so(admin: AdminClient, ann: EraClient) -> None:
    held = ann.reserve(bid(configuration="gpu-8")).reservation
    before = ann.account().balance
    settings = admin.pool_settings()
    wanted = admin_models.PoolSettingsRequest(version=settings.version, held_back=2)
    seen = admin.set_pool(wanted, preview=True)
    lost = models.format_credits(held.price)
    assert f"1 reservation would break: refunded {lost} credits" in texts(seen)
    assert [each.user for each in seen.effects if each.user] == ["ann"]
    assert ann.reservation(held.id).state is models.State.ACCEPTED
    assert admin.pool_settings() == settings
    try:
        done = admin.set_pool(wanted)
        assert "1 reservation broke" in texts(done)
        assert ann.reservation(held.id).state is models.State.FAILED
        assert ann.account().balance == before + held.price
        assert max(ann.market(hours=1).capacity) == 6
        assert done.after["broken"] == [held.id]
    finally:
        version = admin.pool_settings().version
        admin.set_pool(admin_models.PoolSettingsRequest(version=version))
    assert max(ann.market(hours=1).capacity) == 8


def test_a_price_floor_holds_for_new_bids(admin: AdminClient, ann: EraClient) -> None:
    version = admin.pool_settings().version
    floor = 3 * MILLION
    wanted = admin_models.PoolSettingsRequest(version=version, price_floor=floor)
    change = admin.set_pool(wanted)
    try:
        assert "price floor of a GPU-hour 0.20 -> 3.00 credits" in texts(change)
        with pytest.raises(EraError) as stale:
            admin.set_pool(wanted)
        assert stale.value.status == 409
        one = ann.market(hours=1).configurations[1]
        assert min(price for price in one.prices if price is not None) >= floor * 10 / 3600 - 1
    finally:
        admin.set_pool(admin_models.PoolSettingsRequest(version=version + 1))


def test_maintenance_is_planned_changed_and_dropped(admin: AdminClient, ann: EraClient) -> None:
    held = ann.reserve(bid(configuration="gpu-8")).reservation
    window = {"start": held.start, "end": held.end, "reason": "new cooling"}
    seen = admin.plan_maintenance(admin_models.MaintenanceRequest(**window), preview=True)
    assert "1 reservation would break" in texts(seen)
    assert admin.maintenance() == []
    ann.give_back(held.id)
    planned = admin.plan_maintenance(admin_models.MaintenanceRequest(**window))
    assert "no reservation breaks" in texts(planned)
    (found,) = admin.maintenance()
    assert (found.gpus, found.reason) == (None, "new cooling")
    outcome = ann.reserve(bid(arrival=held.start, deadline=held.end))
    assert not outcome.accepted
    smaller = admin_models.MaintenanceChange(**window, gpus=7, version=found.version)
    admin.change_maintenance(found.id, smaller)
    outcome = ann.reserve(bid(arrival=held.start, deadline=held.end))
    assert outcome.accepted
    ann.give_back(outcome.reservation.id)
    with pytest.raises(EraError) as stale:
        admin.drop_maintenance(found.id, found.version)
    assert stale.value.status == 409
    admin.drop_maintenance(found.id, admin.maintenance()[0].version)
    assert admin.maintenance() == []


# -- questions -----------------------------------------------------------------------------


def test_accounts_are_paged_and_filtered(admin: AdminClient) -> None:
    prefix = uuid4().hex[:10]
    names = [f"{prefix}-{number}" for number in range(5)]
    for number, name in enumerate(names, start=1):
        admin.give(admin_models.CreditsGrant(kind="user", name=name, amount=number * MILLION))
    found, after = [], None
    while True:
        page = admin.all_accounts(search=prefix.upper(), limit=2, after=after)
        assert len(page.items) <= 2
        found += [each.name for each in page.items]
        after = page.next
        if after is None:
            break
    assert found == names
    poor = admin.all_accounts(search=prefix, below=3 * MILLION).items
    assert [each.name for each in poor] == names[:2]
    system = admin.all_accounts(kind="system").items
    assert "bank" in {each.name for each in system}


def test_statements_are_paged(admin: AdminClient) -> None:
    name = fresh_name()
    for amount in (1, 2, 3):
        admin.give(admin_models.CreditsGrant(kind="user", name=name, amount=amount))
    first = admin.statement("user", name, limit=2)
    assert [each.amount for each in first.items] == [3, 2]
    second = admin.statement("user", name, limit=2, before=first.next)
    assert ([each.amount for each in second.items], second.next) == ([1], None)


def test_who_holds_what_is_told_and_no_bid(admin: AdminClient, ann: EraClient) -> None:
    held = ann.reserve(bid(value=12_345_671)).reservation
    try:
        (holder,) = admin.holders(user="ann").items
        assert [each.id for each in holder.reservations] == [held.id]
        assert (holder.gpus_now, holder.gpus_later, holder.held) == (0, 1, held.price)
        for path in ("admin/holders", "admin/user?name=ann", "admin/demand", "admin/audit"):
            assert "12345671" not in admin._http.get(path).text
    finally:
        ann.give_back(held.id)


def test_what_runs_and_waits_is_told(hub: RunningHub, admin: AdminClient, ann: EraClient) -> None:
    job = ann.submit(
        models.JobRequest(
            configuration="gpu-2", duration="5m", value=50 * MILLION, command=["sleep", "300"]
        )
    ).job
    until(lambda: ann.job(job.id).state is models.JobState.RUNNING, 30, "the job")
    (holder,) = admin.holders(user="ann").items
    assert (holder.gpus_now, holder.gpus_waiting) == (2, 0)
    assert admin.user_report("ann").reservations[0].state is models.State.ACTIVE
    ann.cancel_job(job.id)


def test_demand_is_told_in_sums(admin: AdminClient, ann: EraClient) -> None:
    before = admin.demand(days=1).days
    ann.reserve(bid(value=1, configuration="gpu-4"))
    (today,) = admin.demand(days=1).days
    was = before[0] if before else None
    assert today.bids == (was.bids if was else 0) + 1
    assert today.declined == (was.declined if was else 0) + 1
    # From today's sum, before and after, one bid's value could be told.
    assert today.turned_away is None


def test_every_change_is_in_the_audit_log(admin: AdminClient) -> None:
    name = fresh_name()
    headers = {"X-Request-ID": "request-of-this-test"}
    body = {"kind": "group", "name": name, "amount": MILLION, "memo": "go"}
    admin._http.post("admin/account/grant", json=body, headers=headers)
    admin.withdraw(admin_models.CreditsWithdrawal(kind="group", name=name, amount=1))
    newest, oldest = admin.audit_log(subject=f"group:{name}").items
    assert (newest.action, oldest.action) == ("credits.withdraw", "credits.grant")
    assert oldest.actor == "admin:admin"
    assert oldest.before == {"balance": 0}
    assert oldest.after == {"balance": MILLION, "amount": MILLION, "memo": "go"}
    assert oldest.request_id == "request-of-this-test"
    page = admin.audit_log(subject=f"group:{name}", limit=1)
    assert page.next == newest.id
    rest = admin.audit_log(subject=f"group:{name}", limit=1, before=page.next)
    assert ([each.id for each in rest.items], rest.next) == ([oldest.id], None)
    assert admin.audit_log(actor="admin:nobody").items == []


def test_the_books_are_sound(admin: AdminClient) -> None:
    books = admin.books()
    assert books.sound
    assert books.findings == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "ü ñ", "50%", "a?b#c"])
def test_names_are_names_whatever_they_hold(admin: AdminClient, name: str) -> None:
    admin.give(admin_models.CreditsGrant(kind="user", name=name, amount=MILLION))
    assert admin.statement("user", name).account.name == name
    assert admin.user_report(name).name == name


def test_the_document_tells_of_previews_and_keys(admin: AdminClient) -> None:
    document = admin._http.get("openapi.json").json()
    grant = document["paths"]["/admin/account/grant"]["post"]
    assert "custom:era:admin" in grant["description"]
    assert {each["name"] for each in grant["parameters"]} == {"preview", "Idempotency-Key"}
    schema = document["components"]["schemas"]["AdminChange"]
    assert set(schema["properties"]) == set(admin_models.AdminChange.model_fields)
