"""A daemon that simulates its storage touches no disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, request, value
from support.daemon import Daemon, MakeDaemon, define_tank
from support.leaks import mark
from support.needs import needs_fuse, needs_root
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]


def test_a_simulated_daemon_touches_no_disk(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--sim")
    tree = ControlTree(daemon)
    pool = tree.active_pool()
    item = tree.new_item(pool)
    request(item / "status", "clone copy")
    request(pool / "autostart", "1")
    item.rmdir()
    assert set(os.listdir(pool / "items")) == {"copy"}
    for directory in (daemon.state, daemon.storage):
        assert [path for path in directory.rglob("*") if path.is_file()] == []


def test_a_simulated_daemon_leaves_real_pools_alone(make_daemon: MakeDaemon) -> None:
    """Looking around must not start, stop or redefine what a real daemon has defined."""
    real = make_daemon()
    request(define_tank(real.mount) / "status", "start build")
    (real.mount / "pools" / "tank" / "items" / "web").mkdir()
    real.stop()
    before = {path: path.read_bytes() for path in real.state.rglob("*") if path.is_file()}
    simulated = Daemon(real.base / "sim", options=("--sim",), env={}, user=None)
    simulated.state = real.state
    simulated.start()
    try:
        assert os.listdir(simulated.mount / "pools") == []
        define_tank(simulated.mount)
    finally:
        simulated.stop()
    assert {path: path.read_bytes() for path in real.state.rglob("*") if path.is_file()} == before
    real.start()
    eventually(lambda: value(real.mount / "pools" / "tank" / "status") == "active", what="it is active")
    assert os.listdir(real.mount / "pools" / "tank" / "items") == ["web"]


def test_a_simulated_pool_that_is_defined_again_has_its_items_as_a_real_one_has(
    make_daemon: MakeDaemon,
) -> None:
    for options in ([], ["--sim"]):
        pool = define_tank(make_daemon(*options).mount)
        request(pool / "status", "start build")
        (pool / "items" / "web").mkdir()
        request(pool / "status", "stop")
        pool.rmdir()
        pool.mkdir()
        request(pool / "status", "start")
        assert os.listdir(pool / "items") == ["web"]


@pytest.fixture
def just_starting() -> Iterator[Path]:
    """The state of a simulation that has its lock file, but not yet the lock."""
    state = Path("/dev/shm", f"fspoolfs-sim-{mark()}starting")
    state.mkdir(mode=0o700)
    (state / "lock").touch()
    yield state
    (state / "lock").unlink()
    state.rmdir()


def state_of(daemon: Daemon) -> Path:
    """The state directory of a simulation, found by the process that has locked it."""
    locks = Path("/dev/shm").glob("fspoolfs-sim-*/lock")
    return next(lock.parent for lock in locks if lock.read_text() == f"{daemon.process.pid}\n")


def test_the_state_of_a_simulation_that_was_killed_goes_with_the_next_start(
    make_daemon: MakeDaemon, just_starting: Path
) -> None:
    killed, living = make_daemon("--sim"), make_daemon("--sim")
    abandoned, theirs = state_of(killed), state_of(living)
    killed.kill()
    assert abandoned.exists()
    make_daemon("--sim")
    assert not abandoned.exists()
    assert (theirs / "pools").is_dir()
    assert just_starting.is_dir()
