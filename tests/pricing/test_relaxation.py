"""The LP relaxation, compared with the same problem given to a solver row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from era_pricing.relaxation import solve, solve_exactly
from era_pricing.workload import Workload

SLOT = 60
FIRST = 1000
START = FIRST * SLOT


def requests(*rows: tuple[int, int, int, int, int]) -> Workload:
    """Rows of arrival and deadline in seconds after the first slot, units, duration, value."""
    arrival, deadline, units, duration, value = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return Workload(
        np.zeros_like(arrival), arrival + START, deadline + START, units, duration, value
    )


def relax(workload, capacity, **options):
    return solve(workload, np.array(capacity), FIRST, SLOT, **options)


def shares(workload, j, n):
    """Share of each slot that lies inside the window of request j."""
    begins = START + SLOT * np.arange(n)
    inside = np.minimum(workload.deadline[j], begins + SLOT) - np.maximum(
        workload.arrival[j], begins
    )
    return np.maximum(inside, 0) / SLOT


def has_room(workload, j, capacity):
    """Whether the open slots in the window are as many as request j needs."""
    room = shares(workload, j, len(capacity))[capacity > 0].sum()
    return room >= -(-workload.duration[j] // SLOT) - 1e-9


def optimum(workload, capacity, least, most, gains=None):
    """Optimum of the relaxation with `least` <= y <= `most`; None if there is no solution."""
    m, n = len(workload), len(capacity)
    slots = -(-workload.duration // SLOT)
    upper, equal = [], []
    cost = np.zeros(m * n + m)
    cost[m * n :] = -(workload.value if gains is None else gains)
    for t in range(n):
        row = np.zeros(m * n + m)
        row[t : m * n : n] = 1.0
        upper.append((row, capacity[t]))
    limits = []
    for j in range(m):
        inside = shares(workload, j, n)
        total = np.zeros(m * n + m)
        total[j * n : (j + 1) * n] = 1.0
        total[m * n + j] = -float(workload.units[j] * slots[j])
        equal.append(total)
        for t in range(n):
            row = np.zeros(m * n + m)
            row[j * n + t] = 1.0
            row[m * n + j] = -workload.units[j] * inside[t]
            upper.append((row, 0.0))
        fits = inside.sum() >= slots[j] - 1e-9
        limits.append((least[j] if fits else 0.0, most[j] if fits else 0.0))
    found = linprog(
        cost,
        A_ub=np.array([row for row, _ in upper]),
        b_ub=[limit for _, limit in upper],
        A_eq=np.array(equal),
        b_eq=np.zeros(m),
        bounds=[(0.0, None)] * (m * n) + limits,
    )
    return None if found.status == 2 else -found.fun


def dual_value(workload, capacity, prices, weights):
    """Sum of C_t p_t and of what each request gains if it buys its cheapest slots."""
    total = float(capacity @ prices)
    for j in range(len(workload)):
        inside = np.where(capacity > 0, shares(workload, j, len(capacity)), 0.0)
        left, cost = float(-(-workload.duration[j] // SLOT)), 0.0
        for t in np.argsort(prices):
            part = min(left, inside[t])
            cost, left = cost + part * prices[t], left - part
        if left < 1e-9:
            total += weights[j] * max(0.0, workload.value[j] - workload.units[j] * cost)
    return total


def twice_the_room(workload, capacity):
    """How much of each request could run in its window, and the same once more."""
    touched = [capacity[shares(workload, j, len(capacity)) > 0].sum() for j in range(len(workload))]
    return 2 * np.array(touched) / (workload.units * -(-workload.duration // SLOT))


@st.composite
def problems(draw):
    """A few requests, aligned with the slots or not, with values that tie or not."""
    n = draw(st.integers(1, 8))
    capacity = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    step = draw(st.sampled_from([1, SLOT // 2, SLOT]))
    tied = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(1, 7))):
        arrival = draw(st.integers(-SLOT // step, (n - 1) * SLOT // step)) * step
        duration = draw(st.integers(1, max(n * SLOT // step // 2, 1))) * step
        slack = draw(st.integers(0, n * SLOT // step)) * step
        value = 100 if tied else draw(st.integers(0, 1000))
        rows.append((arrival, arrival + duration + slack, draw(st.integers(1, 4)), duration, value))
    whole = st.sampled_from([0.0, 0.5, 1.0, 2.5])
    weights = np.array(draw(st.lists(whole, min_size=len(rows), max_size=len(rows))))
    return requests(*rows), capacity, weights


def busy(seed, m=400, n=96, capacity=12):
    """A pool asked for about twice what it has."""
    random = np.random.default_rng(seed)
    duration = random.integers(SLOT // 2, 12 * SLOT, m)
    arrival = random.integers(0, (n - 12) * SLOT, m)
    units = random.choice([1, 2, 4], m)
    rows = np.stack(
        [
            arrival,
            arrival + duration + random.integers(0, 20 * SLOT, m),
            units,
            duration,
            (1000 * units * duration * random.lognormal(0, 1, m)).astype(np.int64),
        ],
        axis=1,
    )
    return requests(*rows.tolist()), np.full(n, capacity)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_bound_and_value_enclose_the_optimum(problem):
    workload, capacity, weights = problem
    found = relax(workload, capacity, weights=weights)
    exact = optimum(workload, capacity, np.zeros(len(workload)), weights)
    slack = 1e-7 * exact + 1e-6
    assert found.value - slack <= exact <= found.bound + slack
    assert found.bound - found.value <= 1e-3 * found.bound + 1e-6
    assert found.value == pytest.approx(found.fractions @ workload.value, rel=1e-9, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_fractions_can_be_run(problem):
    workload, capacity, weights = problem
    found = relax(workload, capacity, weights=weights)
    assert (found.fractions >= 0).all()
    assert (found.fractions <= weights).all()
    assert (found.load <= capacity * (1 + 1e-9)).all()
    slots = -(-workload.duration // SLOT)
    used = found.fractions @ (workload.units * slots)
    assert found.load.sum() == pytest.approx(used, rel=1e-6, abs=1e-9)
    just_so = found.fractions * (1 - 1e-6)
    assert optimum(workload, capacity, just_so, found.fractions) is not None


@settings(max_examples=40, deadline=None)
@given(problems())
def test_few_requests_are_solved_exactly(problem):
    workload, capacity, _ = problem
    found = solve_exactly(workload, capacity, FIRST, SLOT)
    if found is None:  # no window has a slot
        return
    ones = np.ones(len(workload))
    best = optimum(workload, capacity, 0 * ones, ones)
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert (found.load <= capacity + 1e-6).all()
    assert found.fractions @ workload.value == pytest.approx(best, rel=1e-6, abs=1e-5)
    assert dual_value(workload, capacity, found.prices, ones) == pytest.approx(best, abs=1e-3)


def test_many_requests_are_left_to_the_descent():
    assert solve_exactly(*busy(0, m=4000)[:2], FIRST, SLOT) is None


@pytest.mark.parametrize("units", [50, 10**9])
def test_a_request_far_larger_than_the_pool_hides_nobody(units):
    """What runs of it is worth 10 a unit and slot, so it gets what the others leave."""
    small = [(t * SLOT, (t + 3) * SLOT, 1, SLOT, 20) for t in range(6)]
    huge = (0, 8 * SLOT, units, 2 * SLOT, 2 * units * 10)
    workload, capacity = requests(*small, huge), np.full(8, 2)
    best = 6 * 20 + (16 - 6) * 10
    assert solve_exactly(workload, capacity, FIRST, SLOT).value == pytest.approx(best)
    assert relax(workload, capacity).bound == pytest.approx(best, rel=2e-3)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_bound_is_that_of_the_prices(problem):
    workload, capacity, weights = problem
    found = relax(workload, capacity, weights=weights)
    assert (found.prices >= 0).all()
    most = twice_the_room(workload, capacity)
    counted = np.where(most < 1, np.minimum(weights, most), weights)
    exact = dual_value(workload, capacity, found.prices, counted)
    assert exact <= found.bound * (1 + 1e-9) + 1e-6
    assert exact == pytest.approx(found.bound, rel=1e-3, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_requests_that_must_be_served_go_first(problem, data):
    workload, capacity, weights = problem
    m = len(workload)
    must = np.array(data.draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    must &= np.array([has_room(workload, j, capacity) for j in range(m)])
    found = relax(workload, capacity, weights=weights, must=must)
    exact = optimum(workload, capacity, np.where(must, weights, 0.0), weights)
    assert (found.load <= capacity * (1 + 1e-9)).all()
    if exact is None:
        # Less of them is served, and that is charged for.
        assert found.value < found.fractions @ workload.value
    else:
        assert exact <= found.bound + 1e-7 * abs(exact) + 1e-6
        assert found.fractions[must] == pytest.approx(weights[must], rel=5e-3)


def test_half_of_a_request_that_is_too_wide():
    found = relax(requests((0, SLOT, 2, SLOT, 10)), [1])
    assert found.value == pytest.approx(5, rel=1e-3)
    assert found.bound == pytest.approx(5, rel=1e-3)
    assert found.fractions == pytest.approx([0.5], rel=1e-3)
    assert found.prices == pytest.approx([5], rel=1e-2)


def test_the_price_is_what_keeps_the_next_request_out():
    rows = [(0, SLOT, 1, SLOT, value) for value in (10, 9, 4, 3)]
    found = relax(requests(*rows), [2])
    assert found.bound == pytest.approx(19, rel=1e-3)
    assert 4 - 0.1 <= found.prices[0] <= 9 + 0.1


def test_idle_slots_are_free_of_charge():
    found = relax(requests((0, 4 * SLOT, 1, SLOT, 10), (0, 4 * SLOT, 1, 2 * SLOT, 5)), [3] * 4)
    assert found.prices == pytest.approx(np.zeros(4), abs=1e-2)
    assert found.value == pytest.approx(15)


def test_flexible_requests_level_the_prices_of_their_window():
    tight = [(t * SLOT, (t + 1) * SLOT, 1, SLOT, 10 + 20 * (t == 2)) for t in range(4)]
    free = [(0, 4 * SLOT, 1, SLOT, 40)] * 3
    found = relax(requests(*tight, *free), [1] * 4)
    assert found.bound == pytest.approx(150, rel=1e-3)
    assert np.ptp(found.prices[[0, 1, 3]]) < 0.5


def test_slots_partly_in_the_window_count_in_part():
    # Half a slot at each end: together one slot, for one unit at half speed.
    found = relax(requests((SLOT // 2, 3 * SLOT // 2, 1, SLOT, 8)), [1, 1])
    assert found.value == pytest.approx(8, rel=1e-3)
    assert found.load == pytest.approx([0.5, 0.5], rel=1e-3)


def test_a_duration_is_rounded_up_to_slots():
    # 61 seconds take two slots; the window has one and a half.
    found = relax(requests((0, 90, 1, 61, 8), (0, 90, 1, 60, 3)), [5, 5])
    assert found.fractions[0] == 0
    assert found.value == pytest.approx(3)


def test_nothing_runs_in_closed_slots():
    rows = [(0, 3 * SLOT, 1, 2 * SLOT, 8), (SLOT, 2 * SLOT, 1, SLOT, 5), (0, 3 * SLOT, 1, 180, 9)]
    found = relax(requests(*rows), [1, 0, 1])
    assert found.fractions == pytest.approx([1, 0, 0])
    assert found.load == pytest.approx([1, 0, 1])
    # Nobody would pay to run there.
    assert found.prices[1] >= 8


def test_windows_are_cut_to_the_slots():
    found = relax(requests((-5 * SLOT, SLOT, 1, SLOT, 8), (-90, -30, 1, SLOT, 8)), [1, 1])
    assert found.fractions == pytest.approx([1, 0])


def test_nobody_asks():
    found = relax(Workload.empty(), [3, 0])
    assert (found.bound, found.value, found.gap) == (0, 0, 0)
    assert found.fractions.shape == (0,)
    assert found.prices.tolist() == found.load.tolist() == [0, 0]


def test_worthless_requests_are_left_out():
    found = relax(requests((0, SLOT, 1, SLOT, 0)), [3])
    assert (found.bound, found.value, found.fractions[0]) == (0, 0, 0)


def test_nothing_to_give():
    found = relax(requests((0, 2 * SLOT, 1, SLOT, 7)), [0, 0])
    assert (found.bound, found.value, found.fractions[0]) == (0, 0, 0)


def test_identical_requests_share_what_there_is():
    found = relax(requests(*[(0, 4 * SLOT, 2, 2 * SLOT, 100)] * 12), [3] * 4)
    # 12 unit-slots, each request takes 4: three of the twelve.
    assert found.value == pytest.approx(300, rel=1e-3)
    assert found.bound == pytest.approx(300, rel=1e-3)
    assert np.ptp(found.fractions) < 1e-6


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_the_gap_is_what_was_asked_for(tolerance):
    workload, capacity = busy(seed=1)
    found = relax(workload, capacity, tolerance=tolerance)
    assert 0 <= found.gap <= tolerance
    assert found.value == pytest.approx(found.fractions @ workload.value)


def test_results_agree_between_tolerances():
    workload, capacity = busy(seed=2)
    rough = relax(workload, capacity, tolerance=1e-2)
    fine = relax(workload, capacity, tolerance=1e-4)
    assert rough.value <= fine.bound
    assert fine.value <= rough.bound


def test_a_warm_start_ends_at_the_same_prices():
    workload, capacity = busy(seed=3)
    cold = relax(workload, capacity, tolerance=5e-3)
    warm = relax(workload, capacity, tolerance=5e-3, prices=cold.prices)
    far = relax(workload, capacity, tolerance=5e-3, prices=3 * cold.prices[::-1])
    for other in (warm, far):
        assert other.gap <= 5e-3
        assert other.bound == pytest.approx(cold.bound, rel=1e-3)
        mean = cold.prices.mean()
        assert np.abs(other.prices - cold.prices).mean() < 0.02 * mean


def test_a_weight_is_as_good_as_copies():
    workload, capacity = busy(seed=4, m=150)
    twice = relax(workload, capacity, weights=np.full(150, 2.0))
    copies = relax(Workload.concatenate([workload, workload]), capacity)
    assert twice.bound == pytest.approx(copies.bound, rel=1e-3)


def test_the_order_of_requests_does_not_matter():
    workload, capacity = busy(seed=5)
    order = np.random.default_rng(0).permutation(len(workload))
    found, mixed = relax(workload, capacity), relax(workload.select(order), capacity)
    assert mixed.bound == pytest.approx(found.bound, rel=1e-3)
    assert mixed.fractions @ workload.value[order] == pytest.approx(found.value, rel=1e-3)


def test_a_promise_displaces_what_is_worth_more():
    rows = requests((0, SLOT, 1, SLOT, 1), (0, SLOT, 1, SLOT, 1_000_000))
    found = relax(rows, [1], must=np.array([True, False]))
    assert found.fractions == pytest.approx([1, 0], abs=1e-3)
    assert found.bound == pytest.approx(1, abs=2000)
    assert found.prices[0] > 990_000


def test_promises_too_many_to_keep_are_kept_in_part():
    found = relax(requests(*[(0, SLOT, 1, SLOT, 5)] * 3), [2], must=np.ones(3, dtype=bool))
    assert found.fractions.sum() == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": [[1, 2]]}, "capacity must have one number per slot"),
        ({"capacity": [1, -2]}, "capacity must be finite and 0 or more"),
        ({"slot": 0}, "slot must be a positive number of seconds, got 0"),
        ({"weights": [1.0]}, r"weights must have shape \(2,\), got \(1,\)"),
        ({"weights": [1.0, np.nan]}, "weights must be finite and 0 or more, got nan in row 1"),
        ({"weights": [-1.0, 1.0]}, "weights must be finite and 0 or more, got -1.0 in row 0"),
        ({"prices": [1.0]}, r"prices must have shape \(2,\), got \(1,\)"),
        ({"prices": [1.0, np.inf]}, "prices must be finite and 0 or more, got inf in row 1"),
        ({"tolerance": 0.0}, "tolerance must be above 0 and below 1, got 0.0"),
        ({"tolerance": np.nan}, "tolerance must be above 0 and below 1, got nan"),
        ({"must": [1, 0]}, r"must has to be a bool array of shape \(2,\), got int64"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    given = {"capacity": [1, 2], "slot": SLOT, **options}
    capacity, slot = np.array(given.pop("capacity")), given.pop("slot")
    workload = requests((0, SLOT, 1, SLOT, 5), (0, SLOT, 1, SLOT, 6))
    columns = {k: np.array(v) if isinstance(v, list) else v for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        solve(workload, capacity, FIRST, slot, **columns)
