"""Logs as a terminal would show them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from era_extension.logtext import Screen
from era_extension.views import blocks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("10%\r20%\r100%\n", "100%\n"),
        ("long line\rshort", "shortline"),
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x00b\x08\tc", "ab\tc"),
        ("", ""),
    ],
)
def test_what_is_left_to_see(text: str, shown: str) -> None:
    screen = Screen()
    screen.feed(text)
    assert screen.text() == shown


@given(
    st.lists(st.sampled_from(["a", "bc", "\r", "\n", "\x1b[31m", "\x1b[K", "\t"]), max_size=30),
    st.data(),
)
def test_pieces_make_no_difference(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    whole, pieces = Screen(), Screen()
    finished = whole.feed(text)
    cut = data.draw(st.integers(0, len(text)))
    assert pieces.feed(text[:cut]) + pieces.feed(text[cut:]) == finished
    assert pieces.text() == whole.text()


def test_a_real_bar_is_one_line() -> None:
    out = io.StringIO()
    for _ in tqdm(range(50), file=out, mininterval=0, ascii=True):
        pass
    screen = Screen()
    screen.feed(out.getvalue())
    assert screen.text().count("\n") == 1
    assert "100%|" in screen.text() and " 0%|" not in screen.text()


def test_only_the_end_is_kept() -> None:
    screen = Screen(limit=2)
    screen.feed("1\n2\n3\n4")
    assert screen.text() == "2\n3\n4"


def test_charts_of_blocks() -> None:
    assert blocks([]) == ""
    assert blocks([5, 5, 5]) == "███"
    assert blocks([0, 0]) == "▁▁"
    assert blocks([None, 1]) == "·█"
    assert len(blocks(list(range(288)))) == 48
