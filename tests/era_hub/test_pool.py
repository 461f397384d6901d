"""From settings to prices: plug-ins, their options, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from era_hub.market.capacity import machine
from era_hub.plugins import ConfigurationError
from era_hub.pool import Pool
from era_pricing import Bid, Era, ResourceRequest
from era_pricing.predictors import SeenRequest
from tests.era_hub.small_market import DAWN, HOUR

DAY = 24 * HOUR
GPUS = 8
NODES = machine("nvidia.com/gpu", GPUS)


def engine(past: list[SeenRequest] | None = None, **settings: Any) -> Era:
    pool = Pool(**settings)
    return pool.build(NODES, pool.for_sale(NODES), lambda: DAWN, past or [])


def prices(era: Era, gpus: int = 1) -> list[int]:
    return era.prices(f"gpu-{gpus}", DAWN, DAY // 300).tolist()


def asked(day: int, hour: float, units: int = GPUS, credits: float = 9) -> SeenRequest:
    """A request for the hour that it came in, so many credits per GPU-hour worth."""
    start = int(DAWN // DAY * DAY + day * DAY + hour * HOUR)
    return SeenRequest(
        start, start, start + HOUR, units, HOUR, int(units * credits * 1_000_000), True
    )


def test_without_a_past_the_forecast_is_what_the_settings_say() -> None:
    assert prices(engine()) == prices(engine(predictor="prior"))
    assert prices(engine(max_price="10")) != prices(engine())


def test_the_past_moves_prices_where_the_predictor_learns() -> None:
    past = [asked(day, 15) for day in range(-6, 0)]
    assert prices(engine(past, predictor="prior")) == prices(engine())
    learned = engine(past)
    assert prices(learned) == prices(engine(past, predictor="lp"))
    at_three = (15 - 8) * 12
    assert prices(learned)[at_three] > prices(engine())[at_three]
    # Nobody has ever come at eleven.
    assert prices(learned)[3 * 12] == 16_667


def test_today_is_learned_from_only_when_it_is_over() -> None:
    def learned(*past: SeenRequest) -> list[int]:
        return prices(engine(list(past), algorithm="basic-econ"))

    assert learned(asked(0, 7)) == learned()
    days = asked(-2, 15), asked(-1, 15)
    assert learned(*days, asked(0, 7)) == learned(*days, asked(0, 5, units=1))
    assert learned(*days, asked(0, 7)) != learned(*days)


def test_options_reach_the_plug_ins() -> None:
    fixed = engine(algorithm="first-fit", algorithm_options={"price": 1_200_000})
    assert set(prices(fixed)) == {100_000}
    past = [asked(day, 15) for day in range(-3, 0)]
    assert prices(engine(past, predictor_options={"half_life": 7})) != prices(engine(past))
    # Those of what `blend` learns with count too.
    assert prices(engine(past, predictor_options={"weeks": 1})) == prices(engine(past))
    certain = engine(predictor="prior", predictor_options={"uncertainty": 0})
    band = certain.forecast("gpu-1", DAWN, 100)
    assert np.array_equal(band.low, band.high)


@pytest.mark.parametrize("algorithm", ["basic-econ", "bid-price", "exponential", "on-demand"])
def test_every_algorithm_sells(algorithm: str) -> None:
    era = engine(algorithm=algorithm)
    wanted = ResourceRequest({"gpu-1": 1}, HOUR, DAWN, DAWN + 5 * HOUR)
    assert era.make_reservation("one", Bid.of(wanted, 10**9)).accepted


def test_no_hour_costs_more_than_the_ceiling() -> None:
    assert max(prices(engine(), 8)) > 8 * 100_000
    capped = engine(price_ceiling="1.20")
    assert max(prices(capped, 8)) == 8 * 100_000
    assert capped.forecast("gpu-1", DAWN, 288).high.max() == 1_200_000
    assert prices(engine(price_ceiling="")) == prices(engine(price_ceiling=" "))


def test_starts_far_ahead_cost_more_with_a_penalty() -> None:
    plain, penalised = prices(engine()), prices(engine(late_penalty=0.01))
    assert penalised[-1] / plain[-1] == pytest.approx(np.exp(0.24), rel=0.01)
    assert penalised[0] == plain[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"predictor": "blnd"}, r"Pool\.predictor: .*'blnd'; known are blend, lp, prior"),
        ({"algorithm": "econ"}, r"Pool\.algorithm: .*'econ'; known are basic-econ"),
        ({"predictor": "lp"}, r"Pool\.predictor: lp .* none are stored yet; use 'blend'"),
        (
            {"predictor_options": {"halflife": 1}},
            r"Pool\.predictor_options: blend has no option 'halflife'; it has half_life, .*unsent",
        ),
        (
            {"predictor_options": {"prior": 1}},
            r"Pool\.predictor_options: blend has no option 'prior'",
        ),
        ({"predictor_options": {"half_life": 0}}, r"blend: half_life must be a positive number"),
        ({"predictor_options": {"unsent": 2}}, r"Pool\.predictor_options: blend: unsent must"),
        (
            {"algorithm": "basic-econ", "algorithm_options": {"price": 1}},
            r"Pool\.algorithm_options: basic-econ has no option 'price'; it has none at all",
        ),
        (
            {"algorithm": "first-fit", "algorithm_options": {"price": "dear"}},
            r"Pool\.algorithm_options: first-fit: price must be",
        ),
        ({"price_ceiling": "0.1"}, r"Pool\.price_ceiling must be at least .* 0\.20; got 0\.10"),
        ({"price_ceiling": "much"}, r"Pool\.price_ceiling: 'much' is not an amount"),
        ({"late_penalty": -1}, r"Pool\.late_penalty must be 0 or more per hour, got -1"),
        ({"late_penalty": float("nan")}, r"Pool\.late_penalty must be 0 or more"),
        ({"peak_load": -1}, r"Pool: peak_demand must be 0 or more"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_would_work(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        engine(**settings)
