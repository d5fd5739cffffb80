"""Scenes that tests of the service begin with, and what they look at afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio

from fspoolfs.backends import layout
from fspoolfs.backends.memory import MemoryRoot
from fspoolfs.backends.simulator import Faults, Hang, SimulatedHost
from fspoolfs.errors import InProgressError
from fspoolfs.model.definitions import ItemDefinition, PoolDefinition, PoolType, TrashPolicy
from fspoolfs.model.infos import MountUse
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

ROOT = Caller(uid=0, gid=0)
ALICE = Caller(uid=1001, gid=1001)
BOB = Caller(uid=1002, gid=1002)

#: Seconds that anything in memory may take on a slow machine.
LIMIT = 30.0
#: Seconds between two looks for what no event tells.
LOOK = 0.02


def place(pool: str) -> str:
    """Where the root of a pool lies that names no target."""
    return f"/storage/pools/{pool}"


def item(name: str, **more: object) -> ItemDefinition:
    return ItemDefinition(name=name, **more)  # type: ignore[arg-type]


def dir_pool(name: str, **more: object) -> PoolDefinition:
    return PoolDefinition(name=name, type=PoolType.DIR, **more)  # type: ignore[arg-type]


async def active_pool(service: Service, name: str = "tank", **more: object) -> Pool:
    """A new pool that is built and started."""
    await service.pools.define(dir_pool(name, **more), ROOT)
    pool = service.pools.find(name)
    await patiently(service, pool, service.lifecycle.start(pool, ROOT, build=True))
    return pool


async def furnished_pool(service: Service, name: str = "tank", *, retention: int = 3600) -> Pool:
    """An active pool with items `web` and `other`, `old` in the trash, and a directory `found`."""
    pool = await active_pool(service, name, trash=TrashPolicy(retention=retention))
    root = pool.active().root
    for one in ("web", "other", "old"):
        await patiently(service, pool, service.items.create(pool, item(one), ROOT, adopt=False))
        root.write(f"{one}/{one}.txt", b"data", replace=False, durable=False)
    await patiently(service, pool, service.trash.delete(pool, "old"))
    root.make_directory("found", mode=0o755)
    root.write("found/found.txt", b"data", replace=False, durable=False)
    root.sync()
    return pool


async def patiently(service: Service, pool: Pool, request: Awaitable[object]) -> None:
    """Wait for the end of a request, however short the service's grace time and slow the machine."""
    with suppress(InProgressError):
        await request
    await until(service, lambda: is_at_rest(pool), what=f"pool {pool.name} is at rest")


def is_at_rest(pool: Pool) -> bool:
    """Whether no verb and no change of an item is under way."""
    return (
        (pool.job is None or not pool.job.running)
        and not {one.state.value for one in pool.items.values()} & {"creating", "busy", "deleting"}
        and not any(entry.busy for entry in pool.trash.values())
    )


async def running_pool(service: Service, name: str = "tank") -> Pool:
    """The pool that a new service found active, when its start has ended."""
    pool = service.pools.find(name)
    while pool.state in ("inactive", "starting"):
        await trio.lowlevel.checkpoint()
        if pool.job is not None:
            await pool.job.finished.wait()
    return pool


@dataclass(frozen=True)
class Seen:
    """All that an outsider can see of a pool: items with their files, and the trash."""

    items: frozenset[tuple[str, str, int, frozenset[str]]]
    trash: frozenset[tuple[str, frozenset[str]]]


def storage(machine: SimulatedHost, pool: str = "tank") -> MemoryRoot:
    """The pool's storage, seen past every fault."""
    return MemoryRoot(machine.trees[place(pool)], place(pool))


def look(machine: SimulatedHost, pool: Pool) -> Seen:
    root = storage(machine, pool.name)

    def files(where: str) -> frozenset[str]:
        try:
            return frozenset(root.names(where))
        except OSError as error:
            return frozenset({f"errno {error.errno}"})

    return Seen(
        items=frozenset(
            (
                one.name,
                one.state.value,
                one.definition.permissions.mode or 0,
                files(one.definition.location),
            )
            for one in pool.items.values()
        ),
        trash=frozenset((one.name, files(layout.trashed_data(one.uuid))) for one in pool.trash.values()),
    )


def leftovers(machine: SimulatedHost, pool: Pool) -> list[str]:
    """What lies in the pool's storage without an owner, and what is owned and not there."""
    root = storage(machine, pool.name)
    expected = {
        layout.ITEMS: {f"{name}.xml" for name in pool.items},
        layout.TRASH: {
            place.removeprefix(f"{layout.TRASH}/")
            for one in pool.trash.values()
            for place in (layout.trashed_data(one.uuid), one.record)
        },
        layout.STAGING: set(),
    }
    wrong = [
        f"{where}/{name}"
        for where, names in expected.items()
        for name in names.symmetric_difference(root.names(where))
    ]
    owned = {one.definition.location.split("/")[0] for one in pool.items.values()} | {layout.OWN}
    # A directory that was there before is nobody's. Where storage fails, one above an item may stay, empty.
    strange = set(root.names("")) - owned - {"found"}
    return wrong + [name for name in strange if not _is_empty(root, name)]


def _is_empty(root: MemoryRoot, path: str) -> bool:
    return all(_is_empty(root, f"{path}/{name}") for name in root.names(path)) and path != "web"


@dataclass
class Recorder(Faults):
    """Faults that also count the calls that are made."""

    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def enter(self, operation: str, path: str) -> None:
        self.calls[operation] += 1
        super().enter(operation, path)


class FirstHangs(Faults):
    """The first call of one operation hangs, until it is released; all others go on."""

    def __init__(self) -> None:
        super().__init__()
        self._choosing = threading.Lock()
        self._victim = ""
        self._hang = Hang()

    def arm(self, operation: str) -> Hang:
        self._victim, self._hang = operation, Hang()
        return self._hang

    def enter(self, operation: str, path: str) -> None:
        with self._choosing:
            chosen = operation == self._victim
            if chosen:
                self._victim = ""
        if chosen:
            self._hang.wait()
        super().enter(operation, path)


class Users:
    """A finder that answers what a test says; `inside` is relative to the root."""

    def __init__(self) -> None:
        self.found: list[MountUse] = []

    def use(self, inside: str, *, pid: int = 4711, command: str = "busybox") -> None:
        self.found.append(MountUse(pid=pid, command=command, inside=inside, target="/data"))

    def uses(self, root_path: str, *, once: bool = False, lately: bool = False) -> list[MountUse]:
        return list(self.found)

    def forget(self) -> None:
        """Nothing is kept."""


async def until(service: Service, condition: Callable[[], bool], *, what: str) -> None:
    """Wait until `condition()` is true; not all that happens is an event, so look now and then as well."""
    changed = trio.Event()

    def hear(event: object) -> None:
        changed.set()

    service.events.listen(hear)
    with trio.move_on_after(LIMIT):
        while not condition():
            with trio.move_on_after(LOOK):
                await changed.wait()
            changed = trio.Event()
    assert condition(), what


Operation = Callable[[Service, Pool], Awaitable[None]]


async def hang(service: Service, pool: Pool, faults: FirstHangs, call: str, operation: Operation) -> Hang:
    """Start `operation`, whose `call` hangs; it has been told that it goes on."""
    hang = faults.arm(call)
    with pytest.raises(InProgressError):
        await operation(service, pool)
    assert hang.wait_until_entered(0), f"nothing hangs in {call}"
    return hang
