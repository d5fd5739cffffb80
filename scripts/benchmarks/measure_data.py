"""Reading and writing an item's data through the control tree, beside a bare directory on the same disk."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.run import Run
from benchmarks.table import Goal, Row, Unit

#: How far two equal things are apart on a quiet machine; the noise that is seen may be more.
_NOISE = 0.05
#: Small enough to stay in the page cache and below the limit at which writers are made to wait.
_FILE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """What fio does: `mode` is its --rw, `side` the part of its report that counts."""

    name: str
    mode: str
    block: str
    side: str


PATTERNS = (
    Pattern("sequential read, 128 KiB", "read", "128k", "read"),
    Pattern("sequential write, 128 KiB", "write", "128k", "write"),
    Pattern("random read, 4 KiB", "randread", "4k", "read"),
    Pattern("random write, 4 KiB", "randwrite", "4k", "write"),
)


def measure_data(run: Run) -> Iterator[Row]:
    """fio in turns on a file of an item and on one beside it. Raises `BenchError` where fio is missing."""
    if shutil.which("fio") is None:
        raise BenchError("fio is missing: apt-get install fio")
    bare = (run.scratch.directory("bare"), run.scratch.directory("bare"))
    with run.subject() as subject:
        item = subject.items() / "web"
        item.mkdir()
        for pattern in PATTERNS:
            yield from _compare(pattern, (item / "data", *bare), run)


def compare(pattern: Pattern, places: Sequence[Path], run: Run) -> list[float]:
    """The median bytes a second that fio moves in each place, in turns."""
    rates: dict[Path, list[float]] = {place: [] for place in places}
    for turn in range(run.effort.data_turns):
        shift = turn % len(places)
        for place in (*places[shift:], *places[:shift]):
            with _fresh_file(place / "file") as file:
                rates[place].append(_rate(pattern, file, milliseconds=run.effort.data_milliseconds))
    return [statistics.median(rates[place]) for place in places]


def _compare(pattern: Pattern, places: Sequence[Path], run: Run) -> Iterator[Row]:
    """An item beside a bare directory, which stands beside a second one to show the noise."""
    inside, bare, again = compare(pattern, places, run)
    noise = max(_NOISE, abs(again / bare - 1))

    def row(where: str, value: float, goal: Goal | None) -> Row:
        return Row(
            name=f"fio {pattern.name}, {where}",
            value=value,
            unit=Unit.BYTES_PER_SECOND,
            against="bare directory",
            reference=bare,
            goal=goal,
        )

    yield row("an item's data", inside, Goal(low=1 - noise))
    yield row("another bare directory", again, None)


@contextmanager
def _fresh_file(path: Path) -> Iterator[Path]:
    """A new synced file for each turn: how the memory and the blocks of one file lie is luck."""
    with path.open("wb") as file:
        file.write(os.urandom(_FILE_BYTES))
        os.fsync(file.fileno())
    try:
        yield path
    finally:
        path.unlink()


def _rate(pattern: Pattern, path: Path, *, milliseconds: int) -> float:
    """Bytes a second that fio moves; its page cache is left as it is."""
    options = {
        "name": "bench",
        "filename": path,
        "rw": pattern.mode,
        "bs": pattern.block,
        "size": _FILE_BYTES,
        "runtime": f"{milliseconds}ms",
        "time_based": 1,
        "ioengine": "psync",
        "invalidate": 0,
        "randrepeat": 1,
        "output-format": "json",
    }
    command = ["fio", *(f"--{name}={value}" for name, value in options.items())]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return float(report["jobs"][0][pattern.side]["bw_bytes"])
