"""Conversion of columns of cells to values."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.cell_values import as_lesson, as_name, as_seconds, as_text, is_blank
from pipeline.data.single_values import MAX_SECONDS, Fault, as_clock


def column(*cells: object) -> pd.Series:
    """Build a column of cells as an Excel reader returns it."""
    return pd.Series(cells, dtype=object)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("0:01:15", 75),
        ("00:01:15.25", 75.25),
        ("00:01:15,250", 75.25),
        ("1:15", 75),
        ("75:30", 4530),
        (" 1:02:03 ", 3723),
        ("27:00:00", 97200),
        ("75", 75),
        ("75.5", 75.5),
        ("12:01:15 AM", 75),
        ("12:01:15\u202fa.m.", 75),
        ("1:15 pm", 47700),
        ("0.01.15", 75),
        ("75,5", 75.5),
        ("0,125", 0.125),
        ("\uff10\uff1a\uff11\uff15", 15),
        ("0 days 00:01:15", 75),
        ("1 day, 3:00:00", 97200),
        (75, 75),
        (75.5, 75.5),
        (dt.timedelta(hours=30, milliseconds=500), 108000.5),
        (dt.time(1, 2, 3, 500000), 3723.5),
        (dt.datetime(1900, 1, 1, 3), 97200),  # 27 hours in a cell that is formatted as a time of day
    ],
)
def test_a_time_is_read_as_a_person_reads_it(cell: object, seconds: float) -> None:
    assert as_seconds(column(cell)).seconds.tolist() == [seconds]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (None, Fault.EMPTY),
        ("", Fault.EMPTY),
        ("  ", Fault.EMPTY),
        (float("nan"), Fault.EMPTY),
        (-1.0, Fault.BELOW_ZERO),
        ("-0:00:05", Fault.BELOW_ZERO),
        ("-1 days +23:59:55", Fault.BELOW_ZERO),
        (dt.timedelta(seconds=-5), Fault.BELOW_ZERO),
        (dt.datetime(2023, 3, 15), Fault.DATE),
        (dt.date(2023, 3, 15), Fault.DATE),
        (MAX_SECONDS + 1, Fault.TOO_LONG),
        (True, Fault.UNREADABLE),
        (float("inf"), Fault.UNREADABLE),
        ("soon", Fault.UNREADABLE),
        ("1:75", Fault.UNREADABLE),
        ("1:60:00", Fault.UNREADABLE),
        ("1,500", Fault.UNREADABLE),  # one and a half, or a thousand and a half
        ("13:05:00 AM", Fault.UNREADABLE),
        ("00:01:15:12", Fault.FRAMES),
        ("1:2:3:4", Fault.UNREADABLE),
    ],
)
def test_a_cell_that_is_not_a_time_is_a_fault(cell: object, fault: Fault) -> None:
    times = as_seconds(column(cell))
    assert (times.fault.tolist(), np.isnan(times.seconds).tolist()) == ([fault], [True])


def test_a_number_without_a_unit_is_marked() -> None:
    assert as_seconds(column("75", 75, "1:15", dt.timedelta(seconds=75))).is_number.tolist() == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        pd.Series([75.0, np.nan]),
        pd.Series(pd.to_timedelta([75, None], unit="s")),
        pd.Series(["0:01:15", None], dtype="str"),
        pd.Series([75, None], dtype="Int64"),
    ],
    ids=lambda cells: str(cells.dtype),
)
def test_typed_columns_are_read_like_mixed_ones(cells: pd.Series) -> None:
    times = as_seconds(cells)
    assert (times.seconds[0], times.fault.tolist()) == (75, [Fault.NONE, Fault.EMPTY])


def test_a_column_of_dates_holds_no_times() -> None:
    assert as_seconds(pd.Series(pd.to_datetime(["2023-03-15"]))).fault.tolist() == [Fault.DATE]


@given(st.integers(0, int(MAX_SECONDS * 1000)))
def test_a_clock_reads_back_as_the_same_seconds(milliseconds: int) -> None:
    assert as_seconds(column(as_clock(milliseconds / 1000))).seconds.tolist() == [milliseconds / 1000]


numbers = st.floats() | st.integers(-(2**64), 2**64)


@given(st.lists(st.none() | st.text() | numbers | st.timedeltas() | st.times() | st.dates() | st.datetimes()))
def test_any_cell_is_either_a_time_within_bounds_or_a_fault(cells: list[object]) -> None:
    times = as_seconds(column(*cells))
    good = times.fault == Fault.NONE
    assert (good == ((times.seconds >= 0) & (times.seconds <= MAX_SECONDS))).all()


def test_as_clock_writes_hours_without_a_leading_zero() -> None:
    assert [as_clock(s) for s in (0, 75, 3675.5, 97200)] == ["0:00:00", "0:01:15", "1:01:15.5", "27:00:00"]


@pytest.mark.parametrize("spelling", [2, 2.0, " 2 ", "2.0", "02", "\u00a02"])
def test_spellings_of_lesson_two_are_one_lesson(spelling: object) -> None:
    assert as_lesson(column(spelling)).tolist() == ["2"]


@pytest.mark.parametrize(
    ("cell", "lesson"),
    [("2A", "2A"), (" 2a", "2A"), ("2.10", "2.10"), (2.5, "2.5"), (10, "10"), ("Intro", "Intro"), (None, "")],
)
def test_a_lesson_number_is_text(cell: object, lesson: str) -> None:
    assert as_lesson(column(cell)).tolist() == [lesson]


def test_a_title_is_trimmed_and_its_spaces_folded() -> None:
    assert as_name(column("  What\u00a0is \n a   model? ")).tolist() == ["What is a model?"]


def test_the_same_letters_in_two_encodings_are_one_title() -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    assert as_name(column(decomposed)).tolist() == [composed]


@pytest.mark.parametrize(
    ("cell", "text"),
    [(1.0, "1"), (1.5, "1.5"), ("  as it is ", "  as it is "), (None, ""), (dt.date(2023, 3, 15), "2023-03-15"),
     (dt.timedelta(seconds=75), "0:01:15"), (True, "TRUE")],
)  # fmt: skip
def test_text_is_text_whatever_excel_made_of_it(cell: object, text: str) -> None:
    assert as_text(column(cell)).tolist() == [text]


def test_cells_of_nothing_but_spaces_are_blank() -> None:
    assert is_blank(column("", " \u00a0", None, "x", 0.0)).tolist() == [True, True, True, False, False]
