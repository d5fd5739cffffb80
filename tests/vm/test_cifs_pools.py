"""Network pools on a share of Samba, by the kernel's client: a pool's life, and what is refused."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from support.machine import mounts
from support.shell import run
from support.wait import eventually
from vm.disks import volume
from vm.network_life import live
from vm.preloaded import PreloadedDaemon

#: Starting Samba takes its time there, and pools on shares are for one host alone.
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not all(map(shutil.which, ("smbd", "smbpasswd", "mount.cifs"))),
        reason="the packages samba and cifs-utils are not installed",
    ),
]

_PASSWORD = "a secret, as long as it is"
_CONF = """\
[global]
map to guest = never
disable spoolss = yes
load printers = no
smb ports = 445
interfaces = lo
bind interfaces only = yes
log file = {place}/log
private dir = {place}/private
lock directory = {place}
state directory = {place}
cache directory = {place}
pid directory = {place}
ncalrpc dir = {place}/ncalrpc
passdb backend = tdbsam:{place}/passdb.tdb
[share]
path = {exported}
read only = no
force user = root
create mask = 0777
directory mask = 0777
ea support = yes
"""


class Samba:
    """A server on the loopback address with one share and one user, root."""

    def __init__(self, place: Path, exported: Path) -> None:
        self.exported, self.credentials, self._conf = exported, place / "credentials", place / "smb.conf"
        (place / "private").mkdir(parents=True)
        self._conf.write_text(_CONF.format(place=place, exported=exported))
        run("smbpasswd", "-c", self._conf, "-s", "-a", "root", input=f"{_PASSWORD}\n{_PASSWORD}\n")
        self.credentials.touch(0o600)
        self.credentials.write_text(f"username=root\npassword={_PASSWORD}\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        argv = ("smbd", "--foreground", "--no-process-group", "-s", self._conf)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def stop(self) -> None:
        """All of its processes at once, as when its host is switched off."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def source(self, directory: str) -> str:
        return (
            f"<source><host name='127.0.0.1'/><dir path='/share/{directory}'/><format type='cifs'/>"
            "<options>noserverino,soft</options>"
            f"<auth type='cifs'><secret file='{self.credentials}'/></auth></source>"
        )


@pytest.fixture(scope="module")
def samba() -> Iterator[Samba]:
    run("ip", "link", "set", "lo", "up")
    run("modprobe", "cifs")
    disk = volume("ext4", "user_xattr")
    made = Samba(disk.new_directory(), disk.new_directory())
    yield made
    made.stop()


def define(daemon: PreloadedDaemon, name: str, source: str) -> Path:
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>{name}</name>{source}<trash retention='none'/></fspool>",
    )
    return daemon.mount / "pools" / name


def started(pool: Path) -> bool:
    if value(pool / "status") in ("inactive", "failed"):
        with suppress(OSError):
            request(pool / "status", "start")
    return value(pool / "status") == "active"


def test_a_pool_lives_on_a_share(daemon: PreloadedDaemon, samba: Samba) -> None:
    pool = define(daemon, "tank", samba.source("tank"))
    eventually(lambda: built(pool), what="the server answers", timeout=60)
    request(pool / "status", "start")
    root = Path(os.readlink(pool / "root"))
    assert "cifs" in {mount.fstype for mount in mounts() if mount.point == str(root)}
    live(daemon, pool, samba.exported / "tank")
    assert not os.path.ismount(root)
    request(pool / "status", "delete")
    assert not (samba.exported / "tank").exists() or os.listdir(samba.exported / "tank") == []
    pool.rmdir()


def built(pool: Path) -> bool:
    with suppress(OSError):
        request(pool / "status", "build")
    return "not built" not in (pool / "status").read_text() and not last_error(pool)


def test_who_is_not_known_is_refused_and_told_nothing_secret(
    daemon: PreloadedDaemon, samba: Samba, tmp_path: Path
) -> None:
    wrong = tmp_path / "credentials"
    wrong.touch(0o600)
    wrong.write_text("username=root\npassword=wrong-and-never-shown\n")
    pool = define(daemon, "alien", samba.source("tank").replace(str(samba.credentials), str(wrong)))
    with refused(errno.EACCES):
        request(pool / "status", "start build")
    assert "wrong-and-never-shown" not in last_error(pool) + (daemon.mount / "events").read_text()
    pool.rmdir()


def test_a_share_that_is_not_there_is_refused(daemon: PreloadedDaemon, samba: Samba) -> None:
    source = samba.source("tank").replace("/share/tank", "/nothing/tank")
    pool = define(daemon, "none", source)
    with refused(errno.ENOENT):
        request(pool / "status", "start build")
    pool.rmdir()


def test_a_server_that_is_gone_is_told_and_comes_back(daemon: PreloadedDaemon, samba: Samba) -> None:
    daemon.expect_log("storage of pool|journal|server of pool|does not answer")
    pool = define(daemon, "gone", samba.source("gone"))
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    samba.stop()
    try:
        with suppress(OSError):
            request(pool / "status", "destroy")
        eventually(lambda: value(pool / "status") == "inactive", what="the pool is let go", timeout=60)
        with refused(errno.ETIMEDOUT):
            request(pool / "status", "start")
    finally:
        samba.start()
    eventually(lambda: started(pool), what="the pool can be started again", timeout=60)
    assert os.listdir(pool / "items") == ["web"]
    request(pool / "status", "stop")
