"""The load benchmark on a small scale: a real service, and clients in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys


def test_it_reports_rates_of_quotes_and_durable_reservations() -> None:
    command = [sys.executable, "-m", "benchmarks.load", "--store=sqlite", "--seconds=1", "--json"]
    rates = ["--quotes=20", "--reservations=10"]
    done = subprocess.run([*command, *rates], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["kind"], row["rate"]) for row in rows] == [
        ("quotes", "most"),
        ("quotes", 20.0),
        ("reservations", "most"),
        ("reservations", 10.0),
    ]
    for row in rows:
        assert row["failed"] == 0
        assert row["per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert rows[2]["accepted"] > 0
