"""Network pools over sshfs through a real daemon: used, hung, killed, taken up again, refused."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from support import sshd
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted
from support.shell import run, sh
from support.sshd import Sshd, clients
from support.wait import eventually

pytestmark = sshd.MARKS

#: Short, so that tests need not wait; what is asserted holds for any.
OPTIONS = ("--grace", "3", "--stall-time", "3")


class Network:
    """A daemon and a server of the test's own; `exports` is what the server has."""

    def __init__(self, server: Sshd, daemon: Daemon, exports: Path) -> None:
        self.server = server
        self.daemon = daemon
        self.exports = exports

    def define(self, name: str = "net", source: str = "", more: str = "") -> Path:
        source = source or self.server.source(self.exports / name)
        request(
            self.daemon.mount / "define",
            f"<fspool type='network'><name>{name}</name>{source}{more}</fspool>",
        )
        return self.daemon.mount / "pools" / name

    def active(self, name: str = "net") -> Path:
        pool = self.define(name)
        do(pool, "build")
        do(pool, "start")
        return pool

    def local(self) -> Path:
        request(self.daemon.mount / "define", "<fspool type='dir'><name>local</name></fspool>")
        pool = self.daemon.mount / "pools" / "local"
        request(pool / "status", "start build")
        return pool


@pytest.fixture
def network(own_sshd: Sshd, make_daemon: MakeDaemon, tmp_path: Path) -> Iterator[Network]:
    exports = tmp_path / "exports"
    exports.mkdir()
    yield Network(own_sshd, make_daemon(*OPTIONS), exports)
    own_sshd.resume()


def do(pool: Path, verb: str) -> None:
    """What the verb comes to, however long it takes on a busy machine."""
    try:
        request(pool / "status", verb)
    except OSError as error:
        if error.errno not in (errno.EINPROGRESS, errno.ETIMEDOUT):
            raise
        eventually(
            lambda: (pool / "job").read_text().startswith(("done", "failed")), what=f"{verb} has ended"
        )
        assert not last_error(pool), last_error(pool)


def becomes(pool: Path, *states: str, timeout: float = 60.0) -> None:
    eventually(
        lambda: value(pool / "status").split()[0] in states,
        what=f"{pool.name} is {' or '.join(states)}",
        timeout=timeout,
    )


def target_of(pool: Path) -> Path:
    return Path(os.readlink(pool / "root"))


# The whole life.


def test_a_network_pool_lives_a_whole_life(network: Network) -> None:
    pool = network.define()
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "build the pool first" in last_error(pool)
    do(pool, "build")
    assert (network.exports / "net").is_dir(), "the directory was made on the server"
    do(pool, "start")
    assert f"network: yes (sshfs, 127.0.0.1:{network.server.port}:" in (pool / "features").read_text()
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "file").write_text("kept")
    assert (network.exports / "net" / "web" / "file").read_text() == "kept"
    target = target_of(pool)
    with (target / "web" / "file").open(), refused(errno.EBUSY):
        holder = subprocess.Popen(["sleep", "60"], cwd=target / "web")
        try:
            request(pool / "status", "stop")
        finally:
            holder.kill()
            holder.wait()
    assert f"process {holder.pid} (sleep)" in last_error(pool)
    assert value(pool / "status") == "active"
    do(pool, "stop")
    assert not is_mounted(target)
    eventually(lambda: clients(network.server.port) == [], what="sshfs has ended")
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "delete")
    do(pool, "start")
    (pool / "items" / "web").rmdir()
    (pool / "trash" / "web").rmdir()
    do(pool, "stop")
    do(pool, "delete")
    assert os.listdir(network.exports / "net") == []
    assert not target.exists()
    pool.rmdir()


def test_options_and_secrets_are_not_where_others_see_them(network: Network) -> None:
    pool = network.active()
    key = network.server.key.read_text().splitlines()[1]
    for file in ("config.xml", "info", "last_error"):
        assert key not in (pool / file).read_text()
    (process,) = clients(network.server.port)
    assert key.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
    assert key.encode() not in Path(f"/proc/{process}/environ").read_bytes()
    assert key not in network.daemon.log
    assert {"nosuid", "nodev"} <= set(
        run("findmnt", "-n", "-o", "VFS-OPTIONS", target_of(pool)).stdout.strip().splitlines()[-1].split(",")
    )


def test_odd_names_of_directories_work(network: Network) -> None:
    directory = network.exports / "two words, a comma" / "100%"
    source = network.server.source(str(directory))
    pool = network.define(source=source, more=f"<target><path>{network.daemon.base}/a b,c</path></target>")
    do(pool, "build")
    do(pool, "start")
    (pool / "items" / "web").mkdir()
    assert (directory / "web").is_dir()


def test_the_format_may_be_left_to_the_server(network: Network) -> None:
    source = network.server.source(network.exports / "net").replace("<format type='sshfs'/>", "")
    for format in ("", "<format type='auto'/>"):
        pool = network.define(source=source.replace("<auth", f"{format}<auth"))
        do(pool, "build")
        do(pool, "start")
        assert "network: yes (sshfs" in (pool / "features").read_text()
        do(pool, "stop")


@pytest.mark.parametrize("remark", ["", " - if the pool is not on the host"])
def test_the_proposal_without_a_host_binds_a_directory_of_this_one(network: Network, remark: str) -> None:
    directory = network.exports / "some" / "directory"
    pool = network.define(
        source=f"<source>{remark}<dir path='{str(directory).lstrip('/')}'/></source>",
        more=f"<target><path>{network.daemon.base}/fspool</path></target>",
    )
    with refused(errno.ENOENT):
        request(pool / "status", "build")
    assert f"{directory} does not exist on this host" in last_error(pool)
    directory.mkdir(parents=True)
    do(pool, "build")
    do(pool, "start")
    (pool / "items" / "web").mkdir()
    assert (directory / "web").is_dir()
    do(pool, "stop")
    assert os.listdir(f"{network.daemon.base}/fspool") == []


# Servers that do not answer.

#: What is asked while the server hangs, and whether it may have happened in the end.
Operation = Callable[[Path, str], None]
OPERATIONS: dict[str, tuple[Operation, Callable[[set[str], str], bool]]] = {
    "create": (lambda p, n: (p / "items" / n).mkdir(), lambda items, n: n in items),
    "define": (
        lambda p, n: request(
            p.parents[1] / "define", f"<fs><name>{n}</name><source fspool='{p.name}'/></fs>"
        ),
        lambda items, n: n in items,
    ),
    "rename": (
        lambda p, n: (p / "items" / "old").rename(p / "items" / n),
        lambda items, n: (n in items) is not ("old" in items),
    ),
    "delete": (lambda p, n: (p / "items" / "gone").rmdir(), lambda items, n: True),
    "snapshot": (lambda p, n: (p / "items" / "base" / "snapshots" / n).mkdir(), lambda items, n: True),
    "resize": (lambda p, n: request(p / "items" / "base" / "capacity", "1M"), lambda items, n: True),
    "clone": (
        lambda p, n: request(p / "items" / "base" / "status", f"clone {n}"),
        lambda items, n: n in items,
    ),
    "rollback": (
        lambda p, n: request(p / "items" / "base" / "status", "rollback first"),
        lambda items, n: True,
    ),
}


def hang_in(network: Network, pool: Path, what: str, seconds: float = 0.0) -> None:
    """Ask for something while the server hangs; what holds afterwards."""
    act, _ = OPERATIONS[what]
    name = f"new-{what}"
    network.server.hang()
    try:
        with refused(errno.ETIMEDOUT, errno.EOPNOTSUPP if what == "resize" else errno.ETIMEDOUT):
            act(pool, name)
        becomes(pool, "stalled")
        with refused(errno.ETIMEDOUT):
            (pool / "items" / "refused").mkdir()
        assert "has not answered" in last_error(pool)
        if seconds:
            sh(f"sleep {seconds}")
    finally:
        network.server.resume()
    becomes(pool, "active", timeout=100)


def check_consistent(network: Network, pool: Path) -> None:
    """Each item of the pool is a directory of the export, and there are no others."""
    items = set(os.listdir(pool / "items"))
    held = {name for name in os.listdir(network.exports / pool.name) if not name.startswith(".")}
    assert items == held


def prepare(pool: Path) -> None:
    for name in ("base", "old", "gone"):
        (pool / "items" / name).mkdir()
    (pool / "items" / "base" / "data" / "file").write_text("first")
    (pool / "items" / "base" / "snapshots" / "first").mkdir()


def end_jobs(pool: Path) -> None:
    """Wait until nothing is under way any more: an item that is busy or being made is."""

    def settled() -> bool:
        items = [pool / "items" / name for name in os.listdir(pool / "items")]
        try:
            return all(value(item / "status") in ("ready", "missing", "failed") for item in items)
        except FileNotFoundError:  # renamed or deleted since it was listed
            return False

    eventually(settled, what="no item is busy")


def hang_in_each(network: Network, seconds: float) -> None:
    pool, local = network.active(), network.local()
    prepare(pool)
    for what, (_, holds) in OPERATIONS.items():
        hang_in(network, pool, what, seconds)
        end_jobs(pool)
        (pool / "items" / f"after-{what}").mkdir()
        (local / "items" / what).mkdir()
        becomes(pool, "active")
        assert "refused" not in os.listdir(pool / "items")
        do(pool, "refresh")
        items = set(os.listdir(pool / "items"))
        assert holds(items, f"new-{what}") or f"new-{what}" not in items
        assert {"base", *(f"after-{done}" for done in list(OPERATIONS)[: len(items) and 1])} <= items
        assert len({"old", "new-rename"} & items) == 1, "renamed or not, it is there once"
        check_consistent(network, pool)
    assert (pool / "items" / "base" / "data" / "file").read_text() == "first"
    do(pool, "stop")
    do(pool, "start")
    check_consistent(network, pool)


def test_a_server_that_hangs_in_an_operation_loses_and_doubles_nothing(network: Network) -> None:
    hang_in_each(network, 0.0)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_server_that_hangs_for_half_a_minute_in_each_operation(network: Network) -> None:
    network.daemon.expect_log(
        "nothing more is changed in pool|has failed|is let go as it is|discard a clone|snapshot of item"
    )
    hang_in_each(network, 30.0)


def test_a_pool_that_is_stalled_is_listed_and_stopped_and_holds_up_no_other(network: Network) -> None:
    network.daemon.expect_log("does not answer; it is let go as it is")
    pool, local = network.active(), network.local()
    (pool / "items" / "web").mkdir()
    network.server.hang()
    becomes(pool, "stalled")
    assert os.listdir(pool / "items") == ["web"]
    assert "State:          stalled" in (pool / "info").read_text()
    (local / "items" / "web").mkdir()
    assert '"state": "stalled"' in (network.daemon.mount / "events").read_text()
    do(pool, "stop")
    assert value(pool / "status") == "inactive"
    assert not is_mounted(target_of(pool))
    eventually(lambda: clients(network.server.port) == [], what="no sshfs is left")
    with refused(errno.ETIMEDOUT, errno.EINPROGRESS):
        request(pool / "status", "start")
    becomes(pool, "failed")
    assert f"127.0.0.1:{network.server.port}:{network.exports}/net cannot be reached" in last_error(pool)
    assert not is_mounted(target_of(pool))
    network.server.resume()
    do(pool, "start")
    assert os.listdir(pool / "items") == ["web"]


def test_a_daemon_ends_while_a_pool_is_stalled_and_takes_it_up_again(network: Network) -> None:
    network.daemon.expect_log("does not answer; it is let go as it is")
    pool = network.active()
    (pool / "items" / "web").mkdir()
    network.server.hang()
    becomes(pool, "stalled")
    network.daemon.process.terminate()
    eventually(lambda: not is_mounted(network.daemon.mount), what="the tree is unmounted")
    network.server.resume()
    assert network.daemon.process.wait(30) == 0
    network.daemon.start()
    becomes(pool, "active")
    assert os.listdir(pool / "items") == ["web"]
    (pool / "items" / "more").mkdir()


def test_a_server_that_was_started_anew_is_used_as_before(network: Network) -> None:
    pool = network.active()
    (pool / "items" / "before").mkdir()
    network.server.kill()
    network.server.start()
    eventually(lambda: not run("ls", target_of(pool), check=False).returncode, what="sshfs is connected anew")
    (pool / "items" / "after").mkdir()
    assert value(pool / "status") == "active"
    check_consistent(network, pool)


def test_a_pool_whose_program_has_died_is_mounted_again_and_nothing_lands_underneath(
    network: Network,
) -> None:
    network.daemon.expect_log("pool net has failed|does not answer; it is let go as it is")
    pool = network.active()
    (pool / "items" / "web").mkdir()
    target = target_of(pool)
    network.server.hang()
    (process,) = clients(network.server.port)
    os.kill(process, signal.SIGKILL)
    becomes(pool, "failed")
    run("umount", "--lazy", target)
    with refused(errno.EROFS):
        (target / "astray").mkdir()
    network.server.resume()
    becomes(pool, "active", timeout=100)
    assert os.listdir(pool / "items") == ["web"]
    (pool / "items" / "more").mkdir()
    check_consistent(network, pool)


def test_a_killed_daemon_finds_its_pools_where_they_are(network: Network) -> None:
    pool = network.active()
    (pool / "items" / "web").mkdir()
    before = clients(network.server.port)
    network.daemon.kill()
    assert (target_of_mount(network) / "web").is_dir(), "data goes on without the daemon"
    network.daemon.start()
    becomes(pool, "active")
    assert clients(network.server.port) == before
    (pool / "items" / "more").mkdir()
    check_consistent(network, pool)


def target_of_mount(network: Network) -> Path:
    return network.daemon.storage / "pools" / "net"


def test_a_pool_whose_server_is_away_at_first_is_started_when_it_comes(network: Network) -> None:
    network.daemon.expect_log("cannot be reached")
    pool = network.active()
    request(pool / "autostart", "1")
    do(pool, "stop")
    network.daemon.stop()
    network.server.kill()
    network.daemon.start()
    becomes(pool, "failed")
    assert "cannot be reached" in last_error(pool)
    assert not is_mounted(target_of(pool))
    network.server.start()
    becomes(pool, "active", timeout=100)


def test_a_host_that_does_not_exist_is_given_up(network: Network) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        source = network.server.source("/srv/x").replace(
            f"port='{network.server.port}'", f"port='{nobody.getsockname()[1]}'"
        )
        pool = network.define(source=source)
        with refused(errno.ETIMEDOUT):
            request(pool / "status", "build")
        assert "cannot be reached" in last_error(pool)
        assert clients(nobody.getsockname()[1]) == []


# What is refused.


SSHFS = "<host name='h'/><dir path='/x'/><format type='sshfs'/>"


#: What a <source> says, and words of the refusal; {tmp} is a directory with files that are not fit for keys.
HARMFUL = [
    ("<host name='-oProxyCommand=id'/><dir path='/x'/>", "is not the name or the address of a host"),
    ("<host name='h'/><dir path='/x/../y'/>", "holds '..'"),
    ("<host name='h'/><dir path='/'/><format type='sshfs'/>", "the root of a server cannot be a pool's"),
    ("<dir path='/x'/><format type='sshfs'/>", "no <host> is named"),
    ("<dir path='/etc'/>", "belongs to the system"),
    ("<dir path='/x'/><auth type='sshfs'/>", "no <host> is named"),
    ("<host name='h'/><host name='i'/><dir path='/x'/><format type='sshfs'/>", "name one"),
    (
        "<host name='h'/><dir path='/x'/><format type='sshfs'/><options>ssh_command=id</options>",
        "mount option 'ssh_command=id' is not for pools",
    ),
    (
        "<host name='h'/><dir path='/x'/><format type='sshfs'/><options>ro,password=SECRET</options>",
        "names a secret",
    ),
    (
        "<host name='h'/><dir path='/x'/><format type='sshfs'/><auth type='cifs'/>",
        "<auth> is of type 'cifs'",
    ),
    (
        f"{SSHFS}<auth type='sshfs'><secret file='{{tmp}}/open'/></auth>",
        "chmod it to 0600",
    ),
    (
        f"{SSHFS}<auth type='sshfs'><secret file='{{tmp}}/link'/></auth>",
        "is not a regular file",
    ),
    (
        f"{SSHFS}<auth type='sshfs'><secret file='{{tmp}}/his/key'/></auth>",
        "others could put their own file there",
    ),
]


def test_what_could_harm_is_refused_with_the_reason(network: Network, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "link").symlink_to("open")
    (tmp_path / "his").mkdir()
    (tmp_path / "his" / "key").write_text("x")
    (tmp_path / "his" / "key").chmod(0o600)
    os.chown(tmp_path / "his", 4711, 4711)
    for source, words in HARMFUL:
        with refused(errno.EINVAL, errno.EACCES):
            network.define(source=f"<source>{source.replace('{tmp}', str(tmp_path))}</source>")
        assert words in last_error(network.daemon.mount)
        assert "SECRET" not in last_error(network.daemon.mount)
    assert "SECRET" not in network.daemon.log


def test_an_export_that_cannot_be_written_is_not_started(network: Network) -> None:
    network.define()
    pool = network.daemon.mount / "pools" / "net"
    do(pool, "build")
    source = network.server.source(network.exports / "net", more="<options>ro</options>")
    network.define(source=source)
    with refused(errno.EROFS):
        request(pool / "status", "start")
    assert "is mounted but cannot be written" in last_error(pool)
    assert not is_mounted(target_of(pool))
    eventually(lambda: clients(network.server.port) == [], what="no sshfs is left")


def test_a_server_that_is_not_known_is_not_trusted(network: Network) -> None:
    pool = network.define()
    network.server.known_hosts.write_text("")
    with refused(errno.EACCES):
        request(pool / "status", "build")
    assert "Host key verification failed" in last_error(pool)
