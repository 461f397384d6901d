"""Who pays, also where groups overlap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.policies import NotAllowed, Payer, Policies
from era_hub.store.versions import Stale
from tests.era_hub.store.rows import NOW


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session.begin() as session:
        yield session


@pytest.fixture
def policies(session: Session) -> Policies:
    return Policies(session)


def test_without_a_policy_everybody_pays_for_themselves(policies: Policies) -> None:
    assert policies.payer("ann", ["lab"]) == Payer("user", "ann")
    assert policies.payer("ann", []) == Payer("user", "ann")


def test_the_lowest_rank_decides_between_overlapping_groups(policies: Policies) -> None:
    policies.set("group", "astro", "group:astro", rank=20)
    policies.set("group", "bio", "group:bio", rank=10)
    policies.set("group", "chem", None, rank=1)
    for groups in (["astro", "bio"], ["bio", "astro"], ["chem", "bio", "astro"]):
        assert policies.payer("ann", groups) == Payer("group", "bio")
    assert policies.payer("ann", ["astro"]) == Payer("group", "astro")
    assert policies.payer("ann", ["chem"]) == Payer("user", "ann")


def test_the_users_own_policy_comes_first(policies: Policies) -> None:
    policies.set("group", "bio", "group:bio", rank=1)
    policies.set("user", "ann", "own")
    policies.set("user", "bob", "group:astro")
    policies.set("user", "carl", None)
    groups = ["astro", "bio"]
    assert str(policies.payer("ann", groups)) == "own"
    assert str(policies.payer("bob", groups)) == "group:astro"
    assert str(policies.payer("carl", groups)) == "group:bio"


def test_who_has_left_a_group_does_not_spend_from_it(policies: Policies) -> None:
    policies.set("user", "ann", "group:astro")
    policies.set("group", "bio", "group:astro", rank=1)
    assert policies.payer("ann", ["bio"]) == Payer("user", "ann")


def test_a_bid_may_name_who_pays(policies: Policies) -> None:
    policies.set("user", "ann", "group:bio")
    assert policies.payer("ann", ["bio", "astro"], "own") == Payer("user", "ann")
    assert policies.payer("ann", ["bio", "astro"], "group:astro") == Payer("group", "astro")


@pytest.mark.parametrize("wanted", ["group:astro", "group:", "astro", "", "user:bob", "bob"])
def test_nobody_names_an_account_that_is_not_theirs(policies: Policies, wanted: str) -> None:
    with pytest.raises(NotAllowed):
        policies.payer("ann", ["bio"], wanted)


def test_a_group_named_own_is_no_trick(policies: Policies) -> None:
    assert policies.payer("ann", ["own"], "own") == Payer("user", "ann")
    assert policies.payer("ann", ["own"], "group:own") == Payer("group", "own")


def test_the_choices_are_the_own_account_and_the_groups_that_have_one(
    session: Session, policies: Policies
) -> None:
    ledger = Ledger(session, NOW)
    for name in ("bio", "astro", "chem"):
        ledger.group(name)
    named = [str(each) for each in policies.choices("ann", ["bio", "astro", "dance"])]
    assert named == ["own", "group:astro", "group:bio"]


def test_ranks_are_unique(policies: Policies) -> None:
    policies.set("group", "bio", "own", rank=1)
    with pytest.raises(ValueError, match="rank 1 is that of group bio"):
        policies.set("group", "astro", "own", rank=1)
    policies.set("group", "bio", None, rank=1, version=1)


def test_who_was_slower_is_told(policies: Policies) -> None:
    policies.set("user", "ann", "own")
    with pytest.raises(Stale):
        policies.set("user", "ann", None)
    assert policies.set("user", "ann", None, version=1).version == 2
    for version in (1, 3):
        with pytest.raises(Stale):
            policies.remove("user", "ann", version)
    policies.remove("user", "ann", 2)
    assert policies.all() == []
    with pytest.raises(Stale):
        policies.remove("user", "ann", 2)


@pytest.mark.parametrize(
    ("kind", "name", "pays", "rank"),
    [
        ("everyone", "", "own", None),
        ("user", "", "own", None),
        ("user", "ann", "own", 3),
        ("group", "bio", "own", None),
        ("user", "ann", "bob", None),
        ("user", "ann", "group:", None),
    ],
)
def test_policies_that_make_no_sense_are_refused(
    policies: Policies, kind: str, name: str, pays: str, rank: int | None
) -> None:
    with pytest.raises(ValueError):
        policies.set(kind, name, pays, rank)
