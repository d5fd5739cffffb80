"""Pools on MooseFS through a real daemon: what limits, counters, snapshots and clones become there."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.moosefs_pools import MIB, active, clients_of, define, features_of, root_of, start, types_at
from root.volume_pools import options_at
from support import moosefs as servers
from support.daemon import Daemon, MakeDaemon
from support.machine import processes_with
from support.moosefs import GUARDED, MASTER, MEAN, PASSWORD, MooseFs
from support.shell import as_user, run, sh
from support.wait import eventually

#: How many an item holds that is copied while its daemon dies.
FILES = 200

# First of all, since daemons are to be on the host that the fixture enters.
pytestmark = [*servers.MARKS, pytest.mark.usefixtures("moosefs")]


@pytest.fixture
def pool(moosefs: MooseFs, daemon: Daemon) -> Iterator[Path]:
    with active(daemon, moosefs) as made:
        yield made


@pytest.fixture
def item(pool: Path) -> Path:
    made = pool / "items" / "web"
    made.mkdir()
    return made


def write(file: Path, mebibytes: int) -> str:
    """What dd says that writes so much, with fsync(2) in the end."""
    argv = ("dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={mebibytes}", "conv=fsync")
    return run(*argv, check=False).stderr


# A pool's life.


def test_a_pool_lives_as_any_other_and_leaves_the_export_to_the_server(
    moosefs: MooseFs, daemon: Daemon
) -> None:
    above = moosefs.directory()
    pool = define(daemon, moosefs, f"{above}/new/tank")
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "build the pool" in last_error(pool)
    before = clients_of(moosefs.client)
    request(pool / "status", "build")
    exported = moosefs.mounted / f"{above}/new/tank".lstrip("/")
    assert os.listdir(exported) == []
    eventually(lambda: clients_of(moosefs.client) == before, what="what mounted it for the build has ended")

    request(pool / "status", "start")
    root = root_of(pool)
    assert sorted(types_at(root)) == ["fuse.mfs", "tmpfs"]
    assert {"nosuid", "nodev"} <= set(options_at(root))
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "file").write_text("content")
    assert (exported / "web" / "file").read_text() == "content"

    request(pool / "status", "stop")
    assert types_at(root) == []
    eventually(lambda: clients_of(moosefs.client) == before, what="the mount's program has ended")
    request(pool / "status", "start")
    assert (pool / "items" / "web" / "data" / "file").read_text() == "content"
    (pool / "items" / "web").rmdir()
    eventually(lambda: not (exported / "web").exists(), what="the item is gone")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert os.listdir(exported) == []
    pool.rmdir()


def test_a_pool_in_use_is_not_stopped_but_destroyed(pool: Path, item: Path) -> None:
    root = root_of(pool)
    with subprocess.Popen(["sleep", "600"], cwd=item / "data") as process:
        try:
            with refused(errno.EBUSY):
                request(pool / "status", "stop")
            assert str(process.pid) in last_error(pool)
            request(pool / "status", "destroy")
            assert types_at(root) == []
        finally:
            process.kill()
    request(pool / "status", "start")
    assert os.listdir(pool / "items") == ["web"]


def test_the_machine_and_the_pool_tell_what_they_can(pool: Path, daemon: Daemon) -> None:
    machine = (daemon.mount / "features").read_text().splitlines()
    assert {"network moosefs: yes", "filesystem moosefs: yes"} <= set(machine)
    told = features_of(pool)
    assert told["filesystem"].startswith("moosefs")
    assert "advisory" in told["quota"]
    assert "64 MiB" in told["quota"]
    for name in ("files", "usage", "resize", "snapshot", "clone", "reflink"):
        assert told[name].startswith("yes"), name


def test_two_pools_in_one_moosefs_are_told_apart(moosefs: MooseFs, daemon: Daemon) -> None:
    names = ("one", "two")
    places = {name: moosefs.directory() for name in names}
    pools = {name: define(daemon, moosefs, places[name], name=name) for name in names}
    for pool in pools.values():
        request(pool / "status", "start build")
    (pools["one"] / "items" / "web").mkdir()
    with refused(errno.EEXIST):
        define(daemon, moosefs, places["one"], name="three")
    request(pools["one"] / "status", "stop")
    assert value(pools["two"] / "status") == "active"
    assert os.listdir(moosefs.mounted / places["one"].lstrip("/")).count("web") == 1
    assert "web" not in os.listdir(root_of(pools["two"]))
    request(pools["two"] / "status", "stop")


def test_directories_may_be_called_what_programs_take_for_something_else(
    moosefs: MooseFs, daemon: Daemon
) -> None:
    pool = define(daemon, moosefs, f"{moosefs.directory()}/-o a,b c=%2C:d/-x")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    daemon.kill()
    start(daemon, pool)
    assert sorted(types_at(root_of(pool))) == ["fuse.mfs", "tmpfs"]
    request(pool / "status", "stop")


# Limits and counters.


def test_a_capacity_is_kept_and_can_be_changed_while_the_item_is_full(item: Path) -> None:
    request(item / "capacity", str(8 * MIB))
    assert "Disk quota exceeded" in write(item / "data" / "full", 32)
    assert int(value(item / "allocation")) <= 8 * MIB
    os.chmod(item, 0o2770)
    assert (item / "data").stat().st_mode & 0o7777 == 0o2770
    request(item / "capacity", str(64 * MIB))
    assert "Disk quota" not in write(item / "data" / "full", 32)
    assert int(value(item / "allocation")) == 32 * MIB
    assert int(value(item / "available")) == 32 * MIB
    with refused(errno.EBUSY):
        request(item / "capacity", str(8 * MIB))
    request(item / "capacity", "none")
    assert "Disk quota" not in write(item / "data" / "more", 65)


def test_a_number_of_files_is_kept_at_once(daemon: Daemon, pool: Path) -> None:
    request(daemon.mount / "define", "<fs><name>web</name><files>4</files><source fspool='tank'/></fs>")
    data = pool / "items" / "web" / "data"
    for name in "abc":
        (data / name).touch()
    with refused(errno.EDQUOT):
        (data / "d").touch()
    assert "Files:          4" in (pool / "items" / "web" / "info").read_text()


def test_what_items_hold_is_counted_without_a_walk(daemon: Daemon, pool: Path) -> None:
    for number in range(20):
        (pool / "items" / f"i{number}").mkdir()
        (pool / "items" / f"i{number}" / "data" / "file").write_bytes(bytes(number << 10))
    counted = {name: int(value(pool / "items" / name / "allocation")) for name in os.listdir(pool / "items")}
    assert counted == {f"i{number}": number << 10 for number in range(20)}


# Snapshots and clones.


def test_a_snapshot_is_kept_from_everybody_and_brings_the_item_back(item: Path) -> None:
    os.chown(item, 1000, 1000)
    (item / "data" / "file").write_text("first")
    os.chown(item / "data" / "file", 1000, 1000)
    (item / "snapshots" / "before").mkdir()
    (item / "data" / "file").write_text("second")
    kept = item / "snapshots" / "before" / "data"
    for user in (None, as_user(1000)):
        assert run("cat", kept / "file", user=user).stdout == "first"
        assert sh('echo x >"$1/file" || exit 5', kept, user=user, check=False).returncode == 5
        assert sh('touch "$1/new" || exit 5', kept, user=user, check=False).returncode == 5
    request(item / "status", "rollback before")
    assert (item / "data" / "file").read_text() == "first"
    assert (item / "data" / "file").stat().st_uid == 1000
    (item / "snapshots" / "before").rmdir()
    assert not [name for name in os.listdir(item / "snapshots") if name == "before"]
    assert (item / "data" / "file").read_text() == "first"


def test_a_clone_shares_nothing_with_its_origin_but_the_blocks(pool: Path, item: Path) -> None:
    assert "Disk quota" not in write(item / "data" / "large", 32)
    request(item / "capacity", str(40 * MIB))
    (item / "snapshots" / "before").mkdir()
    request(item / "status", "clone shop before")
    request(item / "status", "clone copy")
    shop = pool / "items" / "shop"
    with (shop / "data" / "large").open("r+b") as file:
        file.write(b"changed")
    assert (item / "data" / "large").read_bytes()[:7] == bytes(7)
    assert int(value(shop / "capacity")) == 40 * MIB
    assert int(value(shop / "allocation")) == 32 * MIB
    assert "Disk quota exceeded" in write(shop / "data" / "more", 9)
    item.rmdir()
    assert (pool / "items" / "copy" / "data" / "large").stat().st_size == 32 * MIB


def test_links_and_attributes_are_in_a_clone_as_well(pool: Path, item: Path) -> None:
    data = item / "data"
    (data / "file").write_text("content")
    os.link(data / "file", data / "other")
    os.symlink("file", data / "link")
    os.setxattr(data / "file", "user.colour", b"blue")
    os.mkfifo(data / "pipe", 0o640)
    request(item / "status", "clone copy")
    copy = pool / "items" / "copy" / "data"
    assert (copy / "file").stat().st_ino == (copy / "other").stat().st_ino
    assert (copy / "file").stat().st_nlink == 2
    assert os.readlink(copy / "link") == "file"
    assert os.getxattr(copy / "file", "user.colour") == b"blue"
    assert (copy / "file").stat().st_mtime_ns == (data / "file").stat().st_mtime_ns
    assert (copy / "pipe").is_fifo()


# Who may come in.


def test_a_password_is_taken_from_its_file_and_shown_nowhere(
    moosefs: MooseFs, daemon: Daemon, tmp_path: Path
) -> None:
    secret = tmp_path / "a password, of a master"
    secret.write_text("something else\n")
    secret.chmod(0o600)
    options = f"<options>mfsbind={GUARDED}</options>"
    auth = f"<auth type='moosefs'><secret file='{secret}'/></auth>"
    pool = define(daemon, moosefs, moosefs.directory(), more=options)
    with refused(errno.EACCES):
        request(pool / "status", "start build")
    assert "Password is needed" in last_error(pool)
    pool.rmdir()
    pool = define(daemon, moosefs, moosefs.directory(), more=options + auth)
    with refused(errno.EACCES):
        request(pool / "status", "start build")
    assert "Incorrect password" in last_error(pool)
    secret.write_text(f"{PASSWORD}\n")
    request(pool / "status", "start build")
    shown = [*moosefs.client.processes().values(), daemon.log, (pool / "config.xml").read_text()]
    shown += [(daemon.mount / "events").read_text(), Path("/proc/self/mountinfo").read_text()]
    assert not [text for text in shown if PASSWORD in text]
    assert not processes_with("PASSWORD", PASSWORD)
    request(pool / "status", "stop")


def test_a_host_that_may_set_no_limits_is_told_so(moosefs: MooseFs, daemon: Daemon) -> None:
    with active(daemon, moosefs, more=f"<options>mfsbind={MEAN}</options>") as pool:
        told = features_of(pool)
        for name in ("quota", "files", "resize"):
            assert told[name].startswith("no"), name
            assert "mfsexports.cfg" in told[name]
        assert told["usage"].startswith("yes")
        item = pool / "items" / "web"
        item.mkdir()
        with refused(errno.EOPNOTSUPP):
            request(item / "capacity", "10M")
        assert "mfsexports.cfg" in last_error(item)
        (item / "data" / "file").write_text("content")
        (item / "snapshots" / "now").mkdir()
        request(item / "status", "clone copy now")
        assert (pool / "items" / "copy" / "data" / "file").read_text() == "content"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("<host name='fd00::1'/><dir path='/x'/>", "IPv4"),
        (f"<host name='{MASTER}'/><host name='10.77.0.2'/><dir path='/x'/>", "the master alone"),
        (f"<host name='{MASTER}'/><dir path='/x'/><options>mfspassword=x</options>", "secret"),
        (f"<host name='{MASTER}'/><dir path='/x'/><options>mfsmeta</options>", "which take"),
        (f"<host name='{MASTER}'/><dir path='/x'/><options>mfscachemode=YES</options>", "which take"),
        (
            f"<host name='{MASTER}'/><dir path='/x'/><auth type='moosefs' username='x'/>",
            "password alone",
        ),
    ],
)
def test_what_can_never_be_mounted_is_refused_with_the_reason(
    moosefs: MooseFs, daemon: Daemon, source: str, why: str
) -> None:
    document = (
        f"<fspool type='network'><name>tank</name><source>{source}<format type='moosefs'/></source></fspool>"
    )
    with refused(errno.EINVAL):
        request(daemon.mount / "define", document)
    assert why in last_error(daemon.mount)


def test_a_master_that_is_not_there_is_told_at_once(moosefs: MooseFs, daemon: Daemon) -> None:
    source = "<host name='10.77.0.1' port='1'/><dir path='/x'/><format type='moosefs'/>"
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>tank</name><source>{source}</source></fspool>",
    )
    pool = daemon.mount / "pools" / "tank"
    with refused(errno.ETIMEDOUT):
        request(pool / "status", "start build")
    assert "can't connect to mfsmaster" in last_error(pool)
    assert value(pool / "status") == "failed"


def test_the_format_need_not_be_named(moosefs: MooseFs, daemon: Daemon) -> None:
    source = f"<host name='{MASTER}'/><dir path='{moosefs.directory()}'/>"
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>tank</name><source>{source}</source></fspool>",
    )
    pool = daemon.mount / "pools" / "tank"
    request(pool / "status", "start build")
    assert features_of(pool)["filesystem"].startswith("moosefs")
    request(pool / "status", "stop")


# Daemons that end.


def test_data_goes_on_without_a_daemon_and_the_next_one_takes_it_up(moosefs: MooseFs, daemon: Daemon) -> None:
    with active(daemon, moosefs) as pool:
        item = pool / "items" / "web"
        item.mkdir()
        data = Path(os.readlink(item / "data"))
        with (data / "file").open("w") as file:
            daemon.kill()
            file.write("written without a daemon")
            file.flush()
            os.fsync(file.fileno())
            before = clients_of(moosefs.client)
            start(daemon, pool)
            assert clients_of(moosefs.client) <= before
            file.write(", and with one")
        assert (item / "data" / "file").read_text() == "written without a daemon, and with one"
        daemon.stop()
        start(daemon, pool)


def test_what_a_daemon_does_when_it_is_killed_is_whole_or_undone(
    moosefs: MooseFs, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon()
    with active(daemon, moosefs) as pool:
        item = pool / "items" / "web"
        item.mkdir()
        for number in range(FILES):
            (item / "data" / f"f{number}").write_text(str(number))
        (item / "snapshots" / "before").mkdir()
        for number in range(4):
            interrupt(daemon, pool, item, number)
            start(daemon, pool)
            for name in os.listdir(pool / "items"):
                assert value(pool / "items" / name / "status") == "ready"
                if name.startswith("c"):
                    assert len(os.listdir(pool / "items" / name / "data")) == FILES
            for name in os.listdir(item / "snapshots"):
                assert len(os.listdir(item / "snapshots" / name / "data")) == FILES
            staging = root_of(pool) / ".fspool" / "staging"
            eventually(partial(is_empty, staging), what="nothing half-made is left")


def interrupt(daemon: Daemon, pool: Path, item: Path, number: int) -> None:
    """Kill the daemon when it has just begun to make things, or at once for every other `number`."""
    script = 'echo "clone c$2 before" >"$1/status"; mkdir "$1/snapshots/s$2"; mkdir "$3/items/i$2"'
    argv = ["sh", "-c", script, "sh", item, str(number), pool]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        if number % 2:
            clone = pool / "items" / f"c{number}"
            eventually(lambda: process.poll() is not None or clone.exists(), what="a clone has begun")
        daemon.kill()
        process.wait(30)


def is_empty(directory: Path) -> bool:
    return not os.listdir(directory)
