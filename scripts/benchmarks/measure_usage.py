"""What many items with capacities on btrfs hold: item by item, and all of them in the metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import btrfs
from benchmarks.clients import make_items
from benchmarks.errors import BenchError
from benchmarks.images import BTRFS
from benchmarks.measure_btrfs import DEFAULTS
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.storage import sync
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import cat

_ALL, _NULL, _METRICS, _PASS = "allocation", "null tree", "metrics", "pass"
_METRICS_GOAL = Goal(high=1.0)
_SAMPLE = b"\nfspoolfs_item_allocation_bytes{"
#: Seconds after which the numbers in the metrics are counted anew.
_FRESH = 1.1


def measure_usage(run: Run) -> Iterator[Row]:
    """Every turn reads what every item holds; the metrics are never read twice from the same pass."""
    count = run.effort.usage_items
    with (
        run.scratch.filesystem(BTRFS) as place,
        run.subject(root=place / "pool", more=DEFAULTS) as subject,
        run.floor() as floor,
    ):
        seconds = make_items(subject.items(), prefix="item", count=count)
        yield Row(
            name=f"making {count:,} items with a capacity, 8 clients",
            value=count / seconds,
            unit=Unit.PER_SECOND,
        )
        names = os.listdir(subject.items())
        _fill(subject.root(), names)
        metrics = subject.mount / "metrics"
        paths = [f"{subject.items()}/{name}/allocation" for name in names]
        null = [floor.status()] * count
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            contenders = [
                Contender(name=_ALL, act=lambda turn: _cat_all(paths)),
                Contender(name=_NULL, act=lambda turn: _cat_all(null)),
                Contender(name=_METRICS, prepare=_grow_old, act=lambda turn: cat(os.fspath(metrics))),
                Contender(name=_PASS, act=lambda turn: btrfs.count_groups(fd)),
            ]
            medians = interleave(contenders, turns=run.effort.usage_turns)
            _check(paths, metrics, btrfs.count_groups(fd))
        finally:
            os.close(fd)
    yield Row(
        name=f"cat allocation of {count:,} items",
        value=medians[_ALL],
        unit=Unit.SECONDS,
        against="as many cat status in the null tree + one bare pass of the counters",
        reference=medians[_NULL] + medians[_PASS],
    )
    yield Row(
        name=f"metrics of {count:,} items", value=medians[_METRICS], unit=Unit.SECONDS, goal=_METRICS_GOAL
    )
    yield Row(name="- one bare pass of the counters", value=medians[_PASS], unit=Unit.SECONDS)


def _fill(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name / "file").write_bytes(b"content")
    sync(root)


def _cat_all(paths: list[str]) -> None:
    for path in paths:
        cat(path)


def _grow_old(turn: int) -> None:
    time.sleep(_FRESH)


def _check(paths: list[str], metrics: Path, groups: int) -> None:
    """Raise `BenchError` unless everything was counted: what is left out costs nothing."""
    _grow_old(0)
    samples = cat(os.fspath(metrics)).count(_SAMPLE)
    counted = sum(1 for path in paths if int(cat(path)) > 0)
    if not samples == counted == len(paths) <= groups:
        raise BenchError(f"of {len(paths):,} items {counted:,} are counted, and {samples:,} in the metrics")
