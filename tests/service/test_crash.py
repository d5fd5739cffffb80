"""The crash contract, with every place to crash at taken in turn, on simulated storage.

Each operation is run once to count the changes that it makes to the storage, and then again and
again, killed before or after each of them. What the next service finds must be the state before or
the state after, and the state after when the operation had returned success. A power cut keeps an
arbitrary part of what was not synced.
"""

from __future__ import annotations

import errno
import random
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from trio.testing import wait_all_tasks_blocked

from fspoolfs.backends import layout
from fspoolfs.backends.memory import MemoryRoot
from fspoolfs.backends.simulator import SimulatedCrash, SimulatedHost
from fspoolfs.errors import FspoolError
from fspoolfs.model.definitions import ItemDefinition, Permissions, PoolDefinition, PoolType, TrashPolicy
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool, TrashEntry

from .conftest import ROOT, Running

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

TARGET = "/storage/pools/tank"


@pytest.fixture(autouse=True)
def _quiet_crashes() -> Iterator[None]:
    """A thread that ends by the simulated crash is what the test asked for."""
    usual = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, SimulatedCrash):
            usual(arguments)

    threading.excepthook = hook
    yield
    threading.excepthook = usual


def item(name: str, **more: object) -> ItemDefinition:
    return ItemDefinition(name=name, **more)  # type: ignore[arg-type]


async def create(service: Service, pool: Pool) -> None:
    await service.items.create(pool, item("new"), ROOT, adopt=False)


async def create_deep(service: Service, pool: Pool) -> None:
    await service.items.create(pool, item("new", path="/customers/a/new"), ROOT, adopt=False)


async def adopt(service: Service, pool: Pool) -> None:
    await service.items.define(pool, item("found"), ROOT)


async def change(service: Service, pool: Pool) -> None:
    await service.items.redefine(
        pool, pool.items["web"], item("web", permissions=Permissions(mode=0o700)), ROOT
    )


async def mend(service: Service, pool: Pool) -> None:
    """The definition is torn, which is noticed, and given anew."""
    pool.active().root.write(layout.definition("web"), b"<fs>", replace=True, durable=True)
    await service.lifecycle.refresh(pool, ROOT)
    await service.items.define(pool, item("web", permissions=Permissions(mode=0o700)), ROOT)


async def resize(service: Service, pool: Pool) -> None:
    await service.items.set_capacity(pool, pool.items["web"], 1 << 20, ROOT)


async def rename(service: Service, pool: Pool) -> None:
    await service.items.rename(pool, "web", "shop")


async def rename_chain(service: Service, pool: Pool) -> None:
    await service.items.rename(pool, "web", "shop")
    await service.items.rename(pool, "other", "web")
    await service.items.rename(pool, "shop", "other")


async def delete(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")


async def delete_for_good(service: Service, pool: Pool) -> None:
    await service.pools.define(
        PoolDefinition(name="tank", type=PoolType.DIR, trash=TrashPolicy(retention=0)), ROOT
    )
    await service.trash.delete(pool, "web")


#: Operations after which the trash empties itself, sooner or later.
FORGETTING = (delete_for_good,)


async def delete_and_create_again(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")
    await service.items.create(pool, item("web"), ROOT, adopt=False)
    await service.trash.delete(pool, "web")


async def delete_deep(service: Service, pool: Pool) -> None:
    await create_deep(service, pool)
    await service.trash.delete(pool, "new")


async def undelete_deep(service: Service, pool: Pool) -> None:
    await delete_deep(service, pool)
    await service.trash.undelete(pool, "new", "new")


async def take_the_place_above(service: Service, pool: Pool) -> None:
    """What was above an item is one itself afterwards, and an empty one."""
    await delete_deep(service, pool)
    await service.items.create(pool, item("a"), ROOT, adopt=False)
    await service.items.rename(pool, "a", "customers")


async def undelete(service: Service, pool: Pool) -> None:
    await service.trash.undelete(pool, "old", "back")


async def purge(service: Service, pool: Pool) -> None:
    await service.trash.purge(pool, "old")


async def clone(service: Service, pool: Pool) -> None:
    await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)


async def snapshot(service: Service, pool: Pool) -> None:
    await service.snapshots.take(pool, pool.items["web"], "new")


async def rename_snapshot(service: Service, pool: Pool) -> None:
    await service.snapshots.rename(pool, pool.items["other"], "kept", "renamed")


async def delete_snapshot(service: Service, pool: Pool) -> None:
    await service.snapshots.delete(pool, pool.items["other"], "kept")


async def roll_back(service: Service, pool: Pool) -> None:
    await service.snapshots.roll_back(pool, pool.items["other"], "kept")


async def roll_back_and_change(service: Service, pool: Pool) -> None:
    await service.snapshots.roll_back(pool, pool.items["other"], "kept")
    await service.items.rename(pool, "other", "shop")
    await service.trash.delete(pool, "shop")


async def clone_snapshot(service: Service, pool: Pool) -> None:
    await service.clones.clone_item(pool, pool.items["other"], "copy", "kept", ROOT)


async def delete_with_snapshots(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "other")


async def undelete_with_snapshots(service: Service, pool: Pool) -> None:
    await service.trash.undelete(pool, "old", "back")
    await service.snapshots.roll_back(pool, pool.items["back"], "kept")


async def purge_with_snapshots(service: Service, pool: Pool) -> None:
    await service.trash.purge(pool, "old")


Operation = Callable[[Service, Pool], Awaitable[None]]
OPERATIONS: list[Operation] = [
    create,
    create_deep,
    adopt,
    change,
    mend,
    resize,
    rename,
    rename_chain,
    delete,
    delete_for_good,
    delete_and_create_again,
    delete_deep,
    undelete_deep,
    take_the_place_above,
    undelete,
    purge,
    clone,
    snapshot,
    rename_snapshot,
    delete_snapshot,
    roll_back,
    roll_back_and_change,
    clone_snapshot,
    delete_with_snapshots,
    undelete_with_snapshots,
    purge_with_snapshots,
]


#: Snapshots by name, without the time that is in some names, with what they hold.
Kept = frozenset[tuple[str, frozenset[str]]]


@dataclass(frozen=True)
class Seen:
    """All that an outsider can see of a pool: items with their files, and the trash."""

    items: frozenset[tuple[str, str, int, frozenset[str], Kept]]
    trash: frozenset[tuple[str, frozenset[str], Kept]]

    def items_only(self) -> Seen:
        return replace(self, trash=frozenset())


def files(machine: SimulatedHost, place: str) -> frozenset[str]:
    return frozenset(MemoryRoot(machine.trees[TARGET], TARGET).names(place))


def kept(machine: SimulatedHost, owner: Item | TrashEntry) -> Kept:
    return frozenset(
        (re.sub(r"\d{8}-\d{6}", "", one.name), files(machine, layout.snapshot(owner.uuid, one.entry)))
        for one in owner.snapshots.values()
        if one.job is None
    )


def look(machine: SimulatedHost, pool: Pool) -> Seen:
    return Seen(
        items=frozenset(
            (
                one.name,
                one.state,
                one.definition.permissions.mode or 0,
                files(machine, one.definition.location),
                kept(machine, one),
            )
            for one in pool.items.values()
        ),
        trash=frozenset(
            (one.name.split("@")[0], files(machine, layout.trashed_data(one.uuid)), kept(machine, one))
            for one in pool.trash.values()
        ),
    )


def check_nothing_is_left_over(machine: SimulatedHost, pool: Pool) -> None:
    """Every directory belongs to an item, with its limits, and every definition to a directory."""
    root = MemoryRoot(machine.trees[TARGET], TARGET)
    for one in pool.items.values():
        account = root.tree.account(one.definition.location)
        assert account is not None
        assert account.capacity == one.definition.capacity
    owned = {one.definition.location.split("/")[0] for one in pool.items.values()}
    assert set(root.names("")) <= owned | {layout.OWN, "found"}
    assert {name.removesuffix(".xml") for name in root.names(layout.ITEMS)} == set(pool.items)
    trashed = {place for one in pool.trash.values() for place in (layout.trashed_data(one.uuid), one.record)}
    assert {f"{layout.TRASH}/{name}" for name in root.names(layout.TRASH)} == trashed
    assert root.names(layout.STAGING) == []
    snapshots = {
        layout.snapshot(owner.uuid, one.entry)
        for owner in (*pool.items.values(), *pool.trash.values())
        for one in owner.snapshots.values()
    }
    found = {
        f"{layout.SNAPSHOTS}/{uuid}/{entry}"
        for uuid in root.names(layout.SNAPSHOTS)
        for entry in root.names(f"{layout.SNAPSHOTS}/{uuid}")
    }
    assert found == snapshots


async def prepare(service: Service, machine: SimulatedHost) -> Pool:
    """A pool with two items, one thing in the trash, and a directory that is no item yet."""
    await service.pools.define(PoolDefinition(name="tank", type=PoolType.DIR), ROOT)
    pool = service.pools.find("tank")
    await service.lifecycle.start(pool, ROOT, build=True)
    root = pool.active().root
    for name in ("web", "other", "old"):
        await service.items.create(pool, item(name), ROOT, adopt=False)
        root.write(f"{name}/{name}.txt", b"data", replace=False, durable=False)
    for name in ("other", "old"):
        await service.snapshots.take(pool, pool.items[name], "kept")
        root.write(f"{name}/later.txt", b"data", replace=False, durable=False)
    await service.trash.delete(pool, "old")
    root.make_directory("found", mode=0o755)
    root.write("found/found.txt", b"data", replace=False, durable=False)
    root.sync()
    return pool


async def prepared(running: Running, state: str) -> SimulatedHost:
    machine = SimulatedHost()
    async with running(machine, state=state) as service:
        await prepare(service, machine)
    return machine


async def after_restart(running: Running, machine: SimulatedHost, state: str) -> Seen:
    async with running(machine, state=state) as service:
        pool = service.pools.find("tank")
        await pool_is_active(service, pool)
        check_nothing_is_left_over(machine, pool)
        return look(machine, pool)


async def pool_is_active(service: Service, pool: Pool) -> None:
    """The service starts it by itself, since it was active; or it was never told so."""
    await wait_all_tasks_blocked()
    if pool.job is not None:
        await pool.job.finished.wait()
    if pool.state != "active":
        await service.lifecycle.start(pool, ROOT)


async def attempt(
    running: Running, machine: SimulatedHost, state: str, operation: Operation, at: int, *, after: bool
) -> bool:
    """Run `operation`, the machine crashing at its change number `at`; whether it returned success."""
    succeeded = False
    try:
        async with running(machine, state=state) as service:
            pool = service.pools.find("tank")
            await pool_is_active(service, pool)
            machine.faults.crash_at(at, after=after)
            try:
                await operation(service, pool)
                succeeded = True
            except FspoolError:
                assert machine.faults.crashed
            machine.faults.crash()
    except BaseExceptionGroup as group:
        _, rest = group.split(SimulatedCrash)
        assert rest is None, rest
    return succeeded


async def whole_run(running: Running, operation: Operation) -> tuple[list[Seen], int]:
    """What is seen before and after, also after each part of an operation of several; the changes."""
    machine = await prepared(running, "whole")
    seen = []
    async with running(machine, state="whole") as service:
        pool = service.pools.find("tank")
        await pool_is_active(service, pool)
        seen.append(look(machine, pool))
        service.events.listen(lambda event: seen.append(look(machine, pool)))
        begun = machine.faults.mutations
        await operation(service, pool)
        changes = machine.faults.mutations - begun
        seen.append(look(machine, pool))
    return seen, changes


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
async def test_an_operation_happens_whole_or_not_at_all(
    operation: Operation, power: bool, running: Running
) -> None:
    await check_at_every_change(operation, power, running)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("operation", [roll_back, roll_back_and_change], ids=lambda one: one.__name__)
async def test_rolling_back_where_nothing_can_be_exchanged(
    operation: Operation, power: bool, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: MemoryRoot, one: str, other: str) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(MemoryRoot, "exchange", refuse)
    await check_at_every_change(operation, power, running)


async def check_at_every_change(operation: Operation, power: bool, running: Running) -> None:
    seen, changes = await whole_run(running, operation)
    assert changes >= 2
    for at in range(1, changes + 1):
        for after in (False, True):
            state = f"{at}{after}"
            machine = await prepared(running, state)
            succeeded = await attempt(running, machine, state, operation, at, after=after)
            found = machine.power_cut(random.Random(at)) if power else machine.killed()
            now = await after_restart(running, found, state)
            # Recovering once more changes nothing.
            again = await after_restart(running, found, state)
            if operation in FORGETTING:
                seen, now, again = [one.items_only() for one in seen], now.items_only(), again.items_only()
            assert now in seen, (at, after)
            if succeeded:
                assert now == seen[-1], (at, after)
            assert again == now, (at, after)
