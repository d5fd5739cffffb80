"""`fspoolfs check` beside a daemon, after one that has stopped, and after one that was killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mount.control import ControlTree, request, value
from support.daemon import Daemon
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

Look = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pool(own_tree: ControlTree) -> Path:
    """Where an active pool `tank` with the items `web` and `shop` and a deleted item keeps everything."""
    request(own_tree.define, "<fspool type='dir'><name>tank</name></fspool>")
    tank = own_tree.pools / "tank"
    request(tank / "status", "start build")
    for name in ("web", "shop", "old"):
        (tank / "items" / name).mkdir()
    (tank / "items" / "web" / "snapshots" / "monday").mkdir()
    (tank / "items" / "old").rmdir()
    return own_tree.daemon.storage / "pools" / "tank"


@pytest.fixture
def check(own_tree: ControlTree) -> Look:
    """Runs the command on the daemon's directories."""
    daemon = own_tree.daemon

    def look(*options: str, status: int, input: str | None = None) -> subprocess.CompletedProcess[str]:
        where = ("--state-dir", str(daemon.state), "--storage-dir", str(daemon.storage))
        done = run(sys.executable, "-m", "fspoolfs", "check", *where, *options, input=input, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return look


def seen(*places: Path) -> Iterator[tuple[str, int, int, int, bytes]]:
    """Everything below directories, as far as anybody can tell a change."""
    for place in places:
        for path in sorted([place, *place.rglob("*")]):
            info = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            yield str(path), info.st_mode, info.st_uid, info.st_mtime_ns, content


def found(check: Look, *options: str, status: int = 1) -> dict[str, dict[str, Any]]:
    """The findings by their sentences."""
    return {
        one["finding"]: one for one in json.loads(check("--json", *options, status=status).stdout)["findings"]
    }


def test_beside_a_daemon_all_is_well(own_tree: ControlTree, pool: Path, check: Look) -> None:
    told = check(status=0).stdout
    assert f"process {own_tree.daemon.process.pid} is the daemon" in told
    assert "1 pool and 2 items looked at: all is well" in told


def test_nothing_is_repaired_beside_a_daemon(own_tree: ControlTree, pool: Path, check: Look) -> None:
    (pool / ".fspool").chmod(0o755)
    refused = check("--repair", "--yes", status=1)
    assert f"process {own_tree.daemon.process.pid}" in refused.stderr
    assert "a daemon runs" in refused.stderr
    assert (pool / ".fspool").stat().st_mode & 0o777 == 0o755


def test_a_daemon_that_has_stopped_leaves_nothing_to_find(daemon: Daemon, pool: Path, check: Look) -> None:
    daemon.stop()
    before = list(seen(daemon.state, pool))
    assert "1 pool and 2 items looked at: all is well" in check(status=0).stdout
    assert list(seen(daemon.state, pool)) == before


def test_what_a_killed_daemon_was_doing_is_told_and_changed_by_nobody(
    daemon: Daemon, pool: Path, check: Look
) -> None:
    (daemon.mount / "pools" / "tank" / "items" / "late").mkdir()
    daemon.kill()
    before = list(seen(daemon.state, pool))
    told = found(check)
    assert list(seen(daemon.state, pool)) == before
    assert told["item late was made or changed just before the daemon ended, perhaps not wholly"]["remedy"]
    daemon.start()
    eventually(
        lambda: value(daemon.mount / "pools" / "tank" / "status") == "active", what="the pool is active again"
    )
    daemon.stop()
    check(status=0)


def _no_directory(daemon: Daemon, pool: Path) -> None:
    (pool / "web").rmdir()


def _no_definition(daemon: Daemon, pool: Path) -> None:
    (pool / ".fspool" / "items" / "web.xml").unlink()


def _damaged_definition(daemon: Daemon, pool: Path) -> None:
    (pool / ".fspool" / "items" / "web.xml").write_text("<fs")


def _foreign_file(daemon: Daemon, pool: Path) -> None:
    (pool / ".fspool" / "items" / "notes").touch()


def _other_identity(daemon: Daemon, pool: Path) -> None:
    file = pool / ".fspool" / "pool.xml"
    uuid = (file.read_text().partition("<uuid>")[2]).partition("<")[0]
    file.write_text(file.read_text().replace(uuid, str(uuid4())))


def _damaged_identity(daemon: Daemon, pool: Path) -> None:
    (pool / ".fspool" / "pool.xml").write_text("<pool")


def _no_identity(daemon: Daemon, pool: Path) -> None:
    shutil.rmtree(pool / ".fspool")


def _no_root(daemon: Daemon, pool: Path) -> None:
    pool.rename(pool.parent / "elsewhere")


def _damaged_pool(daemon: Daemon, pool: Path) -> None:
    (daemon.state / "pools" / "tank.xml").write_text("<fspool")


def _two_pools_on_one_storage(daemon: Daemon, pool: Path) -> None:
    text = (daemon.state / "pools" / "tank.xml").read_text()
    (daemon.state / "pools" / "twin.xml").write_text(text.replace("<name>tank<", "<name>twin<"))


def _trash_without_record(daemon: Daemon, pool: Path) -> None:
    next((pool / ".fspool" / "trash").glob("*.xml")).unlink()


def _record_without_trash(daemon: Daemon, pool: Path) -> None:
    next(path for path in (pool / ".fspool" / "trash").iterdir() if path.is_dir()).rmdir()


def _snapshots_without_item(daemon: Daemon, pool: Path) -> None:
    place = next((pool / ".fspool" / "snapshots").iterdir())
    place.rename(place.parent / str(uuid4()))


def _interrupted_copy(daemon: Daemon, pool: Path) -> None:
    (pool / ".fspool" / "staging" / str(uuid4())).mkdir()


def _deletion(daemon: Daemon, pool: Path) -> None:
    (daemon.state / "deleting" / "tank").touch()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_no_directory, "the directory /web of item web is missing"),
        (_no_definition, "/web belongs to no item"),
        (_damaged_definition, "/.fspool/items/web.xml: "),
        (_foreign_file, "notes is no definition of an item"),
        (_other_identity, " carries pool tank with uuid "),
        (_damaged_identity, "/.fspool/pool.xml cannot be understood"),
        (_no_identity, " does not carry the pool any more"),
        (_no_root, " is missing"),
        (_damaged_pool, "/pools/tank.xml: "),
        (_two_pools_on_one_storage, "it lies on the same storage as pool tank"),
        (_two_pools_on_one_storage, "it has the uuid of pool tank"),
        (_trash_without_record, " is in the trash, but nothing tells what it was"),
        (_record_without_trash, "deleted item old has no directory in the trash"),
        (_snapshots_without_item, " holds snapshots of an item that there is none of"),
        (_interrupted_copy, " was being made"),
        (_deletion, "its storage was being deleted"),
    ],
)
def test_damage_is_found_and_not_touched(
    daemon: Daemon, pool: Path, check: Look, damage: Callable[[Daemon, Path], None], sentence: str
) -> None:
    daemon.stop()
    damage(daemon, pool)
    before = list(seen(daemon.state, daemon.storage))
    told = found(check)
    assert any(sentence in one for one in told), told
    # What would lose something, or is a person's to decide, is no repair.
    assert [one["repair"] for one in told.values() if one["repair"]] == []
    check("--repair", status=1)
    after = [
        row for row in seen(daemon.state, daemon.storage) if not row[0].startswith(f"{daemon.state}/lock")
    ]
    assert after == [row for row in before if not row[0].startswith(f"{daemon.state}/lock")]


def test_what_loses_nothing_is_repaired_after_a_yes(daemon: Daemon, pool: Path, check: Look) -> None:
    daemon.stop()
    (pool / ".fspool" / "trash").chmod(0o755)
    (daemon.state / "pools").chmod(0o777)
    for leftover in (
        pool / ".fspool" / "items" / ".0123",
        daemon.state / "pools" / ".0123",
        daemon.state / "autostart" / "gone",
    ):
        leftover.touch()
    before = list(seen(daemon.state, pool))
    asked = check("--repair", status=1, input="n\n")
    assert "To be done:" in asked.stdout
    assert f"remove {daemon.state}/autostart/gone" in asked.stdout
    assert [row for row in seen(daemon.state, pool) if "/lock" not in row[0]] == [
        row for row in before if "/lock" not in row[0]
    ]
    done = check("--repair", status=0, input="y\n")
    assert done.stdout.count("done: ") == 5
    assert (pool / ".fspool" / "trash").stat().st_mode & 0o777 == 0o700
    assert not (daemon.state / "autostart" / "gone").exists()
    check(status=0)


def test_a_pool_that_another_daemon_has_active_is_not_repaired(
    daemon: Daemon, pool: Path, check: Look, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(daemon.state, state)
    (pool / ".fspool" / "trash").chmod(0o755)
    where = ("--state-dir", str(state), "--storage-dir", str(daemon.storage))
    done = run(sys.executable, "-m", "fspoolfs", "check", *where, "--repair", "--yes", check=False)
    assert done.returncode == 1
    assert "another daemon has this pool active" in done.stdout
    assert (pool / ".fspool" / "trash").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("options", [("--yes",), ("--json", "--repair"), ("--what",), ("more",)])
def test_a_wrong_command_line_is_told_apart(check: Look, options: tuple[str, ...]) -> None:
    assert "usage: fspoolfs check" in check(*options, status=2).stderr


def test_there_has_to_be_a_state_directory(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    done = run(sys.executable, "-m", "fspoolfs", "check", "--state-dir", gone, check=False)
    assert done.returncode == 1
    assert done.stderr == f"fspoolfs: there is no state directory {gone}\n"
    assert not os.path.lexists(gone)
