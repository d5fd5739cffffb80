"""Items: creating, defining, changing, renaming and cloning them, and requests for one item that meet."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
import trio

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    FspoolError,
    ImmutableError,
    InactiveError,
    InvalidError,
    NotFoundError,
)
from fspoolfs.model.definitions import ItemDefinition, ItemOrigin, Permissions
from fspoolfs.service import catalogue
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import (
    ROOT,
    active_pool,
    furnished_pool,
    item,
    leftovers,
    look,
    running_pool,
    storage,
)

UUID_1 = UUID("11111111-1111-4111-8111-111111111111")


async def test_a_new_item_is_an_empty_directory_with_its_owner_and_mode(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        wanted = item("web", uuid=UUID_1, permissions=Permissions(mode=0o2750, owner=1001, group=1002))
        made = await service.items.create(pool, wanted, ROOT, adopt=False)
        assert (made.state, made.uuid) == ("ready", UUID_1)
        info = storage(host).stat("web")
        assert (info.mode & 0o7777, info.owner, info.group) == (0o2750, 1001, 1002)
        assert storage(host).names("web") == []


async def test_items_outlive_the_service_exactly_as_they_were(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        for wanted in (
            item(
                "web",
                permissions=Permissions(mode=0o700, owner=5, group=6),
                metadata="<metadata><a/></metadata>",
            ),
            item("deep", path="/a/b/deep"),
        ):
            await service.items.create(pool, wanted, ROOT, adopt=False)
        await service.clones.clone_item(pool, pool.items["deep"], "copy", None, ROOT)
        before = {name: one.definition for name, one in pool.items.items()}
    async with running() as service:
        pool = await running_pool(service)
        assert {name: one.definition for name, one in pool.items.items()} == before
        assert pool.items["copy"].definition.origin == ItemOrigin(fs="deep")


@pytest.mark.parametrize(
    ("wanted", "number", "sentence"),
    [
        (item("web"), errno.EEXIST, "item web exists already in pool tank"),
        (item("found"), errno.EEXIST, "a directory is already at /found"),
        (item("new", path="/web"), errno.EEXIST, "item web is at /web"),
        (item("new", path="/web/inside"), errno.EEXIST, "item web is at /web"),
        (item("new", path="/.fspool/x"), errno.EINVAL, "belongs to fspoolfs"),
        (item("new", path="relative"), errno.EINVAL, "not absolute"),
        (item(".hidden"), errno.EINVAL, "begins with '.'"),
        (item("x" * 201), errno.EINVAL, "201 bytes long"),
        (item("new", pool="lake"), errno.EINVAL, "names pool lake"),
        (item("new", origin=ItemOrigin(fs="nothing")), errno.ENOENT, "no item nothing"),
        (item("new", origin=ItemOrigin(fs="web", snapshot="s")), errno.ENOENT, "no snapshot s"),
    ],
    ids=lambda value: value.name[:9] if isinstance(value, ItemDefinition) else None,
)
async def test_what_cannot_be_created_changes_nothing(
    wanted: ItemDefinition, number: int, sentence: str, running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = look(host, pool)
        with pytest.raises(FspoolError) as caught:
            await service.items.create(pool, wanted, ROOT, adopt=False)
        assert caught.value.errno == number
        assert sentence in caught.value.sentence
        assert look(host, pool) == before
        assert leftovers(host, pool) == []
        assert not pool.active().locks.held(wanted.name)


async def test_a_uuid_is_of_one_item_be_it_in_the_trash(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        for one, name in ((pool.items["web"], "web"), (pool.trash["old"], "old")):
            with pytest.raises(ExistsError, match=name):
                await service.items.create(pool, item("new", uuid=one.uuid), ROOT, adopt=False)


async def test_items_do_not_lie_in_one_another(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("deep", path="/a/b"), ROOT, adopt=False)
        for path in ("/a", "/a/b", "/a/b/c"):
            with pytest.raises(ExistsError):
                await service.items.create(pool, item("new", path=path), ROOT, adopt=False)
        await service.items.create(pool, item("new", path="/a/c"), ROOT, adopt=False)
        with pytest.raises(ExistsError, match="other items lie inside"):
            await service.items.create(pool, item("a"), ROOT, adopt=False)
        for name in ("deep", "new"):
            await service.trash.delete(pool, name)
        await service.items.create(pool, item("c", path="/a/b"), ROOT, adopt=False)


async def test_an_inactive_pool_makes_no_items(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        await service.lifecycle.stop(pool, ROOT)
        for request in (
            service.items.create(pool, item("new"), ROOT, adopt=False),
            service.items.redefine(pool, web, item("web"), ROOT),
            service.items.rename(pool, "web", "shop"),
            service.trash.delete(pool, "web"),
            service.trash.undelete(pool, "old", "back"),
            service.trash.purge(pool, "old"),
            service.clones.clone_item(pool, web, "copy", None, ROOT),
            service.clones.measure(pool, web),
        ):
            with pytest.raises(InactiveError, match="pool tank is inactive: start it first") as caught:
                await request
            assert caught.value.errno == errno.ENOMEDIUM


# -- define ---------------------------------------------------------------------------------------


async def test_a_definition_takes_a_directory_over_as_it_is(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        storage(host).set_attributes("found", mode=0o711, owner=7, group=8)
        found = await service.items.define(pool, item("found"), ROOT)
        assert found.definition.permissions == Permissions(mode=0o711, owner=7, group=8)
        assert storage(host).names("found") == ["found.txt"]


async def test_what_a_definition_leaves_out_stays(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = pool.items["web"].definition
        await service.items.define(pool, item("web", permissions=Permissions(mode=0o700)), ROOT)
        await service.items.define(pool, item("web", permissions=Permissions(group=9)), ROOT)
        after = pool.items["web"].definition
        assert (after.uuid, after.path) == (before.uuid, before.path)
        assert after.permissions == Permissions(mode=0o700, owner=before.permissions.owner, group=9)
        assert storage(host).stat("web").mode & 0o7777 == 0o700
        assert storage(host).stat("web").group == 9


@pytest.mark.parametrize(
    "wanted",
    [item("web", uuid=UUID_1), item("web", path="/elsewhere"), item("web", origin=ItemOrigin(fs="other"))],
)
async def test_what_can_never_change_is_refused(wanted: ItemDefinition, running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = pool.items["web"].definition
        with pytest.raises(ImmutableError):
            await service.items.define(pool, wanted, ROOT)
        assert pool.items["web"].definition == before
        await service.items.define(pool, item("web", uuid=before.uuid, path="/web"), ROOT)
        assert pool.items["web"].definition == before


async def test_a_document_with_another_name_renames_nothing(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        with pytest.raises(InvalidError, match="rename it with mv"):
            await service.items.redefine(pool, pool.items["web"], item("shop"), ROOT)


async def test_a_missing_item_is_neither_changed_nor_renamed(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        storage(host).rename("web", "moved-away")
        changed = item("web", permissions=Permissions(mode=0o700))
        for request in (
            service.items.define(pool, changed, ROOT),
            service.items.rename(pool, "web", "shop"),
        ):
            with pytest.raises(NotFoundError, match="/web is missing"):
                await request
        await service.lifecycle.refresh(pool, ROOT)
        assert pool.items["web"].state == "missing"
        with pytest.raises(BusyError, match="put it back and refresh"):
            await service.items.define(pool, changed, ROOT)
        storage(host).rename("moved-away", "web")
        await service.lifecycle.refresh(pool, ROOT)
        await service.items.define(pool, changed, ROOT)


# -- rename ---------------------------------------------------------------------------------------


async def test_a_renamed_item_is_the_same_and_its_directory_goes_along(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        uuid = web.uuid
        await service.items.rename(pool, "web", "shop")
        assert pool.items["shop"] is web
        assert (web.uuid, web.definition.location, web.state) == (uuid, "shop", "ready")
        assert storage(host).names("shop") == ["web.txt"]
        await service.items.rename(pool, "shop", "shop")
        assert leftovers(host, pool) == []


async def test_an_item_with_a_path_of_its_own_stays_there(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web", path="/a/b"), ROOT, adopt=False)
        await service.items.rename(pool, "web", "shop")
        assert pool.items["shop"].definition.path == "/a/b"
        assert storage(host).names("a") == ["b"]


async def test_names_can_be_exchanged_in_three_steps(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        for old, new in (("web", "x"), ("other", "web"), ("x", "other")):
            await service.items.rename(pool, old, new)
        assert storage(host).names("web") == ["other.txt"]
        assert storage(host).names("other") == ["web.txt"]


@pytest.mark.parametrize(
    ("new", "number"), [("other", errno.EEXIST), ("found", errno.EEXIST), ("-x", errno.EINVAL)]
)
async def test_an_item_is_not_renamed_to_what_is_taken_or_bad(
    new: str, number: int, running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = look(host, pool)
        with pytest.raises(FspoolError) as caught:
            await service.items.rename(pool, "web", new)
        assert caught.value.errno == number
        assert look(host, pool) == before
        assert not pool.active().locks.held("web")
        assert not pool.active().locks.held(new)


# -- clone and measure ----------------------------------------------------------------------------


async def test_a_clone_holds_the_same_and_is_an_item_of_its_own(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        await service.clones.clone_item(pool, web, "copy", None, ROOT)
        copy = pool.items["copy"]
        assert copy.uuid != web.uuid
        assert copy.definition.permissions == web.definition.permissions
        assert storage(host).names("copy") == ["web.txt"]
        storage(host).remove_file("copy/web.txt")
        assert storage(host).names("web") == ["web.txt"]


async def test_a_clone_that_fails_leaves_nothing(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = look(host, pool)
        host.faults.fail("copy_tree", errno.ENOSPC)
        with pytest.raises(FspoolError, match="No space left"):
            await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)
        assert look(host, pool) == before
        assert leftovers(host, pool) == []
        await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)


async def test_measuring_tells_what_an_item_holds(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        assert web.measured is None
        await service.clones.measure(pool, web)
        assert web.measured is not None
        assert web.measured.usage.inodes == 2
        assert web.measured.usage.allocation > 0


# -- requests that meet ---------------------------------------------------------------------------


async def test_what_happens_is_told_in_events(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        heard: list[tuple[str, str]] = []
        service.events.listen(lambda event: heard.append((event.kind, event.item)))
        await service.items.create(pool, item("new"), ROOT, adopt=False)
        await service.items.define(pool, item("new", permissions=Permissions(mode=0o700)), ROOT)
        await service.items.define(pool, item("new", permissions=Permissions(mode=0o700)), ROOT)
        await service.items.rename(pool, "new", "newer")
        await service.trash.delete(pool, "newer")
        await service.trash.undelete(pool, "newer", "back")
        with pytest.raises(ExistsError):
            await service.items.create(pool, item("found"), ROOT, adopt=False)
        assert heard == [
            ("item-created", "new"),
            ("item-changed", "new"),
            ("item-renamed", "newer"),
            ("item-deleted", "newer"),
            ("trash-restored", "newer"),
            ("item-created", "back"),
            ("item-failed", "found"),
        ]


async def test_the_definitions_in_the_pool_are_the_truth(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        storage(host).remove_file(layout.definition("web"))
        await service.lifecycle.refresh(pool, ROOT)
        assert set(pool.items) == {"other"}


async def _redefine(service: Service, pool: Pool) -> None:
    await service.items.define(pool, item("web", permissions=Permissions(mode=0o700)), ROOT)


async def _delete(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")


async def _replace(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")
    await service.items.create(pool, item("web"), ROOT, adopt=False)


async def _rename(service: Service, pool: Pool) -> None:
    await service.items.rename(pool, "web", "shop")


async def _create_for_a_moment(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "gone")


@pytest.mark.parametrize("change", [_redefine, _delete, _replace, _rename, _create_for_a_moment])
async def test_what_changes_while_a_refresh_reads_is_not_taken_back(
    change: Callable[[Service, Pool], Awaitable[None]], running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before the change is older than what the daemon knows."""
    async with running() as service:
        pool = await furnished_pool(service)
        load = catalogue.load_items

        async def begin() -> None:
            if change is _create_for_a_moment:
                await service.items.create(pool, item("gone"), ROOT, adopt=False)

        def load_before(root: RootDirectory) -> catalogue.Loaded:
            trio.from_thread.run(begin)
            loaded = load(root)
            trio.from_thread.run(change, service, pool)
            return loaded

        monkeypatch.setattr(catalogue, "load_items", load_before)
        await service.lifecycle.refresh(pool, ROOT)
        monkeypatch.undo()
        known = {name: there.definition for name, there in pool.items.items()}
        await service.lifecycle.refresh(pool, ROOT)
        assert known == {name: there.definition for name, there in pool.items.items()}
