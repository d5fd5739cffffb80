"""The limits of an item's consumers: cgroup v2 interface files, and what may stand in each.

The grammar is the kernel's (Documentation/admin-guide/cgroup-v2.rst) but for one thing: files that
have a line for each device take one without it, since the device is the pool's own. Never knows
what a kernel can do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from fspoolfs.errors import InvalidError
from fspoolfs.names import quote

#: An item's limits: interface file and value, in the order of its document.
Limits = tuple[tuple[str, str], ...]

#: The interface files that an item may limit.
LIMITS: Final = ("io.max", "io.weight", "io.latency", "memory.max", "memory.high", "pids.max", "cpu.max")
#: The keys of `io.max`: bytes and operations a second, of reads and of writes.
RATES: Final = ("rbps", "wbps", "riops", "wiops")
#: What lifts a limit.
MAX: Final = "max"
#: cpu.max where only the quota is said, in microseconds.
DEFAULT_PERIOD: Final = 100_000

_MAX_U64 = 2**64 - 1
#: PID_MAX_LIMIT of include/linux/threads.h, which the kernel checks against.
_MAX_PIDS = 4 * 1024 * 1024
_SHORTEST_QUOTA, _LONGEST_PERIOD = 1000, 1_000_000
_NUMBER = re.compile("[0-9]{1,20}")
_MEMORY = re.compile("([0-9]{1,20})([KkMmGgTt]?)")
_DEVICE = re.compile("[0-9]+:[0-9]+")
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def controller(file: str) -> str:
    """The controller that an interface file belongs to."""
    return file.partition(".")[0]


def number(text: str) -> int | None:
    """A number of a value that has been checked; `None` for "max"."""
    return None if text == MAX else int(text)


def rates(text: str) -> dict[str, int | None]:
    """The keys of an `io.max`, `None` for "max". Raises `InvalidError`."""
    found: dict[str, int | None] = {}
    for word in text.split():
        key, _, value = word.partition("=")
        if _DEVICE.fullmatch(word):
            raise InvalidError(f"{quote(text)} names a device; leave it out, it is the pool's own")
        if key not in RATES or key in found or not _is_count(value, 1, _MAX_U64):
            raise InvalidError(
                f"{quote(text)} is not a limit of input and output; write some of {', '.join(RATES)}, each "
                "once, such as 'rbps=10485760 wiops=120', with numbers from 1 on or max"
            )
        found[key] = number(value)
    return found


def latency(text: str) -> int:
    """The target of an `io.latency`, in microseconds. Raises `InvalidError`."""
    key, _, value = text.partition("=")
    if key != "target" or value == MAX or not _is_count(value, 1, _MAX_U64):
        raise InvalidError(f"{quote(text)} is not a latency; write target= and microseconds")
    return int(value)


def weight(text: str) -> int:
    """An `io.weight`, 1 to 10000, as the kernel shows it or alone. Raises `InvalidError`."""
    number_text = text.removeprefix("default ")
    if number_text == MAX or not _is_count(number_text, 1, 10_000):
        raise InvalidError(f"{quote(text)} is not a weight; write a number from 1 to 10000")
    return int(number_text)


def memory(text: str) -> int | None:
    """A size of memory in bytes, `None` for "max". Raises `InvalidError`."""
    match = _MEMORY.fullmatch(text)
    size = int(match[1]) << _SHIFTS[match[2].lower()] if match is not None else 0
    if text != MAX and (match is None or size >= 2**63):
        raise InvalidError(f"{quote(text)} is not a size of memory; write bytes, or such as 512M, or max")
    return None if text == MAX else size


def pids(text: str) -> int | None:
    """How many processes and threads, `None` for "max". Raises `InvalidError`."""
    if not _is_count(text, 0, _MAX_PIDS):
        raise InvalidError(f"{quote(text)} is not a number of processes; write 0 to {_MAX_PIDS}, or max")
    return number(text)


def bandwidth(text: str) -> tuple[int | None, int]:
    """The quota and the period of a `cpu.max`, in microseconds; no quota for "max".

    Raises `InvalidError`.
    """
    words = text.split()
    quota, period = words[0], words[1] if len(words) > 1 else str(DEFAULT_PERIOD)
    if (
        len(words) > 2
        or not _is_count(quota, _SHORTEST_QUOTA, 2**44)
        or period == MAX
        or not _is_count(period, _SHORTEST_QUOTA, _LONGEST_PERIOD)
    ):
        raise InvalidError(
            f"{quote(text)} is not a bandwidth; write how many microseconds in which period, such as '50000 "
            "100000', at least 1000 and at most in 1000000, or max"
        )
    return number(quota), int(period)


def _is_count(text: str, low: int, high: int) -> bool:
    return text == MAX or (bool(_NUMBER.fullmatch(text)) and low <= int(text) <= high)


_CHECKS: Final[Mapping[str, Callable[[str], object]]] = {
    "io.max": rates,
    "io.weight": weight,
    "io.latency": latency,
    "memory.max": memory,
    "memory.high": memory,
    "pids.max": pids,
    "cpu.max": bandwidth,
}


def check(file: str, text: str) -> str:
    """The value of an interface file, as it was given. Raises `InvalidError` for what is none."""
    _CHECKS[file](text)
    return text
