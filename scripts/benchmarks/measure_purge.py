"""Deleting an item with very many files, and what other requests notice of its removal in the background."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.beside_floor import row
from benchmarks.clients import wall_seconds
from benchmarks.errors import BenchError
from benchmarks.images import EXT4
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.storage import BareStorage, sync
from benchmarks.table import Goal, Row
from benchmarks.trees import ControlTree, cat

_AS_FAST, _NOT_TWICE = Goal(high=1.1), Goal(high=2.0)
_KEEP, _PURGE = "<trash retention='48h'/>", "<trash retention='none'/>"
_DIRECTORIES = 100
#: Calls of each kind before a purge; as many more as it lasts while it is under way.
_CALM_CALLS = 200
#: The part of the files that is gone when a purge counts as nearly over, and nothing is timed any more.
_NEARLY = 0.9

_Times = Mapping[str, list[float]]


def measure_purge(run: Run) -> Iterator[Row]:
    """rmdir of a full item beside that of an empty one; then a real removal beside quiet."""
    files = run.effort.purge_files
    with run.scratch.filesystem(EXT4) as place, run.subject(root=place / "pool", more=_KEEP) as tree:
        for name in ("full", "empty"):
            (tree.items() / name).mkdir()
        _fill(tree.root() / "full", files)
        medians = interleave([_deleter(tree, "full"), _deleter(tree, "empty")], turns=run.effort.delete_turns)
    yield row(
        f"rmdir of an item with {files:,} files", medians["full"], "an empty one", medians["empty"], _AS_FAST
    )
    calm: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)
    for _ in range(run.effort.purge_rounds):
        _round(run, calm, busy)
    for what in calm:
        yield row(
            f"{what} while {files:,} files are purged",
            statistics.median(busy[what]),
            "while none are",
            statistics.median(calm[what]),
            None if what.startswith("bare") else _NOT_TWICE,
        )


def _deleter(tree: ControlTree, name: str) -> Contender:
    """Into the trash, from which it comes back before the next turn."""
    item, trashed = f"{tree.items()}/{name}", f"{tree.pool()}/trash/{name}"

    def bring_back(turn: int) -> None:
        if os.path.lexists(trashed):
            os.rename(trashed, item)

    return Contender(name=name, prepare=bring_back, act=lambda turn: os.rmdir(item))


def _round(run: Run, calm: _Times, busy: _Times) -> None:
    """One purge, on a file system from which nothing was removed before."""
    files = run.effort.purge_files
    with run.scratch.filesystem(EXT4) as place, run.subject(root=place / "pool", more=_PURGE) as tree:
        (tree.items() / "full").mkdir()
        _fill(tree.root() / "full", files)
        (place / "bare").mkdir()
        with BareStorage(place / "bare") as storage:
            acts = _acts(tree, storage)
            for number in range(_CALM_CALLS):
                _sample(acts, calm, number)
            used = _used_inodes(place)
            (tree.items() / "full").rmdir()
            number = _CALM_CALLS
            while (gone := used - _used_inodes(place)) < files * _NEARLY:
                _sample(acts, busy, number)
                number += 1
                used += 3  # an item is two inodes, a bare directory one
                if number > files:
                    raise BenchError(f"of {files:,} files {gone:,} were purged in {number:,} calls")


def _acts(tree: ControlTree, storage: BareStorage) -> dict[str, Callable[[int], object]]:
    items, status = tree.items(), tree.status()

    def make_bare(number: int) -> None:
        storage.make(number)
        storage.append(number)

    return {
        "cat status": lambda number: cat(status),
        "mkdir": lambda number: os.mkdir(f"{items}/item{number}"),
        "bare mkdir and synced record": make_bare,
    }


def _sample(acts: Mapping[str, Callable[[int], object]], times: _Times, number: int) -> None:
    for what, act in acts.items():
        began = time.perf_counter()
        act(number)
        times[what].append(time.perf_counter() - began)


def _used_inodes(place: Path) -> int:
    room = os.statvfs(place)
    return room.f_files - room.f_ffree


def _fill(directory: Path, files: int) -> None:
    """`files` small files in subdirectories, on disk."""
    share = files // _DIRECTORIES
    numbers = range(_DIRECTORIES)
    clients = [numbers[part::2] for part in range(2)]
    wall_seconds([partial(_write, directory, share, part) for part in clients])
    sync(directory)


def _write(directory: Path, count: int, numbers: range) -> None:
    for number in numbers:
        below = f"{directory}/directory{number}"
        os.mkdir(below)
        for name in range(count):
            with open(f"{below}/file{name}", "wb") as file:
                file.write(b"content")
