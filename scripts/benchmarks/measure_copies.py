"""Cloning an item of a gibibyte, beside cp(1): where files can share their blocks, and where they cannot.

A clone is durable when it is there, so cp is followed by a sync of the file system, and stands alone
beside it for comparison. All copies are kept until the end: removing one would be part of the next.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.beside_floor import SUBJECT, row
from benchmarks.errors import BenchError
from benchmarks.images import BTRFS, EXT4, XFS, Kind
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.storage import sync
from benchmarks.table import Goal, Row
from benchmarks.trees import POOL, ControlTree

_DIRECTORIES, _FILES, _FILE_BYTES = 32, 32, 1 << 20
_REFLINK, _COPY = ("cp", "-a", "--reflink=always"), ("cp", "-a", "--reflink=never")
_NEAR_REFLINK, _NEAR_COPY = Goal(high=1.2), Goal(high=1.1)


def measure_copies(run: Run) -> Iterator[Row]:
    """The tree lies in an item that is a plain directory everywhere, and on btrfs in a subvolume as well."""
    turns = run.effort.reflink_turns
    with _pool(run, XFS) as tree:
        yield from _compare("clone of 1 GiB in 1,024 files on xfs", tree, "plain", _REFLINK, turns)
    with _pool(run, BTRFS) as tree:
        yield from _compare("the same on btrfs, a plain directory", tree, "plain", _REFLINK, turns)
        (tree.items() / "volume").mkdir()
        _run(*_REFLINK, f"{tree.root()}/plain/.", tree.root() / "volume")
        yield from _compare("the same on btrfs, a subvolume", tree, "volume", _REFLINK, turns)
    with _pool(run, EXT4) as tree:
        yield from _compare("the same on ext4", tree, "plain", _COPY, run.effort.copy_turns)


@contextmanager
def _pool(run: Run, kind: Kind) -> Iterator[ControlTree]:
    """A pool with an item `plain`, which was a directory before."""
    with run.scratch.filesystem(kind) as place, run.subject(root=place / "pool") as tree:
        _fill(tree.root() / "plain")
        (tree.mount / "define").write_text(f"<fs><name>plain</name><source fspool='{POOL}'/></fs>\n")
        sync(place)
        yield tree


def _compare(name: str, tree: ControlTree, item: str, cp: Sequence[str], turns: int) -> Iterator[Row]:
    root, status = tree.root(), tree.items() / item / "status"
    command = " ".join(cp)
    synced = f"{command} and sync"

    def copy(turn: int) -> None:
        _run(*cp, root / item, root / f"cp-{item}{turn}")

    def copy_and_sync(turn: int) -> None:
        _run(*cp, root / item, root / f"synced-{item}{turn}")
        sync(root)

    def settle(turn: int) -> None:
        sync(root)

    contenders = [
        Contender(
            name=SUBJECT, prepare=settle, act=lambda turn: status.write_text(f"clone {item}{turn + 1}\n")
        ),
        Contender(name=synced, prepare=settle, act=copy_and_sync),
        Contender(name=command, prepare=settle, act=copy),
    ]
    medians = interleave(contenders, turns=turns)
    _check_alike(root / item, root / f"{item}{turns}")
    goal = _NEAR_COPY if cp is _COPY else _NEAR_REFLINK
    yield row(name, medians[SUBJECT], synced, medians[synced], goal)
    yield row(name, medians[SUBJECT], f"{command}, not durable", medians[command])


def _fill(directory: Path) -> None:
    for number in range(_DIRECTORIES):
        below = directory / f"directory{number}"
        below.mkdir(parents=True)
        for name in range(_FILES):
            (below / f"file{name}").write_bytes(os.urandom(_FILE_BYTES))


def _check_alike(one: Path, other: Path) -> None:
    """What is not the same tree was not cloned faster."""
    if subprocess.run(["diff", "--recursive", "--brief", "--", one, other]).returncode:
        raise BenchError(f"{other} is not the same as {one}")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)
