"""Definitions of pools given again, or in conflict with others, and what the host remembers of them."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing

from fspoolfs.backends.simulator import Hang, SimulatedHost, SimulatedSource
from fspoolfs.errors import (
    ExistsError,
    FspoolError,
    ImmutableError,
    InvalidError,
    UnsupportedError,
)
from fspoolfs.model.definitions import Permissions, PoolDefinition, PoolSource, PoolType, TrashPolicy

from .conftest import Running
from .scenes import (
    LIMIT,
    ROOT,
    active_pool,
    dir_pool,
    place,
    until,
)

UUID_1 = UUID("11111111-1111-4111-8111-111111111111")


@pytest.mark.parametrize(
    "wanted",
    [
        dir_pool("lake", target="/storage/pools/tank"),
        dir_pool("lake", target="/storage/pools"),
        dir_pool("lake", target="/storage/pools/tank/items/x"),
        dir_pool("lake", target="/storage//pools/tank/"),
        dir_pool("lake", uuid=UUID_1),
    ],
)
async def test_a_pool_in_conflict_with_another_is_refused_naming_it(
    wanted: PoolDefinition, running: Running
) -> None:
    async with running() as service:
        tank = await service.pools.define(dir_pool("tank", uuid=UUID_1), ROOT)
        with pytest.raises(ExistsError, match="pool tank"):
            await service.pools.define(wanted, ROOT)
        assert [pool.name for pool in service.pools] == ["tank"]
        await service.pools.undefine(tank, ROOT)
        await service.pools.define(wanted, ROOT)


async def test_a_definition_is_taken_where_its_storage_does_not_answer_in_time(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be looked at now is for build and start to judge; nobody waits for it."""
    hang = Hang()
    monkeypatch.setattr(SimulatedSource, "check", lambda source, definition: hang.wait())
    async with running(grace=0.05) as service:
        with hang, trio.fail_after(LIMIT):
            pool = await service.pools.define(dir_pool("tank"), ROOT)
        assert pool.real_target == place("tank")


async def test_pools_defined_at_the_same_time_see_each_other(running: Running) -> None:
    async with running() as service:
        ends: list[int] = []

        async def define(name: str) -> None:
            try:
                await service.pools.define(dir_pool(name, target="/storage/one"), ROOT)
                ends.append(0)
            except ExistsError as error:
                ends.append(error.errno)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(define, f"p{number}")
        assert sorted(ends) == [0, *[errno.EEXIST] * 4]


async def test_a_pool_whose_kind_nothing_serves_can_be_defined_and_says_what_is_missing(
    running: Running,
) -> None:
    source = PoolSource(pool="images", volume="vol1", format="ext4")
    async with running() as service:
        pool = await service.pools.define(
            PoolDefinition(name="vol", type=PoolType.VOLUME, source=source), ROOT
        )
        with pytest.raises(UnsupportedError, match="no backend in this version"):
            await service.lifecycle.start(pool, ROOT)
        with pytest.raises(ExistsError, match="its source is pool vol's already"):
            await service.pools.define(PoolDefinition(name="vol2", type=PoolType.VOLUME, source=source), ROOT)


async def test_what_can_change_live_does_and_the_rest_waits_for_the_next_start(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        wanted = dir_pool(
            "tank",
            target="/storage/elsewhere",
            permissions=Permissions(mode=0o1777),
            trash=TrashPolicy(retention=0),
        )
        await service.pools.define(wanted, ROOT)
        assert pool.definition.permissions.mode == 0o1777
        assert pool.definition.trash.retention == 0
        assert pool.target == place("tank")
        waiting = pool.pending
        assert waiting is not None
        await service.lifecycle.stop(pool, ROOT)
        await service.lifecycle.start(pool, ROOT, build=True)
        assert (pool.target, pool.pending) == ("/storage/elsewhere", None)


async def test_what_can_never_change_is_refused(running: Running) -> None:
    async with running() as service:
        pool = await service.pools.define(dir_pool("tank"), ROOT)
        with pytest.raises(ImmutableError):
            await service.pools.define(dir_pool("tank", uuid=UUID_1), ROOT)
        with pytest.raises(InvalidError, match="defines pool lake, not tank"):
            await service.pools.redefine(pool, dir_pool("lake"), ROOT)
        with pytest.raises(ExistsError, match="defined already"):
            await service.pools.define(dir_pool("tank"), ROOT, new=True)


async def test_a_definition_that_cannot_be_stored_changes_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        before = pool.definition

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "x")

        monkeypatch.setattr("fspoolfs.service.store.atomic.write_file", fail)
        for definition in (dir_pool("tank", trash=TrashPolicy(retention=0)), dir_pool("lake")):
            with pytest.raises(FspoolError, match="No space left on device") as caught:
                await service.pools.define(definition, ROOT)
            assert caught.value.errno == errno.ENOSPC
        assert pool.definition == before
        assert service.pools.get("lake") is None


async def test_pools_outlive_the_service(running: Running) -> None:
    async with running() as service:
        await active_pool(service, "on")
        off = await active_pool(service, "off")
        await service.lifecycle.stop(off, ROOT)
        waiting = await active_pool(service, "waiting")
        await service.pools.define(dir_pool("waiting", target="/storage/elsewhere"), ROOT)
        automatic = await active_pool(service, "automatic")
        await service.pools.set_autostart(automatic, ROOT, autostart=True)
        await service.lifecycle.stop(automatic, ROOT)
        before = {pool.name: (pool.definition, pool.autostart) for pool in service.pools}
    async with running() as service:
        await until(service, lambda: service.pools.find("on").state == "active", what="it was active")
        await until(service, lambda: service.pools.find("automatic").state == "active", what="autostart")
        assert service.pools.find("off").state == "inactive"
        after = {pool.name: (pool.definition, pool.autostart) for pool in service.pools}
        waiting = service.pools.find("waiting")
        # It goes on as it was: a daemon that is started anew is no start of the pool.
        assert waiting.pending is not None
        assert waiting.pending.target == "/storage/elsewhere"
        assert after == before


async def test_a_definition_that_waits_comes_into_force_when_the_pool_is_stopped(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await service.pools.define(dir_pool("tank", target="/storage/elsewhere"), ROOT)
        waiting = pool.pending
        assert waiting is not None
        await service.lifecycle.stop(pool, ROOT)
        assert (pool.target, pool.pending) == ("/storage/elsewhere", None)
    async with running() as service:
        assert service.pools.find("tank").target == "/storage/elsewhere"


async def test_after_a_boot_only_pools_with_autostart_are_started(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as service:
        await active_pool(service, "on")
        automatic = await active_pool(service, "automatic")
        await service.pools.set_autostart(automatic, ROOT, autostart=True)
    monkeypatch.setattr("fspoolfs.service.store._boot_id", lambda: b"another boot\n")
    async with running() as service:
        await until(service, lambda: service.pools.find("automatic").state == "active", what="autostart")
        assert service.pools.find("on").state == "inactive"


async def test_a_definition_that_cannot_be_read_hides_no_other_pool(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as service:
        await active_pool(service, "good")
        await active_pool(service, "bad")
    stored = tmp_path / "state" / "pools" / "bad.xml"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:40])
    async with running() as service:
        await until(service, lambda: service.pools.find("good").state == "active", what="the good one runs")
        bad = service.pools.find("bad")
        assert bad.state == "failed"
        with pytest.raises(FspoolError, match=r"bad\.xml"):
            await service.lifecycle.start(bad, ROOT)
        await service.pools.define(dir_pool("bad"), ROOT)
        assert service.pools.find("bad").state == "inactive"
    assert "bad.xml" in caplog.text


async def test_a_deletion_that_was_interrupted_is_finished(
    running: Running, host: SimulatedHost, tmp_path: Path
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        service.store.begin_deletion("tank")
    async with running() as service:
        await until(service, lambda: place("tank") not in host.trees, what="it is deleted")
    assert list((tmp_path / "state" / "deleting").iterdir()) == []
