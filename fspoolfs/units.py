"""Sizes and durations as people write them, and the one way in which they are printed.

Sizes follow libvirt: whole numbers scaled by a unit that is read without regard to case, `K` and
`KiB` being 1024 and `KB` 1000. Nothing is rounded: what is not a whole number of bytes or seconds
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fspoolfs.errors import InvalidError
from fspoolfs.names import quote

#: The largest size in bytes: what a signed 64-bit off_t can count, and libvirt's limit.
MAX_SIZE: Final = 2**63 - 1
#: The longest duration in seconds: a hundred years, so that now plus a duration is always a date.
MAX_DURATION: Final = 36_500 * 86_400

#: What XML calls white space; str.strip() would take far more.
_WHITE = " \t\r\n"
_CAPACITY = re.compile(r"([0-9]+)[ \t]*([A-Za-z]*)")
_DURATION = re.compile(r"([0-9]+)[ \t]*([smhd]?)")


def _size_units() -> dict[str, int]:
    units = {"b": 1, "byte": 1, "bytes": 1}
    for power, letter in enumerate("kmgtpe", start=1):
        units[letter] = units[f"{letter}ib"] = 1024**power
        units[f"{letter}b"] = 1000**power
    return units


#: Lower-case unit → bytes.
_SIZE_UNITS: Final[Mapping[str, int]] = _size_units()
_SECONDS: Final[Mapping[str, int]] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _scaled(digits: str, scale: int, limit: int) -> int | None:
    """`digits` times `scale`, or `None` above `limit`."""
    significant = digits.lstrip("0") or "0"
    # int() itself refuses thousands of digits (sys.set_int_max_str_digits), with an error of its own.
    if len(significant) > len(str(limit)):
        return None
    value = int(significant) * scale
    return value if value <= limit else None


def parse_size(text: str, unit: str | None = None) -> int:
    """`text` in bytes, a whole number counted in libvirt's `unit`; `None` means bytes.

    Raises `InvalidError` for what is no whole number, an unknown unit, and above 2**63 - 1 bytes.
    """
    digits = text.strip(_WHITE)
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidError(f"{quote(text)} is not a size; write a whole number, and its unit apart")
    scale = 1 if unit is None else _SIZE_UNITS.get(unit.lower())
    if scale is None:
        raise InvalidError(
            f"{quote(unit or '')} is not a unit of size; write bytes, KiB, MiB, GiB, KB, MB, ..."
        )
    value = _scaled(digits, scale, MAX_SIZE)
    if value is None:
        raise InvalidError(f"{quote(digits)} {unit or 'bytes'} is too large; {MAX_SIZE} bytes is the most")
    return value


def parse_capacity(text: str) -> int | None:
    """What is written into a `capacity` file, in bytes; `None` for "none", no limit.

    Takes "1073741824", "10G", "10GiB" and "10 GB", with white space around. Raises `InvalidError`.
    """
    request = text.strip(_WHITE)
    if request.lower() == "none":
        return None
    match = _CAPACITY.fullmatch(request)
    if match is None:
        raise InvalidError(f"{quote(request)} is not a capacity; write bytes, 10G, 10GiB, 10GB or none")
    value = parse_size(match[1], match[2] or None)
    if value == 0:
        raise InvalidError("a capacity of 0 would hold nothing; write none to lift the limit")
    return value


def parse_duration(text: str) -> int:
    """A duration in seconds: "90", "90s", "30m", "24h", "7d"; 0 for "none".

    Raises `InvalidError`, also for more than a hundred years.
    """
    request = text.strip(_WHITE)
    if request == "none":
        return 0
    match = _DURATION.fullmatch(request)
    if match is None:
        raise InvalidError(f"{quote(request)} is not a duration; write seconds, 30m, 24h, 7d or none")
    value = _scaled(match[1], _SECONDS[match[2]], MAX_DURATION)
    if value is None:
        raise InvalidError(f"{quote(request)} is too long a duration; {MAX_DURATION // 86_400}d is the most")
    return value


def format_duration(seconds: int) -> str:
    """The canonical text of a duration: "none" for 0, else in the largest unit that is exact.

    One day is "24h", as people say it; whole days begin at "2d".
    """
    if seconds == 0:
        return "none"
    if seconds > 86_400 and seconds % 86_400 == 0:
        return f"{seconds // 86_400}d"
    if seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    return f"{seconds // 60}m" if seconds % 60 == 0 else str(seconds)
