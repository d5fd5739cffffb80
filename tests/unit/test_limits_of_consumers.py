"""The values of `<cgroups>`: what each file takes, and what is said of the rest."""

from __future__ import annotations

import pytest

from fspoolfs.errors import InvalidError
from fspoolfs.model import limits


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("io.max", "rbps=1"),
        ("io.max", "wiops=18446744073709551615 riops=max rbps=10485760 wbps=1"),
        ("io.weight", "1"),
        ("io.weight", "default 10000"),
        ("io.latency", "target=75000"),
        ("memory.max", "max"),
        ("memory.max", "512M"),
        ("memory.high", "0"),
        ("pids.max", "0"),
        ("pids.max", "max"),
        ("cpu.max", "max"),
        ("cpu.max", "1000"),
        ("cpu.max", "50000 1000000"),
        ("cpu.max", "max 1000"),
    ],
)
def test_a_value_is_taken_as_it_is(file: str, text: str) -> None:
    assert limits.check(file, text) == text


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("io.max", "8:16 rbps=1", "names a device; leave it out"),
        ("io.max", "max", "is not a limit of input and output"),
        ("io.max", "rbps=0", "with numbers from 1 on"),
        ("io.max", "rbps=1 rbps=2", "each once"),
        ("io.max", "rbps=10M", "is not a limit of input and output"),
        ("io.max", "rbps=18446744073709551616", "is not a limit of input and output"),
        ("io.max", "bps=1", "write some of rbps, wbps, riops, wiops"),
        ("io.weight", "0", "a number from 1 to 10000"),
        ("io.weight", "10001", "a number from 1 to 10000"),
        ("io.weight", "max", "is not a weight"),
        ("io.latency", "75000", "write target= and microseconds"),
        ("io.latency", "target=max", "is not a latency"),
        ("memory.max", "-1", "is not a size of memory"),
        ("memory.max", "512MiB", "is not a size of memory"),
        ("memory.high", "9223372036854775808", "is not a size of memory"),
        ("memory.max", "9999999999G", "is not a size of memory"),
        ("pids.max", "4194305", "write 0 to 4194304"),
        ("pids.max", "many", "is not a number of processes"),
        ("cpu.max", "999", "is not a bandwidth"),
        ("cpu.max", "1000 max", "is not a bandwidth"),
        ("cpu.max", "1000 1000001", "is not a bandwidth"),
        ("cpu.max", "1000 2000 3000", "is not a bandwidth"),
    ],
)
def test_what_the_kernel_would_not_take_is_refused(file: str, text: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        limits.check(file, text)


def test_values_are_taken_apart() -> None:
    assert limits.rates("wiops=2 rbps=max") == {"wiops": 2, "rbps": None}
    assert limits.bandwidth("5000") == (5000, 100_000)
    assert limits.bandwidth("max 2000") == (None, 2000)
    assert [limits.memory(text) for text in ("max", "7", "2k", "1G")] == [None, 7, 2048, 1 << 30]
    assert limits.weight("default 50") == limits.weight("50") == 50
