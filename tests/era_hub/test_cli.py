"""``era-hub`` as admins use it: a real process against a real service, and on its database."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import pytest

from era_hub.cli import main
from tests.running_hub import RunningHub

Run = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = [sys.executable, "-m", "era_hub"]


@pytest.fixture(scope="module")
def environment(hub: RunningHub) -> dict[str, str]:
    """Without a token, so that each test says whose it is."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ERA_TOKEN", "JUPYTERHUB_API_TOKEN", "ERA_DB_URL")
    }
    return {**kept, "ERA_URL": f"{hub.url}services/era", "TZ": "UTC", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def run(hub: RunningHub, environment: dict[str, str]) -> Run:
    """The program with an admin's token."""
    token = hub.user_token("admin")

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            env={**environment, "ERA_TOKEN": token, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def fresh_name() -> str:
    return f"user-{uuid4().hex[:8]}"


def balance(run: Run, name: str) -> int:
    found = answer(run("accounts", name, "--json"))["account"]["balance"]
    assert isinstance(found, int)
    return found


# -- changes -----------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(run: Run) -> None:
    name = fresh_name()
    result = run("grant", name, "--amount", "50", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert f"{name}'s balance 0.00 -> 50.00 credits" in result.stdout
    assert "Nothing was changed." in result.stdout
    assert "there is no account" in run("accounts", name).stderr


def test_without_a_terminal_nothing_is_changed_unasked(run: Run) -> None:
    name = fresh_name()
    result = run("grant", name, "--amount", "50")
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert "there is no account" in run("accounts", name).stderr


def test_credits_are_granted_and_withdrawn(run: Run) -> None:
    one, two = fresh_name(), fresh_name()
    (first, second) = answer(
        run("grant", one, two, "--amount", "2.5", "--memo", "hello", "--yes", "--json")
    )
    assert (first["applied"], second["subject"]) == (True, f"user:{two}")
    shown = run("withdraw", one, "--amount", "1", "--yes").stdout
    assert f"{one}'s balance 2.50 -> 1.50 credits" in shown
    statement = run("accounts", one).stdout
    assert "Credits given by admin: hello" in statement
    assert balance(run, one) == 1_500_000
    assert run("withdraw", two, "--all", "--yes").returncode == 0
    assert balance(run, two) == 0
    refused = run("withdraw", two, "--amount", "1", "--yes")
    assert (refused.returncode, "has 0.00 credits" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("reply", "then"), [(b"y\n", 5_000_000), (b"n\n", 1_000_000)])
def test_on_a_terminal_the_effects_are_shown_and_it_asks(
    hub: RunningHub, run: Run, environment: dict[str, str], reply: bytes, then: int
) -> None:
    name = fresh_name()
    answer(run("grant", name, "--amount", "1", "--yes", "--json"))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "grant", name, "--amount", "4"],
        env={**environment, "ERA_TOKEN": hub.user_token("admin")},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        while b"Do it?" not in seen:
            seen += os.read(ours, 4096)
        assert b"1.00 -> 5.00 credits" in seen
        os.write(ours, reply)
        with pytest.raises(OSError, match="Input/output"):  # the other end is closed
            while True:
                os.read(ours, 4096)
        assert process.wait(30) == (0 if reply == b"y\n" else 1)
    os.close(ours)
    assert balance(run, name) == then


def test_a_standing_grant(run: Run) -> None:
    name = fresh_name()
    every = ("grant", "--group", name, "--amount", "20", "--every", "7d", "--cap", "60")
    (made,) = answer(run(*every, "--yes", "--json"))
    number = made["subject"].partition(":")[2]
    assert name in run("grants", "list").stdout
    assert run("grants", "change", number, "--amount", "30", "--cap", "0", "--yes").returncode == 0
    (found,) = [each for each in answer(run("grants", "list", "--json")) if each["name"] == name]
    assert (found["amount"], found["cap"], found["period"]) == (30_000_000, None, 604_800)
    assert run("grants", "end", number, "--yes").returncode == 0
    assert name not in run("grants", "list").stdout


def test_quotas_are_set_limit_by_limit(run: Run) -> None:
    name = fresh_name()
    mine = ("--user", name)
    answer(run("quota", "set", *mine, "--gpus", "4", "--longest", "12h", "--yes", "--json"))
    (change,) = answer(run("quota", "set", *mine, "--gpu-hours", "10", "--yes", "--json"))
    assert change["after"] == {
        "gpus": 4,
        "longest": 43_200,
        "gpu_seconds": 36_000,
        "period": 604_800,
        "version": 2,
    }
    answer(run("quota", "set", *mine, "--no", "gpu-hours", "--no", "gpus", "--yes", "--json"))
    (row,) = [each for each in answer(run("quota", "list", "--json")) if each["name"] == name]
    assert (row["gpus"], row["gpu_seconds"], row["longest"]) == (None, None, 43_200)
    assert run("quota", "remove", *mine, "--yes").returncode == 0
    assert run("quota", "remove", *mine, "--yes").returncode == 1


def test_who_pays(run: Run) -> None:
    group = fresh_name()
    wanted = ("policy", "set", "--group", group, "--pays", f"group:{group}", "--yes")
    assert run(*wanted).returncode == 2  # a group's needs a rank
    assert run(*wanted, "--rank", "3").returncode == 0
    assert group in run("policy", "list").stdout
    assert run("policy", "remove", "--group", group, "--yes").returncode == 0
    assert group not in run("policy", "list").stdout


def test_capacity(run: Run) -> None:
    assert "8 of 8 GPUs for sale" in run("capacity").stdout
    try:
        shown = run("capacity", "--held-back", "3", "--price-floor", "0.50", "--yes").stdout
        assert "price floor of a GPU-hour 0.20 -> 0.50 credits" in shown
        assert "5 of 8 GPUs for sale" in run("capacity").stdout
    finally:
        back = ("--held-back", "0", "--price-floor", "default")
        assert run("capacity", *back, "--yes").returncode == 0
    found = answer(run("capacity", "--json"))
    assert (found["held_back"], found["price_floor"]) == (0, None)


def test_maintenance(run: Run) -> None:
    plan = ("maintenance", "plan", "--start", "+5h", "--end", "+6h", "--reason", "cooling")
    (made,) = answer(run(*plan, "--yes", "--json"))
    number = made["subject"].partition(":")[2]
    assert "cooling" in run("maintenance", "list").stdout
    (changed,) = answer(run("maintenance", "change", number, "--gpus", "2", "--yes", "--json"))
    assert (changed["after"]["gpus"], changed["after"]["reason"]) == (2, "cooling")
    assert run("maintenance", "drop", number, "--yes").returncode == 0
    backwards = run("maintenance", "plan", "--start", "+2h", "--end", "+1h", "--yes")
    assert "Error: end: must be later than the start" in backwards.stderr
    assert run("maintenance", "list").stdout.strip() == "No maintenance."


def test_what_was_changed_is_told(run: Run) -> None:
    name = fresh_name()
    answer(run("overdraft", name, "7", "--yes", "--json"))
    (line,) = answer(run("changes", "--subject", f"user:{name}", "--json"))["items"]
    assert (line["actor"], line["action"]) == ("admin:admin", "overdraft.set")
    assert "overdraft.set" in run("changes").stdout
    assert run("holders").stdout.strip() == "Nobody holds a reservation."


def test_of_several_changes_those_that_were_made_are_told(run: Run) -> None:
    rich, poor = fresh_name(), fresh_name()
    run("grant", rich, "--amount", "2", "--yes")
    run("grant", poor, "--amount", "1", "--yes")
    result = run("withdraw", rich, poor, "--amount", "2", "--yes", "--json")
    assert result.returncode == 1
    assert [each["subject"] for each in json.loads(result.stdout)] == [f"user:{rich}"]
    assert f"{poor} has 1.00 credits" in result.stderr


def test_a_list_goes_on_where_its_part_ended(run: Run) -> None:
    mark = uuid4().hex[:8]
    names = [f"{mark}-a b", f"{mark}-c"]
    answer(run("grant", *names, "--amount", "1", "--yes", "--json"))
    part = run("accounts", "--search", mark, "--limit", "1").stdout
    assert names[0] in part and names[1] not in part
    # As it must be typed into a shell.
    assert f"--next 'user:{names[0]}' goes on" in part
    rest = run("accounts", "--search", mark, "--next", f"user:{names[0]}").stdout
    assert names[0] not in rest and names[1] in rest and "--next" not in rest
    (newest,) = answer(run("changes", "--limit", "1", "--json"))["items"]
    older = answer(run("changes", "--next", str(newest["id"]), "--json"))["items"]
    assert [newest["subject"], older[0]["subject"]] == [f"user:{name}" for name in names[::-1]]


def test_demand_is_told_in_sums(run: Run) -> None:
    assert answer(run("demand", "--days", "3", "--json"))["at_least"] > 1
    assert run("demand").returncode == 0


# -- who may, and where ---------------------------------------------------------------------


def test_a_token_from_a_file(hub: RunningHub, environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(hub.user_token("admin") + "\n")
    result = subprocess.run(
        [*PROGRAM, "accounts", "--token-file", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_who_is_no_admin_is_refused(hub: RunningHub, run: Run) -> None:
    result = run("grant", "ann", "--amount", "1", "--yes", ERA_TOKEN=hub.user_token("ann"))
    assert result.returncode == 1
    assert "custom:era:admin" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_token_it_says_so(run: Run) -> None:
    result = run("accounts", ERA_TOKEN="")
    assert (result.returncode, "ERA_TOKEN" in result.stderr) == (1, True)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_no_option_takes_a_token(path: tuple[str, ...]) -> None:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    options = {option for each in command.params for option in each.opts}
    assert not options & {"--token", "--password", "--api-token"}
    if path not in {("demo",), ("serve",)} and not isinstance(command, click.Group):
        assert "Example" in (command.help or "")
        assert "--json" in options


# -- the books ---------------------------------------------------------------------------------


def test_the_books_are_proved_while_the_service_runs(hub: RunningHub, run: Run) -> None:
    answer(run("grant", fresh_name(), "--amount", "3", "--yes", "--json"))
    database = f"sqlite:///{hub.folder}/era.sqlite"
    for where in (("--db", database), ("--state-dir", str(hub.folder))):
        result = run("audit", *where, "--gpus", "8")
        assert result.returncode == 0, result.stderr
        assert "The books add up" in result.stdout
    assert answer(run("audit", "--json", ERA_DB_URL=database))["sound"]


def test_what_does_not_add_up_is_found(hub: RunningHub, run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "era.sqlite"
    name = fresh_name()
    answer(run("grant", name, "--amount", "3", "--yes", "--json"))
    with (
        closing(sqlite3.connect(hub.folder / "era.sqlite")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("UPDATE accounts SET balance = balance + 1 WHERE name = ?", (name,))
        target.commit()
    result = run("audit", "--db", f"sqlite:///{copy}")
    assert result.returncode == 1
    assert "the books do not add up" in result.stdout
    books = json.loads(run("audit", "--db", f"sqlite:///{copy}", "--json").stdout)
    assert not books["sound"]
    assert books["findings"]


def test_no_books_are_no_sound_books(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "none.sqlite"
    result = run("audit", "--db", f"sqlite:///{missing}")
    assert result.returncode == 1
    assert "there is no database" in result.stderr
    assert not missing.exists()
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    result = run("audit", "--db", f"sqlite:///{empty}")
    assert (result.returncode, "tables" in result.stderr) == (1, True)
    assert run("audit", "--db", "nonsense").returncode == 2
