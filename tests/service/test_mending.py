"""An item whose stored definition cannot be read, and the new definition that mends it."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from fspoolfs.backends import layout
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import AccessError, ExistsError, FspoolError, InvalidError, NotFoundError
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.service import reports
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import ALICE, BOB, ROOT, active_pool, item, running_pool, storage

UUID_1 = UUID("11111111-1111-4111-8111-111111111111")
OF_ALICE = Permissions(mode=0o750, owner=ALICE.uid, group=ALICE.gid)
JUNK = b"<fs><name>"


async def broken_pool(service: Service, host: SimulatedHost, **more: object) -> Pool:
    """A pool open to all, with ALICE's item `web` of which the definition is torn, and `other`."""
    pool = await active_pool(service, permissions=Permissions(mode=0o1777))
    await service.items.create(pool, item("web", permissions=OF_ALICE, **more), ROOT, adopt=False)
    await service.items.create(pool, item("other"), ROOT, adopt=False)
    root = storage(host)
    root.write(f"{pool.items['web'].definition.location}/file", b"data", replace=False, durable=False)
    root.write(layout.definition("web"), JUNK, replace=True, durable=True)
    await service.lifecycle.refresh(pool, ROOT)
    assert pool.items["web"].state == "failed"
    return pool


async def test_it_has_the_owner_and_mode_of_its_directory(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await broken_pool(service, host)
        assert pool.items["web"].definition.permissions == OF_ALICE
        assert f"Owner:          {ALICE.uid}:{ALICE.gid}" in reports.item_info(pool, pool.items["web"], None)
        await service.trash.delete(pool, "web")
        await service.trash.undelete(pool, "web", "web")
        assert pool.items["web"].state == "ready"
    async with running() as service:
        pool = await running_pool(service)
        assert pool.items["web"].definition.permissions == OF_ALICE


async def test_where_its_directory_is_not_known_it_has_none(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await broken_pool(service, host, path="/a/b")
        info = reports.item_info(pool, pool.items["web"], None)
        assert "None" not in info
        assert "Owner" not in info


@pytest.mark.parametrize("caller", [ROOT, ALICE])
@pytest.mark.parametrize("uuid", [None, UUID_1, "its own"])
async def test_a_good_document_takes_its_directory_over_again(
    running: Running, host: SimulatedHost, caller: Caller, uuid: UUID | str | None
) -> None:
    async with running() as service:
        pool = await broken_pool(service, host)
        web = pool.items["web"]
        kept = web.uuid
        wanted = kept if isinstance(uuid, str) else uuid
        await service.items.define(pool, item("web", uuid=wanted), caller)
        assert pool.items["web"] is web
        assert (web.state, web.error, web.problem, web.unreadable) == ("ready", None, None, False)
        assert (web.uuid, web.definition.permissions) == (wanted or kept, OF_ALICE)
        # It is an item like any other from now on.
        await service.items.redefine(pool, web, item("web", permissions=Permissions(mode=0o700)), caller)
        before = web.definition
    async with running() as service:
        pool = await running_pool(service)
        assert (pool.items["web"].state, pool.items["web"].definition) == ("ready", before)
        assert storage(host).names("web") == ["file"]


async def test_what_the_document_says_holds(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await broken_pool(service, host)
        wanted = item("web", permissions=Permissions(mode=0o711), capacity=1 << 20)
        await service.items.redefine(pool, pool.items["web"], wanted, ROOT)
        assert pool.items["web"].definition.permissions.mode == 0o711
        account = storage(host).tree.account("web")
        assert account is not None
        assert account.capacity == 1 << 20


async def test_its_path_can_be_said(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await broken_pool(service, host, path="/a/b")
        with pytest.raises(NotFoundError, match="say with <path> where it lies"):
            await service.items.define(pool, item("web"), ROOT)
        assert pool.items["web"].state == "failed"
        await service.items.define(pool, item("web", path="/a/b"), ROOT)
        assert pool.items["web"].definition.location == "a/b"
        with pytest.raises(ExistsError, match="item web is at /a/b"):
            await service.items.create(pool, item("new", path="/a/b"), ROOT, adopt=False)
        await service.items.create(pool, item("new", path="/web"), ROOT, adopt=False)


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (item("shop"), InvalidError),
        (item("web", path="/other"), ExistsError),
        (item("web", path="/other/inside"), ExistsError),
        (item("web", path="relative"), InvalidError),
    ],
)
async def test_a_document_that_cannot_be_its_definition_changes_nothing(
    running: Running, host: SimulatedHost, wanted: ItemDefinition, kind: type[FspoolError]
) -> None:
    async with running() as service:
        pool = await broken_pool(service, host)
        web = pool.items["web"]
        with pytest.raises(kind):
            await service.items.redefine(pool, web, wanted, ROOT)
        assert (web.state, web.unreadable) == ("failed", True)
        await service.items.redefine(pool, web, item("web"), ROOT)


async def test_it_is_mended_by_its_owner_or_who_administers(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await broken_pool(service, host)
        with pytest.raises(AccessError, match="belongs to another user"):
            await service.items.define(pool, item("web"), BOB)
        with pytest.raises(AccessError, match="the pool owner's to choose"):
            await service.items.define(pool, item("web", capacity=1 << 40), ALICE)
        assert pool.items["web"].state == "failed"


async def test_what_cannot_be_mended_is_as_broken_as_before_after_a_crash_too(
    running: Running, host: SimulatedHost
) -> None:
    definition = layout.definition("web")
    machine = host
    async with running() as service:
        pool = await broken_pool(service, host)
        # Or the journal would still know the definition.
        await service.lifecycle.stop(pool, ROOT)
        await service.lifecycle.start(pool, ROOT)
        host.faults.fail("write", errno.ENOSPC, path=definition)
        with pytest.raises(FspoolError, match="No space left"):
            await service.items.define(pool, item("web", permissions=Permissions(mode=0o711)), ROOT)
        web = pool.items["web"]
        assert (web.state, web.unreadable) == ("failed", True)
        assert "web.xml" in str(web.problem)
        machine = SimulatedHost(trees={path: tree.power_cut() for path, tree in host.trees.items()})
    async with running(machine) as service:
        pool = await running_pool(service)
        assert (pool.items["web"].state, pool.items["web"].definition.permissions) == ("failed", OF_ALICE)
        assert storage(machine).read(definition, limit=100) == JUNK
        await service.items.define(pool, item("web"), ROOT)
