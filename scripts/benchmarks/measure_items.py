"""What it costs to make and to delete one item."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from benchmarks.beside_floor import NULL, SUBJECT, beside_floor, row, synced_writes
from benchmarks.peer import VolumeStore
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.storage import fill
from benchmarks.table import Goal, Row
from benchmarks.trees import ControlTree

_FASTER = Goal(high=1.0)

_MKDIR, _RMDIR = "mkdir of an item", "rmdir of an item with content"
_BARE_MKDIR, _BARE_RENAME = "bare mkdir", "bare rename"


def measure_items(run: Run) -> Iterator[Row]:
    """mkdir and rmdir beside the floor, which is a null tree, the bare call and one synced write.

    The peers take turns with fspoolfs in series of their own: some of them go on working after they
    have answered, which would make the floor look higher than it is.
    """
    turns = run.effort.item_turns
    with ExitStack() as stack:
        subject = stack.enter_context(run.subject())
        floor = stack.enter_context(run.floor())
        storage = stack.enter_context(run.storage())
        making = [
            _maker(subject, "floor"),
            Contender(name=NULL, act=lambda turn: os.mkdir(f"{floor.items()}/item{turn}")),
            Contender(name=_BARE_MKDIR, act=storage.make),
            *synced_writes(storage, "making"),
        ]
        yield from beside_floor(_MKDIR, interleave(making, turns=turns), bare=_BARE_MKDIR)
        deleting = [
            _deleter(subject, "floor"),
            Contender(name=NULL, act=lambda turn: os.rmdir(f"{floor.items()}/item{turn}")),
            Contender(name=_BARE_RENAME, prepare=storage.prepare_move, act=storage.move),
            *synced_writes(storage, "deleting"),
        ]
        yield from beside_floor(_RMDIR, interleave(deleting, turns=turns), bare=_BARE_RENAME)

        stores = [stack.enter_context(start(run.scratch)) for start in run.stores]
        if stores:
            made = interleave([_maker(subject, "peer"), *map(_store_maker, stores)], turns=turns)
            yield from _beside_peers(_MKDIR, made, stores)
            deleted = interleave([_deleter(subject, "peer"), *map(_store_deleter, stores)], turns=turns)
            yield from _beside_peers(_RMDIR, deleted, stores)


def _maker(tree: ControlTree, prefix: str) -> Contender:
    items = tree.items()
    return Contender(name=SUBJECT, act=lambda turn: os.mkdir(f"{items}/{prefix}{turn}"))


def _deleter(tree: ControlTree, prefix: str) -> Contender:
    items, root = tree.items(), tree.root()
    return Contender(
        name=SUBJECT,
        prepare=lambda turn: fill(f"{root}/{prefix}{turn}"),
        act=lambda turn: os.rmdir(f"{items}/{prefix}{turn}"),
    )


def _store_maker(store: VolumeStore) -> Contender:
    return Contender(name=store.name, act=lambda turn: store.create(f"item{turn}"))


def _store_deleter(store: VolumeStore) -> Contender:
    return Contender(
        name=store.name,
        prepare=lambda turn: store.fill(f"item{turn}"),
        act=lambda turn: store.delete(f"item{turn}"),
    )


def _beside_peers(name: str, medians: Mapping[str, float], stores: Sequence[VolumeStore]) -> Iterator[Row]:
    for store in stores:
        against, goal = (
            (store.name, _FASTER) if store.synced else (f"{store.name}, which syncs nothing", None)
        )
        yield row(name, medians[SUBJECT], against, medians[store.name], goal)
