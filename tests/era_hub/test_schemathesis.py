"""What the OpenAPI document promises, asked of a real service in each role by Schemathesis."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from era_hub.api import ROUTES
from era_hub.api.openapi import document
from tests.era_hub.watched_hub import direct
from tests.running_hub import FAST, RunningHub

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES, "/services/era/api/v1/"))
# A stream without an end is tested where its end can be waited for.
SCHEMA = SCHEMA.exclude(path="/events")
ROLES = ["owner", "other", "admin", "service", "stranger"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    options = FAST | {"EraHub.rate": 0}
    with RunningHub(tmp_path_factory.mktemp("hub"), options=options) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(hub: RunningHub) -> dict[str, str]:
    return {
        "owner": hub.user_token("ann"),
        "other": hub.user_token("bob"),
        "admin": hub.user_token("admin"),
        "service": hub.spawner_token,
        "stranger": "0" * 32,
    }


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_of_the_document(
    case: schemathesis.Case, hub: RunningHub, tokens: dict[str, str]
) -> None:
    for role in ROLES:
        headers = {"Authorization": f"token {tokens[role]}"}
        case.call_and_validate(
            base_url=direct(hub).rstrip("/"), headers=headers, checks=CHECKS, timeout=30
        )
    assert httpx.get(f"{direct(hub)}health").status_code == 200
