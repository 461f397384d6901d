"""Workloads: columns that make no sense are refused by name and row; rows can be picked."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_pricing.bids import MOST_VALUE
from era_pricing.workload import COLUMNS, Workload, WorkloadError, every_nth

GOOD = {
    "submitted": [5, 0, 9],
    "arrival": [10, 0, 20],
    "deadline": [30, 60, 21],
    "units": [1, 2, 64],
    "duration": [20, 7, 1],
    "value": [0, 3, 10**15],
}


def build(**changes) -> Workload:
    return Workload(**{**GOOD, **changes})


def rows(workload: Workload) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(workload, c).tolist() for c in COLUMNS), strict=True))


def test_columns_become_read_only_arrays_of_their_own():
    given_units = np.array([1, 2, 64])
    workload = build(units=given_units)
    given_units[0] = 9
    assert workload.units.tolist() == [1, 2, 64]
    assert all(getattr(workload, c).dtype == np.int64 for c in COLUMNS)
    with pytest.raises(ValueError, match="read-only"):
        workload.value[0] = 1


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "bad",
    [float("nan"), float("inf"), -float("inf"), -1, 0.5, 10**17, 10**40, "7", None, True],
)
def test_a_bad_number_is_named_with_column_and_row(column, bad):
    data = list(GOOD[column])
    data[1] = bad
    array = np.array(data, dtype=object) if isinstance(bad, (bool, str)) else data
    with pytest.raises(WorkloadError, match=f"^{column} in row 1 must be whole ") as caught:
        build(**{column: array})
    assert (caught.value.column, caught.value.row) == (column, 1)


@pytest.mark.parametrize("column", COLUMNS)
def test_other_shapes_are_refused(column):
    other = "deadline" if column == "submitted" else column
    with pytest.raises(WorkloadError, match="must have 3 rows as `submitted` has, got 2"):
        build(**{other: GOOD[other][:2]})
    for bad in ([[1, 2, 3]], 7, [[1], [2, 3], [4]]):
        with pytest.raises(WorkloadError, match=f"^{column} must be .* one for each row"):
            build(**{column: bad})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"units": [1, 0, 1]}, "units in row 1 must be whole units between 1 and"),
        ({"duration": [1, 1, -5]}, "duration in row 2 must be whole seconds .* got -5"),
        ({"duration": [0, 1, 1]}, "duration in row 0 must be whole seconds between 1 and"),
        ({"value": [1, 1, MOST_VALUE + 1]}, "value in row 2 must be whole micro-credits"),
        (
            {"submitted": [11, 0, 9]},
            r"arrival in row 0 must not be before the submission \(11 UTC seconds\), got 10",
        ),
        (
            {"duration": [20, 61, 1]},
            "deadline in row 1 must be at least 61 UTC seconds, arrival plus duration, got 60",
        ),
        ({"arrival": [1_700_000_000_000, 0, 20]}, "arrival in row 0 must be whole UTC seconds"),
        ({"names": ("a", "b")}, "names must have 3 rows"),
        ({"names": ("a", "b", "a")}, "names in row 2 must not be used twice: 'a' is .* row 0"),
        ({"names": ("a", "b", 7)}, "names in row 2 must be a text, got 7"),
        ({"classes": ("a",)}, "classes must have 3 rows"),
    ],
)
def test_rows_that_make_no_sense(changes, says):
    with pytest.raises(WorkloadError, match=f"^{says}"):
        build(**changes)


def test_a_window_as_long_as_the_duration_will_do():
    assert build(deadline=[30, 7, 21]).deadline.tolist() == [30, 7, 21]


def test_whole_floats_count_as_integers():
    assert build(value=np.array([0.0, 3.0, 1e15])).value.tolist() == GOOD["value"]


def test_empty_workloads():
    for empty in (Workload.empty(), Workload([], [], [], [], [], []), Workload.concatenate([])):
        assert len(empty) == 0
        assert rows(empty.sorted().shifted(5).select([])) == []
        assert empty.ids == ()


def test_ids_count_from_0_where_there_are_none():
    assert build().ids == ("0", "1", "2")
    assert build(names=("x", "y", "z")).ids == ("x", "y", "z")


def test_unit_hours():
    assert build(duration=[20, 7, 1]).unit_hours.tolist() == [20 / 3600, 14 / 3600, 64 / 3600]


def test_select_keeps_rows_together():
    workload = build(names=("x", "y", "z"), classes=("big", "", "big"))
    everything = list(zip(rows(workload), workload.names, workload.classes, strict=True))
    for picked, expected in (
        (np.array([True, False, True]), [0, 2]),
        (np.array([2, 0]), [2, 0]),
        ([1], [1]),
        (slice(1, None), [1, 2]),
        ([-1], [2]),
        (np.zeros(3, dtype=bool), []),
    ):
        part = workload.select(picked)
        got = list(zip(rows(part), part.names, part.classes, strict=True))
        assert got == [everything[i] for i in expected]


def test_a_named_row_cannot_be_picked_twice():
    with pytest.raises(WorkloadError, match="must not be used twice"):
        build(names=("x", "y", "z")).select([1, 1])
    assert rows(build().select([1, 1])) == [rows(build())[1]] * 2


def test_sorted_is_by_submission_and_stable():
    submitted = np.arange(1000)[::-1] // 100
    workload = Workload(submitted, submitted, [99] * 1000, range(1, 1001), [1] * 1000, [0] * 1000)
    expected = sorted(range(1, 1001), key=lambda unit: submitted[unit - 1])
    assert workload.sorted().units.tolist() == expected


def test_shifted_moves_all_times_and_not_before_1970():
    moved = build(names=("x", "y", "z")).shifted(100)
    assert moved.submitted.tolist() == [105, 100, 109]
    assert moved.arrival.tolist() == [110, 100, 120]
    assert moved.deadline.tolist() == [130, 160, 121]
    assert (moved.duration.tolist(), moved.names) == (GOOD["duration"], ("x", "y", "z"))
    with pytest.raises(WorkloadError, match="^submitted in row 1 must be whole UTC seconds"):
        build().shifted(-1)


def test_concatenate_names_what_has_no_name_by_its_place():
    named = build(names=("x", "y", "z"), classes=("a", "b", "c"))
    both = Workload.concatenate([named, Workload.empty(), build()])
    assert rows(both) == rows(named) * 2
    assert both.names == ("x", "y", "z", "3", "4", "5")
    assert both.classes == ("a", "b", "c", "", "", "")
    assert Workload.concatenate([build(), build()]).names == ()
    with pytest.raises(WorkloadError, match="must not be used twice"):
        Workload.concatenate([named, named])


def test_a_workload_can_go_to_another_process():
    workload = build(names=("x", "y", "z"))
    copy = pickle.loads(pickle.dumps(workload))
    assert rows(copy) == rows(workload)
    assert copy.names == workload.names


@given(
    st.lists(
        st.tuples(*[st.integers(0, 10**6)] * 3, st.integers(1, 99), st.integers(1, 10**5)),
        max_size=9,
    )
)
def test_rows_survive_a_split_and_a_concatenation(data):
    workload = Workload(
        [s for s, *_ in data],
        [s + lead for s, lead, *_ in data],
        [s + lead + slack + d for s, lead, slack, _, d in data],
        [u for *_, u, _ in data],
        [d for *_, d in data],
        [7] * len(data),
    )
    half = len(data) // 2
    parts = [workload.select(slice(half)), workload.select(slice(half, None))]
    assert rows(Workload.concatenate(parts)) == rows(workload)
    assert sorted(rows(workload.sorted())) == sorted(rows(workload))


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 99])
def test_every_nth_request_stands_for_the_others_too(most):
    n = 10
    workload = Workload(range(n), range(n), [99] * n, range(1, n + 1), [5] * n, [7] * n)
    chosen, weights = every_nth(workload, np.full(n, 0.5), most)
    assert 1 <= len(chosen) == len(weights) <= most
    assert weights.sum() == pytest.approx(0.5 * n)
    gaps = np.diff(chosen.submitted)
    assert (gaps == gaps[:1]).all()
    if most >= n:
        assert rows(chosen) == rows(workload)
