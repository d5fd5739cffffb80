"""Sizes, capacities and durations: libvirt's units, and what a person may write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspoolfs import units
from fspoolfs.errors import InvalidError

BINARY = {letter: 1024**power for power, letter in enumerate("KMGTPE", start=1)}
DECIMAL = {letter: 1000**power for power, letter in enumerate("KMGTPE", start=1)}
SUFFIXES = (
    {None: 1, "B": 1, "byte": 1, "bytes": 1}
    | BINARY
    | {f"{letter}iB": scale for letter, scale in BINARY.items()}
    | {f"{letter}B": scale for letter, scale in DECIMAL.items()}
)


@pytest.mark.parametrize(("unit", "scale"), SUFFIXES.items())
def test_each_unit_of_libvirt_scales_the_size(unit: str | None, scale: int) -> None:
    assert units.parse_size("7", unit) == 7 * scale


@pytest.mark.parametrize("unit", ["KIB", "kib", "k", "mb", "gIb", "BYTES", "b"])
def test_units_are_read_without_regard_to_case(unit: str) -> None:
    by_case = {suffix.lower(): scale for suffix, scale in SUFFIXES.items() if suffix}
    assert units.parse_size("3", unit) == 3 * by_case[unit.lower()]


@pytest.mark.parametrize(
    "unit", ["", " ", "i", "Ki", "KBi", "X", "XB", "iB", "bit", "GiBs", "G B", "K\u0130B"]
)
def test_an_unknown_unit_is_refused_by_name(unit: str) -> None:
    with pytest.raises(InvalidError, match="is not a unit of size"):
        units.parse_size("1", unit)


@pytest.mark.parametrize("text", ["12", " 12\n", "\t12\r\n", "0012"])
def test_white_space_and_leading_zeros_mean_nothing(text: str) -> None:
    assert units.parse_size(text) == 12


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1.5", "1e3", "0x10", "1 2", "1_000", "twelve", "10G", "\u0661", "\u00b2", "1\0"],
)
def test_what_is_no_whole_number_is_no_size(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("9223372036854775807", None), ("9223372036854775807", "bytes"), ("7", "E"), ("9", "EB"), ("0", "EiB")],
)
def test_sizes_reach_up_to_what_a_file_offset_can_count(text: str, unit: str | None) -> None:
    assert 0 <= units.parse_size(text, unit) <= units.MAX_SIZE


@pytest.mark.parametrize(
    ("text", "unit"),
    [("9223372036854775808", None), ("8", "E"), ("10", "EB"), ("9007199254740992", "K"), ("9" * 5000, None)],
)
def test_a_size_that_overflows_is_refused(text: str, unit: str | None) -> None:
    with pytest.raises(InvalidError, match="too large"):
        units.parse_size(text, unit)


def test_leading_zeros_do_not_count_towards_an_overflow() -> None:
    assert units.parse_size("0" * 5000 + "1") == 1


def test_a_refusal_quotes_a_long_text_shortly() -> None:
    with pytest.raises(InvalidError) as refused:
        units.parse_size("x" * 100_000)
    assert len(refused.value.sentence) < 200


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        ("1073741824", 2**30),
        ("10G", 10 * 2**30),
        ("10GiB", 10 * 2**30),
        ("10 GB", 10**10),
        ("10\tgib", 10 * 2**30),
        ("5bytes", 5),
        ("10G\n", 10 * 2**30),
        ("  1 \n", 1),
        ("none", None),
        ("none\n", None),
        ("None", None),
    ],
)
def test_a_capacity_file_takes_what_people_write(text: str, capacity: int | None) -> None:
    assert units.parse_capacity(text) == capacity


@pytest.mark.parametrize("text", ["0", "0\n", "0G", "000"])
def test_no_capacity_is_written_as_none_and_not_as_zero(text: str) -> None:
    with pytest.raises(InvalidError, match="write none"):
        units.parse_capacity(text)


@pytest.mark.parametrize(
    "text", ["", "\n", "G", "10 G B", "10G\n20G", "-5G", "1.5G", "10,000", "none none", "\u00a010"]
)
def test_anything_else_is_no_capacity(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a capacity"):
        units.parse_capacity(text)


@pytest.mark.parametrize(("text", "fault"), [("10X", "unit of size"), ("9999E", "too large")])
def test_a_capacity_has_the_units_and_limits_of_a_size(text: str, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        units.parse_capacity(text)


@given(st.integers(min_value=1, max_value=units.MAX_SIZE))
def test_a_printed_capacity_can_be_written_back(capacity: int) -> None:
    assert units.parse_capacity(f"{capacity}\n") == capacity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("90", 90),
        ("30m", 1800),
        ("7d", 604_800),
        ("none", 0),
        ("0", 0),
        ("5s", 5),
        (" 2 h\n", 7200),
    ],
)
def test_a_duration_has_one_unit_or_counts_seconds(text: str, seconds: int) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "1.5h", "-1h", "1h30m", "1w", "24H", "forever", "NONE", "\u0661h", "1h\0"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a duration"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", str(units.MAX_DURATION + 1), "9" * 5000 + "s"])
def test_a_duration_of_more_than_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="too long"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["none", "1", "90", "30m", "1h", "24h", "25h", "2d", "7d", "36500d"])
def test_a_canonical_duration_is_printed_as_it_was_written(text: str) -> None:
    assert units.format_duration(units.parse_duration(text)) == text


@pytest.mark.parametrize(("text", "canonical"), [("60", "1m"), ("1d", "24h"), ("48h", "2d"), ("90m", "90m")])
def test_a_duration_is_printed_in_its_largest_exact_unit(text: str, canonical: str) -> None:
    assert units.format_duration(units.parse_duration(text)) == canonical


@given(st.integers(min_value=0, max_value=units.MAX_DURATION))
def test_every_duration_survives_being_printed(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds
