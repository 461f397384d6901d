"""Runs AccaSim on a trace; started by replay.py with the Python of the environment it makes.

    python accasim_replay.py TRACE.swf SYSTEM.json fcfs|backfill RESULTS_FOLDER

Prints JSON: jobs, seconds of CPU and wall time, mean hours that jobs waited.
"""

from __future__ import annotations

import collections
import collections.abc
import json
import sys
import time
import warnings
from pathlib import Path


def peak_memory() -> float:
    """The most memory that this process has had so far, MB."""
    # Not `getrusage`, whose maximum begins with that of the process that started this one.
    with Path("/proc/self/status").open() as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def main(trace: str, system: str, policy: str, folder: str) -> None:
    """Simulate and print what came of it; nothing is written besides, to be fast."""
    # AccaSim 1.1 is from 2018. Python 3.10 removed these names from `collections`, and its
    # regular expressions are not raw strings.
    for name in ("Callable", "Iterable", "Mapping", "MutableMapping", "Sequence"):
        setattr(collections, name, getattr(collections.abc, name))
    warnings.simplefilter("ignore")
    from accasim.base.allocator_class import FirstFit
    from accasim.base.scheduler_class import EASYBackfilling, FirstInFirstOut
    from accasim.base.simulator_class import Simulator

    scheduler = {"fcfs": FirstInFirstOut, "backfill": EASYBackfilling}[policy]
    wall, cpu = time.perf_counter(), time.process_time()
    simulator = Simulator(
        trace,
        system,
        scheduler(FirstFit()),
        scheduling_output=False,
        statistics_output=False,
        show_statistics=False,
        RESULTS_FOLDER_PATH=folder,
        LOG_LEVEL="ERROR",
    )
    simulator._logger.setLevel("ERROR")
    simulator.start_simulation()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    waits = simulator.mapper.wtimes
    figures = {
        "jobs": simulator.loaded_jobs,
        "done": simulator.loaded_jobs - simulator.rejected_jobs,
        "cpu": cpu,
        "wall": wall,
        "memory_mb": peak_memory(),
        "wait": sum(waits) / max(len(waits), 1) / 3600,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
