"""Who may do what beyond the kernel's mode bits: users, objects and requests in one table."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable

import pytest

from fspoolfs.errors import AccessError
from fspoolfs.model.definitions import Permissions
from fspoolfs.service import access
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import ALICE, BOB, ROOT, active_pool, dir_pool, item

#: A member of alice's group, which is the pool's.
MEMBER = Caller(uid=1003, gid=9, groups=lambda: frozenset({1001}))
#: Whose group by login is the pool's.
LOGGED_IN = Caller(uid=1004, gid=1001)
WHO = {"root": ROOT, "owner": ALICE, "member": MEMBER, "login": LOGGED_IN, "other": BOB}


def in_table(uid: int, gid: int) -> Permissions:
    return Permissions(mode=0o755, owner=uid, group=gid)


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        (0o755, {"root", "owner"}),
        (0o700, {"root", "owner"}),
        (0o775, {"root", "owner", "member", "login"}),
        (0o777, set(WHO)),
        (0o1777, set(WHO)),
        (0o757, {"root", "owner", "other"}),
        (0o733, set(WHO)),
        (0o666, {"root"}),
        (0o555, {"root"}),
        (0o277, {"root", "member", "login", "other"}),
    ],
    ids=lambda value: f"{value:04o}" if isinstance(value, int) else None,
)
def test_who_may_create_items_is_who_may_write_in_a_directory_of_that_mode(
    mode: int, allowed: set[str]
) -> None:
    permissions = Permissions(mode=mode, owner=1001, group=1001)
    assert {name for name, caller in WHO.items() if access.may_write_items(permissions, caller)} == allowed


Request = Callable[[Service, Pool, Caller], Awaitable[object]]


def owned_by(owner: int | None = None, group: int | None = None) -> Request:
    def create(service: Service, pool: Pool, caller: Caller) -> Awaitable[object]:
        wanted = item("new", permissions=Permissions(owner=owner, group=group))
        return service.items.define(pool, wanted, caller)

    return create


def change(**permissions: int) -> Request:
    """Change bob's item."""

    def redefine(service: Service, pool: Pool, caller: Caller) -> Awaitable[object]:
        return service.items.define(pool, item("bobs", permissions=Permissions(**permissions)), caller)

    return redefine


def set_limits(service: Service, pool: Pool, caller: Caller) -> Awaitable[object]:
    return service.items.define(pool, item("bobs", limits=(("io.max", "rbps=1"),)), caller)


def set_capacity(service: Service, pool: Pool, caller: Caller) -> Awaitable[object]:
    return service.items.set_capacity(pool, pool.items["bobs"], 1 << 30, caller)


def clone_bobs(service: Service, pool: Pool, caller: Caller) -> Awaitable[object]:
    return service.clones.clone_item(pool, pool.items["bobs"], "copy", None, caller)


#: Request by request: who is let in to a pool of mode 0777 that is alice's, with an item of bob's.
TABLE: dict[str, tuple[Request, set[str]]] = {
    "create": (owned_by(), set(WHO)),
    "create for alice": (owned_by(owner=1001), {"root", "owner"}),
    "create for bob": (owned_by(owner=1002), {"root", "other"}),
    "create for root": (owned_by(owner=0), {"root"}),
    "create for alice's group": (owned_by(group=1001), {"root", "owner", "member", "login"}),
    "create for root's group": (owned_by(group=0), {"root"}),
    "change bob's mode": (change(mode=0o700), {"root", "owner", "other"}),
    "change bob's group to his own": (change(group=1002, mode=0o711), {"root", "owner", "other"}),
    "change bob's group to alice's": (change(group=1001), {"root", "owner"}),
    "give bob's to a stranger": (change(owner=1234), {"root", "owner"}),
    "clone bob's": (clone_bobs, {"root", "other"}),
}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("what", TABLE)
async def test_each_request_is_for_those_whom_it_concerns(what: str, who: str, running: Running) -> None:
    request, allowed = TABLE[what]
    async with running() as service:
        permissions = Permissions(mode=0o777, owner=1001, group=1001)
        pool = await active_pool(service, permissions=permissions)
        await service.items.create(pool, item("bobs"), BOB, adopt=False)
        before = pool.items["bobs"].definition
        if who in allowed:
            await request(service, pool, WHO[who])
            return
        with pytest.raises(AccessError, match=rf"user {WHO[who].uid} may not"):
            await request(service, pool, WHO[who])
        assert set(pool.items) == {"bobs"}
        assert pool.items["bobs"].definition == before


@pytest.mark.parametrize("request_made", [set_capacity, set_limits])
@pytest.mark.parametrize("who", ["member", "login", "other"])
async def test_what_an_item_may_use_is_the_pool_owner_s_to_say(
    who: str, request_made: Request, running: Running
) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001, group=1001))
        await service.items.create(pool, item("bobs"), BOB, adopt=False)
        with pytest.raises(AccessError):
            await request_made(service, pool, WHO[who])
        with pytest.raises(AccessError, match="capacity"):
            await service.items.create(pool, item("new", capacity=1 << 30), WHO[who], adopt=False)


async def test_an_item_is_its_creator_s(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001, group=50))
        await service.items.create(pool, item("bobs"), BOB, adopt=False)
        assert pool.items["bobs"].definition.permissions == in_table(1002, 1002)


async def test_in_a_pool_with_the_set_group_id_bit_items_get_its_group(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o2777, owner=1001, group=50))
        await service.items.create(pool, item("bobs"), BOB, adopt=False)
        assert pool.items["bobs"].definition.permissions == in_table(1002, 50)


async def test_nobody_takes_a_directory_over_that_is_not_his(running: Running) -> None:
    """Adopting a directory gives its owner's data into the adopter's control."""
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777))
        root = pool.active().root
        root.make_directory("found", mode=0o700)
        root.write("found/secret", b"root's", replace=False, durable=False)
        with pytest.raises(AccessError):
            await service.items.define(pool, item("found"), ALICE)
        with pytest.raises(AccessError):
            await service.items.define(
                pool, item("found", permissions=Permissions(mode=0o777, owner=1001)), ALICE
            )
        assert pool.items == {}
        assert root.stat("found").mode & 0o7777 == 0o700


async def test_a_pool_that_is_not_mentioned_is_the_daemon_s(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        assert access.pool_permissions(pool.definition.permissions) == (0o755, os.geteuid(), os.getegid())
        with pytest.raises(AccessError, match="user 1001 may not create items in pool tank"):
            await service.items.create(pool, item("new"), ALICE, adopt=False)


def as_daemon_of(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspoolfs.service.access.os.geteuid", lambda: uid)


def test_a_user_s_daemon_gives_items_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    as_daemon_of(1001, monkeypatch)
    assert ALICE.administers
    assert ROOT.administers
    assert not BOB.administers
    access.check_owner(Permissions(owner=1001), ALICE)
    for caller in (ALICE, ROOT):
        with pytest.raises(AccessError, match="the daemon runs as user 1001"):
            access.check_owner(Permissions(owner=1002), caller)


async def test_supplementary_groups_are_looked_up_only_when_they_matter(running: Running) -> None:
    asked: list[int] = []

    def groups() -> frozenset[int]:
        asked.append(threading.get_ident())
        return frozenset()

    caller = Caller(uid=1005, gid=1005, groups=groups)
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1005))
        await service.items.create(pool, item("new"), caller, adopt=False)
        assert asked == []


async def test_an_item_s_owner_cannot_redefine_the_pool(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777))
        await service.items.create(pool, item("bobs"), BOB, adopt=False)
        with pytest.raises(AccessError):
            await service.define(dir_pool("tank", permissions=Permissions(owner=1002)), BOB)
