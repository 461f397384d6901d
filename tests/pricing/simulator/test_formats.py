"""Files of requests: what is written is read again, and errors name the line and the column."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_pricing.bids import Bid, Commitment, ResourceRequest
from era_pricing.simulator.bidfiles import BidList, bids_of, read_bids, write_bids
from era_pricing.simulator.formats import kind_of, read_csv, read_workload, write_workload
from era_pricing.workload import COLUMNS, Workload, WorkloadError

HEADER = "submitted,arrival,deadline,units,duration,value"
ROWS = ["0,0,3600,1,3600,1.5", "10,20,7200,8,60,0"]
HOUR = 3600


def parse(*rows: str, header: str = HEADER) -> Workload:
    return read_csv([line + "\n" for line in (header, *rows)], "w.csv")


def numbers(workload: Workload) -> list[list[int]]:
    return [getattr(workload, column).tolist() for column in COLUMNS]


def test_columns_come_in_any_order_with_ids_classes_and_others():
    workload = parse(
        "x,8,a,1.5,3600,1,0,3600,0",
        "y,9,b,0,60,8,10,7200,20",
        header=" id,Priority,class,VALUE,duration,units,submitted,deadline,arrival",
    )
    assert numbers(workload) == numbers(parse(*ROWS))
    assert (workload.names, workload.classes) == (("x", "y"), ("a", "b"))


def test_a_header_alone_is_an_empty_workload(tmp_path):
    assert len(parse()) == 0
    write_workload(Workload.empty(), tmp_path / "none.csv")
    assert len(read_workload(tmp_path / "none.csv")) == 0


def test_blank_lines_and_quotes_keep_line_numbers_right():
    with pytest.raises(WorkloadError, match=r"^w.csv, line 6, column units: .* got 'x'"):
        parse(ROWS[0], "", '"10",20,7200,8,60,0', "", "0,0,9,x,1,1")


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("0.1", 100_000),
        ("1e-6", 1),
        ("1000000000", 10**15),
        ("123456789.123457", 123_456_789_123_457),
        ("0.0000005", 0),  # ties go to the even micro-credit
        ("0.0000015", 2),
        ("12.345678901234567", 12_345_679),
    ],
)
def test_values_become_micro_credits_without_the_errors_of_floats(text, micro):
    assert parse(f"0,0,9,1,1,{text}").value.tolist() == [micro]


def test_fractions_of_a_second_are_rounded_and_a_tight_window_stays_possible():
    workload = parse("0.6,10.6,14.2,1,3.6,1", "1e3,1000.4,1000.7,2.0,0.3,1", "5,6,20,1,3.5,1")
    assert numbers(workload)[:5] == [
        [1, 1000, 5],
        [11, 1000, 6],
        [14, 1001, 20],
        [1, 2, 1],
        [3, 1, 4],
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("nan,0,9,1,1,1", "column submitted: must be a number, got 'nan'"),
        ("0,inf,9,1,1,1", "column arrival: must be a number, got 'inf'"),
        ("0,0,,1,1,1", "column deadline: must be a number, got ''"),
        ("0,0,9,1_0,1,1", "column units: must be a number, got '1_0'"),
        ("0,0,9,1.5,1,1", "column units: must be whole units between 1 and .* got 1.5"),
        ("0,0,9,0,1,1", "column units: must be whole units between 1 and .* got 0"),
        ("0,0,9,1,-5,1", "column duration: must be whole seconds between 1 and .* got -5"),
        ("0,0,9,1,0,1", "column duration: must be whole seconds between 1 and"),
        ("-1,0,9,1,1,1", "column submitted: must be whole UTC seconds .* got -1"),
        ("5,4,9,1,1,1", r"column arrival: must not be before the submission \(5 .* got 4"),
        ("0,4,9,1,6,1", "column deadline: must be at least 10 UTC seconds, .* got 9"),
        ("0,0,9,1,1,-1", "column value: must be credits from 0 to 1000000000, got '-1'"),
        ("0,0,9,1,1,-1e-9", "column value: must be credits from 0"),
        ("0,0,9,1,1,NaN", "column value: must be credits from 0"),
        ("0,0,9,1,1,1e10", "column value: must be credits from 0"),
        ("0,0,9,1,1,$5", r"column value: must be credits .* got '\$5'"),
        ("1700000000000,1700000000000,1700000000009,1,1,1", "column submitted: must be whole"),
        ("0,0,9,1,1", "must have 6 fields as the header has, got 5"),
    ],
)
def test_bad_rows_are_named(row, says):
    with pytest.raises(WorkloadError, match=rf"^w.csv, line 3,? ?(?:column)?.*{says}"):
        parse(ROWS[0], row, ROWS[1])


def test_ids_must_differ():
    with pytest.raises(
        WorkloadError, match=r"^w.csv, line 4, column id: .* twice: 'a' is already in line 2$"
    ):
        parse(
            *(f"{row},{name}" for row, name in zip([*ROWS, ROWS[0]], "aba", strict=True)),
            header=f"{HEADER},id",
        )


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("submitted,arrival,deadlin,units,duration,value", "`deadlin` is unknown.*`deadline`"),
        ("submitted,arrival,deadline,units,duration,price", "`value` is missing; .* must be subm"),
        (f"{HEADER},classes", "`classes` is unknown; did you mean `class`"),
        (f"{HEADER},units", "`units` is there twice"),
        ("0,0,3600,1,3600,1.5", "`submitted` is missing"),
    ],
)
def test_wrong_headers(header, says):
    with pytest.raises(WorkloadError, match=f"^w.csv, line 1: column {says}"):
        parse(*ROWS, header=header)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\n".encode() + b"\xff\xfe\n")
    packed = gzip.compress("\n".join([HEADER, *ROWS * 9]).encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[:-20])
    (tmp_path / "nul.csv").write_text(f"{HEADER}\n\0,1,2\n")
    for name, says in (
        ("empty.csv", f"is empty; it must begin with the header {HEADER}"),
        ("latin.csv", "must be text in UTF-8"),
        ("cut.csv.gz", "the compressed file is damaged"),
        ("none.csv", "cannot be read: No such file"),
        ("nul.csv", "line 2"),
    ):
        with pytest.raises(WorkloadError, match=rf"{name}(:|, line 2).*{says}|{name}, {says}"):
            read_workload(tmp_path / name)
    with pytest.raises(WorkloadError, match="cannot be written"):
        write_workload(Workload.empty(), tmp_path / "no" / "folder.csv")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "w.csv").write_bytes("\r\n".join(["\ufeff" + HEADER, *ROWS, ""]).encode())
    assert numbers(read_workload(tmp_path / "w.csv")) == numbers(parse(*ROWS))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**10),
            *[st.integers(0, 10**6)] * 2,
            st.integers(1, 10**6),
            st.integers(1, 10**6),
            st.integers(0, 10**15),
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("round")
    workload = Workload(
        [s for s, *_ in rows],
        [s + lead for s, lead, *_ in rows],
        [s + lead + slack + d for s, lead, slack, _, d, _ in rows],
        [r[3] for r in rows],
        [r[4] for r in rows],
        [r[5] for r in rows],
        names=tuple(f'n{i},"' for i in range(len(rows))),
        classes=("big",) * len(rows),
    )
    for name in ("w.csv", "w.csv.gz"):
        write_workload(workload, folder / name)
        again = read_workload(folder / name)
        assert numbers(again) == numbers(workload)
        assert (again.names, again.classes) == (workload.names, workload.classes)
    write_bids(bids_of(workload), folder / "w.jsonl")
    bids = read_bids(folder / "w.jsonl")
    again = bids.columns({one.name: 1 for one in bids.configurations})
    assert numbers(again) == numbers(workload)
    assert (again.names, again.classes) == (workload.names, workload.classes)


def test_compressed_files_are_the_same_bytes_for_the_same_rows(tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        write_workload(parse(*ROWS), tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_many_rows_come_out_in_order(tmp_path):
    """More than are converted at a time."""
    count = 70_000
    time = np.arange(count)
    workload = Workload(time, time, time + 5, time % 7 + 1, [5] * count, time * 1_000_003)
    write_workload(workload, tmp_path / "w.csv")
    assert numbers(read_workload(tmp_path / "w.csv")) == numbers(workload)


def test_the_name_says_what_a_file_holds():
    names = ["a.CSV", "a.csv.gz", "/dev/stdin", "a.jsonl", "b.yaml.gz", "c.yml"]
    assert [kind_of(n) for n in names] == ["csv", "csv", "csv", "jsonl", "yaml", "yaml"]
    with pytest.raises(WorkloadError, match="must end in .csv for columns, or in .jsonl"):
        kind_of("a.parquet")


RECORD = {
    "submitted": 100,
    "configurations": {"gpu": 2},
    "duration": "1h",
    "deadline": "+1d",
    "value": "12.50",
}


def write_lines(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_bids_from_jsonl_and_yaml(tmp_path):
    lines = write_lines(tmp_path / "b.jsonl", {**RECORD, "id": "a", "class": "x"})
    (tmp_path / "b.yaml").write_text(
        "- {submitted: 1970-01-01T00:01:40Z, id: a, class: x,\n"
        "   configurations: {gpu: 2}, duration: 1h, deadline: +1d, value: 12.50}\n"
    )
    expected = Bid.of(ResourceRequest({"gpu": 2}, HOUR, 100, 100 + 24 * HOUR), 12_500_000)
    for path in (lines, tmp_path / "b.yaml"):
        bids = read_bids(path)
        assert (bids.submitted, bids.bids) == ((100,), (expected,))
        assert (bids.names, bids.classes) == (("a",), ("x",))
    for name in ("none.jsonl", "none.yaml"):
        (tmp_path / name).write_text("")
        assert len(read_bids(tmp_path / name)) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"submitted": None}, "submitted must be a time"),
        ({"duration": -5}, "duration must be"),
        ({"value": "-1"}, "value must be an amount"),
        ({"deadline": 50}, "deadline must be after"),
        ({"arrival": 50}, "arrival must not be before the submission"),
        ({"class": ["x"]}, "class must be a text"),
        ({"colour": "red"}, "colour is unknown"),
        ({"id": "a"}, "id 'a' is already in line 1"),
    ],
)
def test_bad_bids_are_named_by_line(tmp_path, changes, says):
    first = {**RECORD, "id": "a"}
    path = write_lines(tmp_path / "b.jsonl", first, {**RECORD, "id": "b", **changes})
    with pytest.raises(WorkloadError, match=rf"b.jsonl, line 2: {says}"):
        read_bids(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("b.jsonl", '{"submitted": NaN}', "line 1: must be one JSON object: NaN"),
        ("b.jsonl", "\n[1]", "line 2: must be a record"),
        ("b.jsonl", "{", "line 1: must be one JSON object"),
        ("b.jsonl", '{"duration": "1h"}', "line 1: submitted is missing"),
        ("b.yaml", "submitted: 0", "must be a list of records"),
        ("b.yaml", "- [", "must be YAML"),
        ("b.yaml", "\n\n- 7", "line 3: must be a record"),
        ("b.csv", "", "name ends in .jsonl or .yaml"),
    ],
)
def test_files_that_hold_no_bids(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(WorkloadError, match=f"{name}.*{says}"):
        read_bids(tmp_path / name)


def test_the_request_around_a_bid_holds_all_that_it_could_get(tmp_path):
    both = [
        {"configurations": {"gpu": 2}, "duration": "1h", "deadline": "+4h"},
        {"configurations": {"gpu": 4}, "duration": "2h", "arrival": "+3h", "deadline": "+9h"},
    ]
    record = {
        "submitted": 0,
        "xor": [
            {"and": both, "value": [{"by": "+5h", "value": 7}, {"value": 3}]},
            {"configurations": {"gpu": 9}, "duration": "1h", "deadline": "+2h", "value": 5},
        ],
    }
    bids = read_bids(write_lines(tmp_path / "b.jsonl", record))
    # 9 units at most, at least 9 unit-hours of work, the greatest value, the whole window
    assert numbers(bids.columns({"gpu": 1})) == [[0], [0], [9 * HOUR], [9], [HOUR], [7_000_000]]
    assert numbers(bids.columns({"gpu": 0}))[3:5] == [[1], [1]]


def test_bids_of_a_workload_ask_for_single_units():
    bids = bids_of(parse(*ROWS), commitment=Commitment.PREEMPTIBLE)
    (name,) = [one.name for one in bids.configurations]
    assert [dict(b.alternatives[0].requests[0].configurations) for b in bids.bids] == [
        {name: 1},
        {name: 8},
    ]
    assert {bid.commitment for bid in bids.bids} == {Commitment.PREEMPTIBLE}
    assert bids_of(Workload.empty()) == BidList((), ())
