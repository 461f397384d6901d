"""``era-sim generate``: workloads drawn from a model or made from a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from era_pricing.notation import write_duration
from era_pricing.simulator import generate as models
from era_pricing.simulator.commands.options import (
    Duration,
    Problem,
    days_option,
    history_days_option,
    load_option,
    plain_errors,
    quiet_option,
    seed_option,
    together,
)
from era_pricing.simulator.formats import kind_of, write_csv, write_workload
from era_pricing.simulator.scenario import Cycle, Drift, Scenario, Values, Windows
from era_pricing.simulator.traces import from_trace, read_trace
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

_Option = Callable[[Any], Any]
_LONG = 200_000  # rows from which on a progress bar is worth it


def _time_or_none(text: str) -> int:
    """Seconds, or 0 for `none`."""
    return 0 if text in ("none", "0") else Duration().convert(text, None, None)


def _mix(text: str) -> dict[int, float]:
    """Weight of each number of units, from `1:4,2:3,8:1`."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(units): float(weight) for units, weight in pairs}
    except ValueError:
        raise click.BadParameter(f"must be like 1:4,2:3,8:1 (units:weight), got {text!r}") from None


_output_options: _Option = together(
    click.option(
        "--output",
        "-o",
        default="-",
        metavar="FILE",
        help="CSV, or bids if its name ends in .jsonl; perhaps with .gz. Without it, CSV "
        "goes to the standard output.",
    ),
    days_option("Days over which requests are submitted."),
    click.option(
        "--history",
        metavar="FILE",
        help="Also write what came in the days before, of the same process, to this file.",
    ),
    history_days_option("Days of that history."),
    seed_option,
    quiet_option,
)


def _size_options(default: Scenario, load: float | None) -> _Option:
    return together(
        click.option(
            "--capacity",
            type=click.IntRange(1),
            default=default.capacity,
            show_default=True,
            help="Units of the cluster; larger requests are cut to it.",
        ),
        *_if(
            load is not None,
            load_option(
                "Unit-hours asked for, relative to what the cluster has."
                + ("" if load else " Without it, all jobs as they are."),
                load or None,
            ),
        ),
        click.option(
            "--align",
            type=_time_or_none,
            default=write_duration(default.align or 0) if default.align else "none",
            show_default=True,
            metavar="TIME",
            help="Round arrivals and durations up, and waits to the nearest multiple; none: to "
            "the second. Requests that cannot wait only fit whole slots if this is the slot.",
        ),
        click.option(
            "--longest",
            type=_time_or_none,
            default=write_duration(default.longest) if default.longest else "none",
            show_default=True,
            metavar="TIME",
            help="Cut longer durations to this.",
        ),
    )


def _if(wanted: bool, option: _Option) -> list[_Option]:
    return [option] if wanted else []


def _share(name: str, default: float, text: str) -> _Option:
    kind = click.FloatRange(0, 1)
    return click.option(name, type=kind, default=default, show_default=True, help=text)


def _time(name: str, default: int, text: str) -> _Option:
    return click.option(
        name,
        type=Duration(),
        default=write_duration(default),
        show_default=True,
        metavar="TIME",
        help=text,
    )


def _number(name: str, default: float, text: str) -> _Option:
    return click.option(name, type=float, default=default, show_default=True, help=text)


def _window_options(default: Windows) -> _Option:
    return together(
        _share("--tight", default.tight, "Share that must start when they arrive."),
        _share("--hours", default.hours, "Share that can wait for hours; the rest can for longer."),
        _time("--within-hours", default.within_hours, "Longest wait of those that wait for hours."),
        _time("--within-days", default.within_days, "Longest wait of the rest."),
        _share("--ahead", default.ahead, "Share that is submitted ahead of its arrival."),
        _time("--lead", default.lead, "Longest time from such a submission to the arrival."),
    )


def _value_options(default: Values) -> _Option:
    return together(
        _number("--value", default.median, "Median value of a unit-hour, credits."),
        _number("--value-sigma", default.sigma, "Standard deviation of the values' logarithm."),
        _number(
            "--size-exponent",
            default.size_exponent,
            "The value of a unit-hour grows with the unit-hours to this power.",
        ),
        _number("--urgency", default.urgency, "Factor on the values of those that cannot wait."),
        _number("--value-trend", 0.0, "Change of the values per week, relative."),
        _number("--value-factor", 1.0, "Factor on the values from --shift-at on."),
        click.option(
            "--shift-at",
            type=_time_or_none,
            default="none",
            show_default=True,
            metavar="TIME",
            help="When the factors set in, counted from the beginning, history included.",
        ),
    )


def _rate_options(default: Cycle, drift: bool = True) -> _Option:
    return together(
        click.option(
            "--start",
            type=click.DateTime(["%Y-%m-%d"]),
            default="2024-01-01",
            show_default=True,
            help="First day (UTC); the history begins there if there is one.",
        ),
        _share("--daily", default.daily, "Amplitude of the daily cycle of submissions."),
        _number("--peak-hour", default.peak_hour, "Hour of the day (UTC) at its top."),
        _share("--weekly", default.weekly, "How far the weekend lies below the mean."),
        _number("--burst", 1.0, "Mean number of requests submitted at the same moment."),
        *_if(drift, _number("--load-trend", 0.0, "Change of the load per week, relative.")),
        *_if(drift, _number("--load-factor", 1.0, "Factor on the load from --shift-at on.")),
    )


def _scenario(default: Scenario, given: dict[str, Any], start: int) -> Scenario:
    """The scenario that the options describe, history included."""
    if given["history"] and not given["history_days"]:
        raise Problem("--history needs --history-days above 0")
    days = given["days"] + (given["history_days"] if given["history"] else 0)
    cycle = {key: given[key] for key in ("daily", "peak_hour", "weekly") if key in given}
    windows = {key: given[key] for key in Windows.__dataclass_fields__}
    drift = {key: given[key] for key in Drift.__dataclass_fields__ if key in given}
    values = Values(given["value"], given["value_sigma"], given["size_exponent"], given["urgency"])
    return replace(
        default,
        start=start,
        span=max(round(days * DAY), 1),
        capacity=given["capacity"],
        load=given.get("load") or default.load,
        cycle=replace(default.cycle, **cycle),
        drift=Drift(**drift),
        windows=Windows(**windows),
        values=values,
        burst=given.get("burst", 1.0),
        align=given["align"] or None,
        longest=given["longest"] or None,
    )


def _first_day(given: dict[str, Any]) -> int:
    start: datetime = given["start"]
    return round(start.replace(tzinfo=UTC).timestamp())


def _finish(workload: Workload, scenario: Scenario, given: dict[str, Any]) -> None:
    """Write the workload, and its history if asked for."""
    past = 0
    if given["history"]:
        past = round(given["history_days"] * DAY)
        before, workload = models.split(workload, scenario.start + past)
        _write(before, given["history"], given["quiet"])
        _report("history", before, scenario.capacity, past, given["quiet"])
    _write(workload, given["output"], given["quiet"])
    _report("workload", workload, scenario.capacity, scenario.span - past, given["quiet"])


def _write(workload: Workload, path: str, quiet: bool) -> None:
    from era_pricing.simulator.commands.terminal import progress_bar

    if path == "-":
        write_csv(workload, sys.stdout)
        return
    with plain_errors():
        if kind_of(path) == "jsonl":
            from era_pricing.simulator.bidfiles import bids_of, write_bids

            write_bids(bids_of(workload), path)
        elif kind_of(path) == "csv":
            with progress_bar(len(workload), "rows", quiet or len(workload) < _LONG) as progress:
                write_workload(workload, path, progress)
        else:
            raise Problem(f"{path}: the name must end in .csv or .jsonl (and perhaps .gz)")


def _report(what: str, workload: Workload, capacity: int, span: int, quiet: bool) -> None:
    if not quiet:
        click.echo(
            f"{what}: {len(workload):,} requests in {write_duration(span)}, "
            f"{workload.unit_hours.sum():,.0f} unit-hours, "
            f"{models.mean_load(workload, capacity, span):.2f} times what {capacity:,} units have, "
            f"worth {workload.value.sum() / 1e6:,.0f} credits",
            err=True,
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def generate() -> None:
    """Make a workload: drawn from a model, or from a trace.

    \b
    Two weeks to learn from and a week to be tested on, for 64 GPUs at twice their load:
      era-sim generate poisson --load 2 --history past.csv -o week.csv
    The same, but values halve when the test begins:
      era-sim generate poisson --shift-at 14d --value-factor 0.5 --history past.csv -o week.csv
    A part of a trace, thinned to fit the cluster, with drawn windows and values:
      era-sim generate trace philly.csv.gz --from 2017-10-02 --load 2 -o week.csv
    """


_POISSON = Scenario(longest=2 * DAY)


@generate.command()
@_output_options
@_size_options(_POISSON, load=2.0)
@click.option(
    "--units",
    "mix",
    type=_mix,
    metavar="N:WEIGHT,...",
    default="1:40,2:25,4:20,8:15",
    show_default=True,
    help="How often each number of units is asked for.",
)
@_time("--duration", 2 * HOUR, "Median duration.")
@_number("--duration-sigma", 1.0, "Standard deviation of the durations' logarithm.")
@_rate_options(_POISSON.cycle)
@_window_options(_POISSON.windows)
@_value_options(_POISSON.values)
def poisson(**given: Any) -> None:
    """Random requests with daily and weekly cycles.

    \b
    Example: eight-GPU jobs only, all of which must start at once:
      era-sim generate poisson --units 8:1 --tight 1 --hours 0 -o tight.csv
    """

    with plain_errors():
        scenario = _scenario(_POISSON, given, _first_day(given))
        durations = models.LogNormal(given["duration"], given["duration_sigma"])
        workload = models.poisson(given["seed"], scenario, units=given["mix"], durations=durations)
    _finish(workload, scenario, given)


@generate.command("philly-like")
@_output_options
@_size_options(models.PHILLY_SCENARIO, load=2.0)
@_rate_options(models.PHILLY_SCENARIO.cycle)
@_window_options(models.PHILLY_SCENARIO.windows)
@_value_options(models.PHILLY_SCENARIO.values)
def philly_like(**given: Any) -> None:
    """Sizes, durations and cycles of the Philly GPU clusters.

    Many short one-GPU jobs, few long large ones which make most of the work. Windows
    and values are drawn: the trace has none.

    \b
    Example: a hundred thousand requests for a large cluster:
      era-sim generate philly-like --capacity 4000 -o large.csv.gz
    """

    with plain_errors():
        scenario = _scenario(models.PHILLY_SCENARIO, given, _first_day(given))
        workload = models.philly_like(given["seed"], scenario)
    _finish(workload, scenario, given)


@generate.command()
@_output_options
@_size_options(models.YAHOO_SCENARIO, load=None)
@click.option(
    "--jobs",
    nargs=2,
    type=click.IntRange(0),
    default=(1400, 1500),
    show_default=True,
    help="Least and greatest number of jobs in a class.",
)
@_rate_options(models.YAHOO_SCENARIO.cycle, drift=False)
@_window_options(models.YAHOO_SCENARIO.windows)
@_value_options(models.YAHOO_SCENARIO.values)
def yahoo(**given: Any) -> None:
    """Six classes of MapReduce jobs, as in the ERA paper.

    All classes have about as many jobs; a unit-hour of class 5, the largest jobs, is
    worth a tenth of the others'. Job numbers are fixed, so --days sets how small the
    cluster is; history is part of the same number of jobs. The paper says nothing of
    when jobs come and how long they can wait: at any time alike, and as the options
    below say.

    \b
    Example:
      era-sim generate yahoo --seed 1 -o yahoo.csv
      era-sim run -w yahoo.csv --capacity 20000 --slot 5min
    """

    with plain_errors():
        scenario = _scenario(models.YAHOO_SCENARIO, given, _first_day(given))
        workload = models.yahoo(given["seed"], scenario, jobs=given["jobs"])
    _finish(workload, scenario, given)


_TRACE = Scenario(longest=7 * DAY)


@generate.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "start",
    type=click.DateTime(["%Y-%m-%d"]),
    help="First day (UTC), history included; without it, the trace's first.",
)
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="Day to stop before; or --days.")
@_output_options
@_size_options(_TRACE, load=0.0)
@_window_options(_TRACE.windows)
@_value_options(_TRACE.values)
@click.pass_context
def trace(ctx: click.Context, /, file: Path, **given: Any) -> None:
    """Jobs of a trace FILE, with drawn windows and values.

    FILE is in Standard Workload Format if its name ends in .swf, else CSV with the
    columns timestamp, duration, num_gpus and cluster, as the Philly trace; it may be
    compressed by gzip. With --load, jobs are left out, or repeated on other days, at
    random. Classes are the trace's virtual clusters or queues.

    \b
    Examples:
      era-sim generate trace philly.csv.gz --from 2017-10-02 --load 2 -o week.csv
      era-sim generate trace KTH-SP2.swf.gz --days 30 --capacity 100 -o month.csv
    """
    with plain_errors():
        jobs = read_trace(file)
        if jobs.skipped and not given["quiet"]:
            click.echo(f"{jobs.skipped:,} jobs of unknown or no size are left out", err=True)
        if given["start"] is not None:
            start = _first_day(given)
        else:
            start = int(jobs.submitted[0]) // DAY * DAY if len(jobs) else _TRACE.start
        if given["to"] is not None:
            given["days"] = _days_until(ctx, given, start)
        scenario = _scenario(_TRACE, given, start)
        workload = from_trace(jobs, given["seed"], scenario, load=given["load"])
    _finish(workload, scenario, given)


def _days_until(ctx: click.Context, given: dict[str, Any], start: int) -> float:
    """Days of the workload if it ends at `--to`."""
    if ctx.get_parameter_source("days") is click.core.ParameterSource.COMMANDLINE:
        raise Problem("give either --to or --days")
    end = given["to"].replace(tzinfo=UTC).timestamp()
    days = (end - start) / DAY - (given["history_days"] if given["history"] else 0)
    if days <= 0:
        raise Problem("--to must be after --from, and after --history-days if there is a history")
    return float(days)
