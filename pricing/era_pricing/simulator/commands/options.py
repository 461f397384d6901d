"""What the commands of `era-sim` share: options, durations, files, and how errors look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from era_pricing.bids import Commitment
from era_pricing.notation import read_credits, read_duration
from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.mechanism import Mechanism, Pool, SetupError
from era_pricing.simulator.requests import Requests
from era_pricing.timegrid import DAY
from era_pricing.workload import Workload, WorkloadError

F = TypeVar("F", bound=Callable[..., Any])


if TYPE_CHECKING:  # generic only in newer versions of click
    _WholeNumber = click.ParamType[int]
    _PairType = click.ParamType[tuple[str, str]]
else:
    _WholeNumber = _PairType = click.ParamType


class Problem(click.ClickException):
    """Something the user can mend; one sentence, and exit code 2."""

    exit_code = 2


class Duration(_WholeNumber):
    """A length of time in seconds, written `30min`, `1h30min`, `14d` or `1800`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole seconds, 1 or more."""
        text = str(value)
        try:
            return read_duration(int(text) if text.isdecimal() else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Credits(_WholeNumber):
    """An amount in credits, as whole micro-credits."""

    name = "credits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Micro-credits, 1 or more."""
        try:
            micro = value if isinstance(value, int) else read_credits(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if micro < 1:
            self.fail(f"must be above 0, got {value!r}", param, ctx)
        return micro


class Pair(_PairType):
    """A setting, `name=value`."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The name and the value."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not name.strip() or not equals:
            self.fail(f"must be name=value, got {value!r}", param, ctx)
        return name.strip(), text.strip()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what the user can mend into one sentence."""
    try:
        yield
    except (SetupError, WorkloadError) as error:
        raise Problem(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Problem(f"{where}{error.strerror or error}") from None


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which `--help` shows them."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def workload_option(required: bool = True) -> Callable[[F], F]:
    """The option that names the requests."""
    return click.option(
        "--workload",
        "-w",
        required=required,
        metavar="FILE",
        help="Requests to play: CSV with the columns submitted, arrival, deadline, units, "
        "duration, value (seconds, GPUs, credits), or bids as JSONL or YAML.",
    )


history_option = click.option(
    "--history",
    metavar="FILE",
    help="Requests of the past, for what learns; they come before the workload.",
)
capacity_option = click.option(
    "--capacity", type=click.IntRange(1), metavar="N", help="GPUs in the pool."
)
pool_option = click.option(
    "--pool",
    metavar="FILE",
    help="Instead of --capacity: nodes, configurations and priced resources as YAML.",
)
slot_option = click.option(
    "--slot",
    type=Duration(),
    default="30min",
    show_default=True,
    metavar="TIME",
    help="Length of a slot, the piece of time that has a price.",
)
market_options: Callable[[F], F] = together(
    slot_option,
    click.option(
        "--horizon",
        type=Duration(),
        metavar="TIME",
        help="How far ahead the pool sells; without it, as far as the requests look ahead.",
    ),
    click.option(
        "--price-floor",
        type=Credits(),
        default="0.01",
        show_default=True,
        metavar="CREDITS",
        help="Least price of a GPU-hour.",
    ),
    click.option(
        "--price-ceiling", type=Credits(), metavar="CREDITS", help="Greatest price of a GPU-hour."
    ),
    click.option(
        "--late-penalty",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        metavar="RATE",
        help="Price later slots up by a factor exp(RATE) for each hour from now.",
    ),
    click.option(
        "--commitment",
        type=click.Choice([each.value for each in Commitment]),
        default=Commitment.FLEXIBLE.value,
        show_default=True,
        help="What an acceptance fixes: the start; the window, so that a job may be moved "
        "until it starts; or the window, with a job that may be split.",
    ),
    click.option(
        "--set",
        "settings",
        type=Pair(),
        multiple=True,
        help="An option of the algorithm, the predictor or the engine, such as price=2000000 or "
        "replan=false; with algorithm., predictor. or engine. in front where several have it. "
        "May be repeated.",
    ),
)
cloud_option = click.option(
    "--cloud",
    "cloud_settings",
    type=Pair(),
    multiple=True,
    help="What goes wrong, such as poll=60 or job_mtbf=100; see the reference for all. "
    "May be repeated.",
)
parallel_options: Callable[[F], F] = together(
    click.option(
        "--jobs",
        "-j",
        type=click.IntRange(1),
        metavar="N",
        help="Processes on this machine; as many as it has cores without it.",
    ),
    click.option("--dask", is_flag=True, help="Use a Dask cluster on this machine."),
    click.option(
        "--scheduler", metavar="ADDRESS", help="Use the Dask scheduler at tcp://host:port."
    ),
)


def days_option(text: str) -> Callable[[F], F]:
    """The option that says how long requests are drawn for."""
    return click.option(
        "--days",
        type=click.FloatRange(0, min_open=True),
        default=7.0,
        show_default=True,
        help=text,
    )


def history_days_option(text: str) -> Callable[[F], F]:
    """The option that says how long a history is drawn; 0: none."""
    return click.option(
        "--history-days", type=click.FloatRange(0), default=14.0, show_default=True, help=text
    )


def load_option(text: str, default: float | None = 2.0) -> Callable[[F], F]:
    """The option that says how much is asked for, relative to what there is."""
    return click.option(
        "--load",
        type=click.FloatRange(0, min_open=True),
        default=default,
        show_default=default is not None,
        help=text,
    )


seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress bars, no notes.")
page_option = click.option(
    "--page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Also write a page with plots, to open in a browser; it needs no network.",
)


def note(text: str, quiet: bool = False) -> None:
    """A remark for people, on stderr."""
    if not quiet:
        click.echo(f"Note: {text}", err=True)


def note_prior(mechanisms: Sequence[Mechanism], history: Workload | None, quiet: bool) -> None:
    """Say that a prior has to be told something where there is no history."""
    told = {each.predictor for each in mechanisms} & {"prior", "blend"}
    if told and (history is None or not len(history)):
        note(
            f"without a history, {' and '.join(sorted(told))} starts from the means of the "
            "workload itself",
            quiet,
        )


def mechanisms_of(
    algorithms: Sequence[str],
    predictors: Sequence[str],
    *,
    slot: int,
    horizon: int | None,
    price_floor: int,
    price_ceiling: int | None,
    late_penalty: float,
    commitment: str,
    settings: Sequence[tuple[str, str]],
) -> list[Mechanism]:
    """Every algorithm with every predictor, unless it names one of its own.

    Names are written ``name``, ``name:option=value,option=value``, or, for an
    algorithm, with a predictor behind it: ``name/name``.
    """
    if price_ceiling is not None and price_ceiling < price_floor:
        raise Problem("--price-ceiling must not be below --price-floor")
    found = []
    for text in algorithms:
        first, _, second = text.partition("/")
        for other in [second] if second else predictors:
            algorithm, mine = _named("algorithm", first)
            predictor, theirs = _named("predictor", other)
            mechanism = Mechanism(
                algorithm,
                predictor,
                slot,
                horizon,
                price_floor,
                price_ceiling,
                late_penalty,
                Commitment(commitment),
                {**mine, **theirs},
            )
            if mechanism not in found:
                found.append(mechanism)
    return [_with_settings(each, dict(settings), found) for each in found]


def _with_settings(
    mechanism: Mechanism, settings: dict[str, str], others: Sequence[Mechanism]
) -> Mechanism:
    """A mechanism with those of the settings that it takes, if any of the others takes them."""
    from era_pricing.simulator.building import takes

    mine = {
        name: text
        for name, text in settings.items()
        if takes(mechanism, name) or not any(takes(other, name) for other in others)
    }
    return replace(mechanism, options={**mechanism.options, **mine})


def _named(part: str, text: str) -> tuple[str, dict[str, str]]:
    """A plug-in's name and its own options."""
    name, _, rest = text.partition(":")
    options = {}
    for setting in rest.split(",") if rest else ():
        key, equals, value = setting.partition("=")
        if not key.strip() or not equals:
            raise Problem(f"--{part} {text}: options are written {name}:option=value")
        side = "" if "." in key else f"{part}."
        options[side + key.strip()] = value.strip()
    if not name:
        raise Problem(f"--{part} must begin with a name, got {text!r}")
    return name, options


def cloud_of(settings: Sequence[tuple[str, str]]) -> CloudModel:
    """A cloud model from `--cloud` options."""
    known = CloudModel.__dataclass_fields__
    given: dict[str, Any] = {}
    for name, text in settings:
        if name not in known:
            raise Problem(f"--cloud has no setting {name!r}; it has {', '.join(known)}")
        kind = int if isinstance(known[name].default, int) else float
        try:
            given[name] = kind(text)
        except ValueError:
            raise Problem(f"--cloud {name} must be a number, got {text!r}") from None
    try:
        return CloudModel(**given)
    except ValueError as error:
        raise Problem(f"--cloud {error}") from None


def pool_of(capacity: int | None, pool: str | None) -> Pool:
    """The pool from `--capacity` or `--pool`."""
    if (capacity is None) == (pool is None):
        raise Problem("give either --capacity or --pool")
    if capacity is not None:
        return Pool.of(capacity)
    from era_pricing.simulator.poolfile import read_pool

    assert pool is not None
    return read_pool(pool)


def read_requests(path: str, pool: Pool) -> tuple[Pool, Requests]:
    """The requests in a file, sorted by submission, and the pool with their bundles."""
    from era_pricing.simulator.formats import kind_of, read_workload

    if kind_of(path) == "csv":
        if not pool.simple:
            raise Problem(f"--pool goes with bids; {path} has columns, for which give --capacity")
        return pool, Requests(read_workload(path)).sorted()
    from era_pricing.simulator.bidfiles import read_bids
    from era_pricing.simulator.building import requests_of

    return requests_of(read_bids(path), pool)


def read_history(
    path: str | None, requests: Requests, quiet: bool
) -> tuple[Requests, Workload | None]:
    """The requests and their past, moved apart by whole weeks where they overlap."""
    from era_pricing.simulator.formats import read_workload

    if path is None:
        return requests, None
    history = read_workload(path)
    if not len(history) or not len(requests):
        return requests, history
    overlap = int(history.submitted.max()) - int(requests.columns.submitted.min())
    if overlap <= 0:
        return requests, history
    if requests.bids:
        raise Problem(f"{path}: the history must come before the workload")
    weeks = -(-overlap // (7 * DAY))
    note(f"the workload begins before its history ends, so it is played {weeks} weeks later", quiet)
    return requests.shifted(weeks * 7 * DAY), history
