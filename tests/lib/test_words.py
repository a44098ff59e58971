from __future__ import annotations

import datetime as dt

import pytest

from rmn.lib import words

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3 k"),
        (1_234_567, "1.23 M"),
        (-2.5e9, "-2.50 bn"),
        (0.5, "0.5"),
        (None, "–"),
    ],
)
def test_big_numbers_are_shortened(value: float | None, text: str) -> None:
    assert words.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (0.5, "50 %"), (0.004, "0.4 %"), (0.997, "99.7 %"), (1, "100 %"), (float("nan"), "–")],
)
def test_a_share_never_rounds_to_nothing_or_to_all(value: float, text: str) -> None:
    assert words.share(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "under 1 s"), (8, "8 s"), (200, "3 min"), (7500, "2 h 5 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_times_are_relative() -> None:
    assert words.ago(NOW - dt.timedelta(minutes=3), NOW) == "3 min ago"
    assert words.ago(NOW + dt.timedelta(days=3), NOW) == "in 3 days"
    assert words.ago(NOW, NOW) == "just now"
    assert words.ago(None, NOW) == "never"


def test_money_carries_its_currency() -> None:
    assert words.money(1234.5, "USD") == "1,234.50 USD"
    assert words.money(1_234_567.8, "EUR") == "1,234,568 EUR"
