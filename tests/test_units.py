from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import InputError
from planner.units import (
    format_bytes,
    format_count,
    format_duration,
    parse_duration,
    parse_fraction,
    parse_money,
    parse_rate,
    parse_tokens,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("2min", 120.0),
        ("1h", 3600.0),
        (" 30 ms ", 0.03),
        ("250us", 250e-6),
        ("1e3ms", 1.0),
    ],
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


def test_other_quantities_are_read_in_si() -> None:
    assert parse_rate("600/min") == pytest.approx(10.0)
    assert parse_rate("20/s") == 20.0
    assert parse_rate("36 req/h") == pytest.approx(0.01)
    assert parse_money("40usd/h") == 40.0
    assert parse_money("48usd/day") == pytest.approx(2.0)
    assert parse_tokens("4k") == 4000  # decimal: 4k tokens are 4,000, not 4,096
    assert parse_tokens("1.5k") == 1500
    assert parse_tokens("1m") == 1_000_000
    assert parse_fraction("30%") == pytest.approx(0.3)
    assert parse_fraction("0") == 0.0


@pytest.mark.parametrize("parse", [parse_duration, parse_rate, parse_money])
@pytest.mark.parametrize(
    "text", ["5", "", "fast", "5 parsecs", "-5ms", "0s", "nan", "inf s", "1e999s", "5ms ms", "٥ms", "1,5s"]
)
def test_what_is_ambiguous_or_no_positive_number_is_refused(parse: object, text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(text, "--ttft")  # type: ignore[operator]
    assert str(refused.value).startswith("--ttft")
    assert refused.value.hint


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "inf", "1e400", "4kk", "4 tokens", ""])
def test_token_counts_are_whole_and_positive(text: str) -> None:
    with pytest.raises(InputError):
        parse_tokens(text, "--isl")


@pytest.mark.parametrize("text", ["1.1", "101%", "-0.1", "nan"])
def test_fractions_lie_between_zero_and_one(text: str) -> None:
    with pytest.raises(InputError):
        parse_fraction(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0382, "38.2 ms"),
        (1.53, "1.53 s"),
        (42e-6, "42.0 us"),
        (600.0, "10.0 min"),
        (7200.0, "2.00 h"),
        (math.inf, "inf"),
    ],
)
def test_durations_are_shown_with_three_digits_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_sizes_are_shown_in_binary_units_and_counts_with_separators() -> None:
    assert format_bytes(79.6 * 2**30) == "79.6 GiB"
    assert format_bytes(512 * 2**10) == "512 KiB"
    assert format_bytes(12) == "12 B"
    assert format_count(41208) == "41,208"
    assert format_count(3.14159) == "3.14"


@given(st.floats(min_value=1e-6, max_value=1e5))
def test_a_duration_that_was_shown_reads_back_within_its_digits(seconds: float) -> None:
    shown = format_duration(seconds).replace(",", "")
    assert parse_duration(shown) == pytest.approx(seconds, rel=0.006)  # three digits: half a unit of 100


@given(st.text(max_size=30))
def test_no_text_makes_a_parser_fail_otherwise_than_by_refusing(text: str) -> None:
    for parse in (parse_duration, parse_rate, parse_money, parse_tokens, parse_fraction):
        try:
            value = parse(text)
        except InputError:
            continue
        assert math.isfinite(value) and value >= 0
