"""How pools and items stand at one moment, and what has become of them since another one.

One reading of `metrics` tells of all items; their own files are only read for those that are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from fspoolfs.cli import devices
from fspoolfs.cli.client import Place, Tree
from fspoolfs.cli.devices import Traffic
from fspoolfs.errors import FspoolError

_CAPACITY: Final = "fspoolfs_item_capacity_bytes"
_ALLOCATION: Final = "fspoolfs_item_allocation_bytes"
#: States in which a pool's storage is not asked.
_SILENT: Final = ("stalled", "failed")

Key = tuple[str, str]
K = TypeVar("K")
S = TypeVar("S", "PoolSample", "ItemSample")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSample:
    """One pool; numbers are bytes, `None` where nobody knows them."""

    name: str
    state: str
    job: str
    items: int
    capacity: int | None
    allocation: int | None
    device: str | None
    traffic: Traffic | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSample:
    """One item; numbers are bytes, `None` where nobody knows them or there is no limit."""

    pool: str
    name: str
    capacity: int | None
    allocation: int | None

    @property
    def key(self) -> Key:
        return self.pool, self.name


@dataclass(frozen=True, slots=True)
class Detail:
    """What only an item's own files tell: its state and job, and how many mounts show it."""

    state: str = ""
    job: str = ""
    users: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at `moment`, a time of the monotonic clock in seconds."""

    moment: float
    pools: Mapping[str, PoolSample] = field(default_factory=dict)
    items: Mapping[Key, ItemSample] = field(default_factory=dict)


def take(tree: Tree) -> Sample:
    """Look at the whole tree. Raises `FspoolError` when it is gone."""
    numbers = _item_numbers(tree.read("metrics"))
    moment = time.monotonic()
    pools: dict[str, PoolSample] = {}
    items: dict[Key, ItemSample] = {}
    for name in tree.pools():
        with suppress(FspoolError):  # it is gone meanwhile
            place = tree.pool(name)
            inside = place.names("items")
            pools[name] = _pool(place, name, len(inside))
            for item in inside:
                capacity, allocation = numbers[_CAPACITY], numbers[_ALLOCATION]
                key = (name, item)
                items[key] = ItemSample(
                    pool=name, name=item, capacity=capacity.get(key), allocation=allocation.get(key)
                )
    return Sample(moment, pools, items)


def _item_numbers(text: str) -> Mapping[str, Mapping[Key, int]]:
    found: dict[str, dict[Key, int]] = {_CAPACITY: {}, _ALLOCATION: {}}
    # Only the lines that are wanted: parsing all takes longer than the daemon took to write them.
    wanted = "\n".join(line for line in text.splitlines() if line.startswith((_CAPACITY, _ALLOCATION)))
    for family in text_string_to_metric_families(f"{wanted}\n"):
        for sample in family.samples:
            found[sample.name][sample.labels["pool"], sample.labels["item"]] = int(sample.value)
    return found


def _pool(place: Place, name: str, items: int) -> PoolSample:
    state, _, job = place.value("status").partition(" ")
    quiet = state in _SILENT
    device = None if state != "active" else devices.device_below(place.link("root"))
    return PoolSample(
        name=name,
        state=state,
        job=job,
        items=items,
        capacity=None if quiet else _number(place, "capacity"),
        allocation=None if quiet else _number(place, "allocation"),
        device=device,
        traffic=None if device is None else devices.traffic(device),
    )


def _number(place: Place, name: str) -> int | None:
    try:
        text = place.value(name)
    except FspoolError:
        return None
    return int(text) if text.isdigit() else None


def details(tree: Tree, keys: Iterable[Key]) -> dict[Key, Detail]:
    """What the files of these items tell."""
    found = {}
    for pool, name in keys:
        place = Place(tree.path / "pools" / pool / "items" / name, f"item {name} of pool {pool}", tree.path)
        try:
            state, _, job = place.value("status").partition(" ")
            users = len(place.read("users").splitlines())
        except FspoolError:
            found[pool, name] = Detail()  # it is gone, or its pool is stopped
        else:
            found[pool, name] = Detail(state, job, users)
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second between two samples; what was not in both has none."""

    pools: Mapping[str, float]
    items: Mapping[Key, float]
    reading: Mapping[str, float]
    writing: Mapping[str, float]


def rates(before: Sample | None, now: Sample) -> Rates:
    """How fast everything has changed."""
    if before is None or now.moment <= before.moment:
        return Rates({}, {}, {}, {})
    seconds = now.moment - before.moment
    reading, writing = {}, {}
    for name, pool in now.pools.items():
        was = before.pools.get(name)
        if was is None or was.device != pool.device or was.traffic is None or pool.traffic is None:
            continue
        reading[name] = (pool.traffic.read - was.traffic.read) / seconds
        writing[name] = (pool.traffic.written - was.traffic.written) / seconds
    return Rates(
        _growth(before.pools, now.pools, seconds), _growth(before.items, now.items, seconds), reading, writing
    )


def _growth(before: Mapping[K, S], now: Mapping[K, S], seconds: float) -> dict[K, float]:
    grown = {}
    for key, one in now.items():
        was = before.get(key)
        if was is not None and was.allocation is not None and one.allocation is not None:
            grown[key] = (one.allocation - was.allocation) / seconds
    return grown


#: The orders of items, by the key that chooses one: its name, and what comes first.
ORDERS: Final[Mapping[str, str]] = {"n": "name", "u": "used", "g": "growth", "p": "part of the capacity"}


def ordered(now: Sample, change: Rates, order: str) -> Sequence[ItemSample]:
    """The items in the order of one of the `ORDERS`; what is not known comes last."""
    items = sorted(now.items.values(), key=lambda item: item.key)
    if order == "u":
        return sorted(
            items, key=lambda item: -1 if item.allocation is None else item.allocation, reverse=True
        )
    if order == "g":
        return sorted(items, key=lambda item: change.items.get(item.key, float("-inf")), reverse=True)
    if order == "p":
        return sorted(items, key=lambda item: part(item.allocation, item.capacity) or -1.0, reverse=True)
    return items


def part(allocation: int | None, capacity: int | None) -> float | None:
    """How full something is, from 0 to 1; `None` where that cannot be said."""
    return None if allocation is None or not capacity else min(allocation / capacity, 1.0)
