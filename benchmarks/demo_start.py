"""How long `make demo` takes from a fresh clone, and when started again.

    python3 benchmarks/demo_start.py

Clones the committed state of this checkout into a temporary folder, installs
everything there, and waits each time until the hub's login page and the market
answer. The first time depends on how fast packages can be fetched.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=4, help="starts after the first (default 4)")
    again = parser.parse_args().starts
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.platform()}")
        print(f"first start, with all installs  {start(clone):6.1f} s")
        for number in range(2, again + 2):
            print(f"start number {number}                  {start(clone):6.1f} s")


def start(clone: Path) -> float:
    """Start the demo, wait until it says that it is ready, stop it; the seconds it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.perf_counter()
    demo = subprocess.Popen(
        ["make", "demo", f"ARGS=--port {port}"],
        cwd=clone,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    ready = any("Password" in line for line in demo.stdout)
    taken = time.perf_counter() - begun
    if not ready:
        raise SystemExit("the demo did not start")
    os.killpg(demo.pid, signal.SIGINT)
    demo.wait()
    return taken


if __name__ == "__main__":
    main()
