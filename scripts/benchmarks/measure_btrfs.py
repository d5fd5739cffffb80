"""Items with a capacity, and snapshots, on btrfs with simple quotas, beside the ioctls in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import btrfs
from benchmarks.beside_floor import NULL, SUBJECT, beside_floor, row, synced_writes
from benchmarks.images import BTRFS
from benchmarks.peer import LimitedStore
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.storage import BareStorage
from benchmarks.table import Goal, Row
from benchmarks.trees import ControlTree

_TEN_TIMES_FASTER = Goal(high=0.1)
_NEAR_THE_IOCTL = Goal(high=1.3)

CAPACITY = 1 << 30
DEFAULTS = f"<defaults><capacity>{CAPACITY}</capacity></defaults>"

_MKDIR, _SNAPSHOT = "item with a capacity on btrfs", "snapshot on btrfs"
_BARE_ITEM = "bare subvolume and group with a limit"
_BARE_SNAPSHOT = "bare ioctl"
#: Levels of groups that are neither fspoolfs' nor a usual choice.
_LEVEL = 99
#: What is changed before each snapshot, so that there is something to commit.
_CHANGE_BYTES = 64 << 10


class _BareSubvolumes:
    """The ioctls themselves, in one directory whose descriptor stays open."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        btrfs.create_subvolume(self._fd, "original")
        self.original = directory / "original"
        self._original_fd = os.open(self.original, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> _BareSubvolumes:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._original_fd)
        os.close(self._fd)

    def make(self, turn: int) -> None:
        """A subvolume that is counted in a group of its own, which has a limit."""
        name = f"made{turn}"
        btrfs.create_subvolume(self._fd, name)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._fd)
        try:
            subvolume = btrfs.subvolume_of(made)
        finally:
            os.close(made)
        group = btrfs.group_id(_LEVEL, subvolume)
        btrfs.create_group(self._fd, group)
        btrfs.assign(self._fd, subvolume, group)
        btrfs.limit(self._fd, group, CAPACITY)

    def snapshot(self, turn: int) -> None:
        btrfs.snapshot(self._original_fd, self._fd, f"snapshot{turn}")


def measure_capacity(run: Run) -> Iterator[Row]:
    """mkdir of an item in a pool whose defaults have a capacity; the peers have a series of their own."""
    with ExitStack() as stack:
        place = stack.enter_context(run.scratch.filesystem(BTRFS))
        subject = stack.enter_context(run.subject(root=place / "pool", more=DEFAULTS))
        floor = stack.enter_context(run.floor())
        bare = stack.enter_context(_BareSubvolumes(place / "bare"))
        (place / "storage").mkdir()
        storage = stack.enter_context(BareStorage(place / "storage"))
        making = [
            _maker(subject, "floor"),
            Contender(name=NULL, act=lambda turn: os.mkdir(f"{floor.items()}/item{turn}")),
            Contender(name=_BARE_ITEM, act=bare.make),
            *synced_writes(storage, "making"),
        ]
        medians = interleave(making, turns=run.effort.capacity_turns)
        yield from beside_floor(_MKDIR, medians, bare=_BARE_ITEM)

        stores = [stack.enter_context(start(run.scratch)) for start in run.limited]
        makers = [_store_maker(store) for store in stores]
        yield from _beside_peers(_MKDIR, _maker(subject, "peer"), makers, run)


def measure_snapshots(run: Run) -> Iterator[Row]:
    """A snapshot of what has just been changed. Each commits its own change, and nobody else's.

    The peers are asked for snapshots of what nobody changed, and so is fspoolfs beside them.
    """
    with ExitStack() as stack:
        place = stack.enter_context(run.scratch.filesystem(BTRFS))
        subject = stack.enter_context(run.subject(root=place / "pool", more=DEFAULTS))
        floor = stack.enter_context(run.floor())
        bare = stack.enter_context(_BareSubvolumes(place / "bare"))
        item, data = subject.items() / "web", subject.root() / "web"
        item.mkdir()
        contenders = [
            Contender(
                name=SUBJECT,
                prepare=lambda turn: _change(data, turn),
                act=lambda turn: os.mkdir(f"{item}/snapshots/floor{turn}"),
            ),
            Contender(name=NULL, act=lambda turn: os.mkdir(f"{floor.items()}/item{turn}")),
            Contender(
                name=_BARE_SNAPSHOT, prepare=lambda turn: _change(bare.original, turn), act=bare.snapshot
            ),
        ]
        medians = interleave(contenders, turns=run.effort.snapshot_turns)
        value, ioctl = medians[SUBJECT], medians[_BARE_SNAPSHOT]
        yield row(_SNAPSHOT, value, _BARE_SNAPSHOT, ioctl, _NEAR_THE_IOCTL)
        yield row(
            _SNAPSHOT, value, f"floor: mkdir in the null tree + {_BARE_SNAPSHOT}", ioctl + medians[NULL]
        )

        stores = [stack.enter_context(start(run.scratch)) for start in run.limited]
        for store in stores:
            store.create("web")
        ours = Contender(name=SUBJECT, act=lambda turn: os.mkdir(f"{item}/snapshots/peer{turn}"))
        takers = [_store_taker(store) for store in stores]
        yield from _beside_peers(_SNAPSHOT, ours, takers, run)


def _maker(tree: ControlTree, prefix: str) -> Contender:
    items = tree.items()
    return Contender(name=SUBJECT, act=lambda turn: os.mkdir(f"{items}/{prefix}{turn}"))


def _store_maker(store: LimitedStore) -> Contender:
    return Contender(name=store.name, act=lambda turn: store.create(f"item{turn}"))


def _store_taker(store: LimitedStore) -> Contender:
    return Contender(name=store.name, act=lambda turn: store.snapshot("web", f"snapshot{turn}"))


def _change(directory: Path, turn: int) -> None:
    (directory / f"file{turn % 8}").write_bytes(os.urandom(_CHANGE_BYTES))


def _beside_peers(name: str, subject: Contender, peers: Sequence[Contender], run: Run) -> Iterator[Row]:
    if not peers:
        return
    medians = interleave([subject, *peers], turns=run.effort.limited_peer_turns)
    for peer in peers:
        yield row(name, medians[SUBJECT], peer.name, medians[peer.name], _TEN_TIMES_FASTER)
