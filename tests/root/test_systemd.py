"""The units under a systemd of the test's own, the first process of a pid namespace."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from root.server_pools import SERVERS, source_on
from support.daemon import PROJECT
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.wait import eventually

SYSTEMD = Path("/lib/systemd/systemd")
DATA = PROJECT / "fspoolfs" / "data"

pytestmark = [
    needs_root,
    needs_fuse,
    needs_program("systemctl", "nsenter", "mkfs.ext4"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed"),
    pytest.mark.long,
    pytest.mark.timeout(200),
]

#: What it mounts is its own, and nothing but what is asked for is started.
_BOOT = """\
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd /run/fspool
cp -r "$0" /run/systemd/system
umount --recursive /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec env container=test /lib/systemd/systemd --unit=test.target --log-target=null --show-status=0
"""
_TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=fspoolfs.service\n"
_SHORT = "[Service]\nWatchdogSec=4\n"


class System:
    """A host whose services systemd starts; commands run on it."""

    def __init__(self, place: Path) -> None:
        self._units = place / "units"
        self._units.mkdir()
        for unit in DATA.glob("*.service"):
            (self._units / unit.name).write_text(_adapted(unit.read_text(), place))
        (self._units / "test.target").write_text(_TARGET)
        self._groups = _groups()
        words = ("unshare", "--fork", "--pid", "--mount", "--cgroup", "--mount-proc", "--kill-child")
        self._process = subprocess.Popen([*words, "sh", "-e", "-c", _BOOT, self._units])
        eventually(lambda: self.first is not None, what="systemd is there")

    @property
    def first(self) -> int | None:
        """The number that its first process has here."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
            return int(children[0])
        return None

    def run(self, *words: str | Path, check: bool = True) -> str:
        inside = ("nsenter", "--target", str(self.first), "--pid", "--mount", "--cgroup", "--")
        return run(*inside, *words, check=check).stdout

    def fspoolfs(self, *words: str) -> str:
        return self.run("env", "FSPOOLFS_MOUNT=/run/fspool", PROJECT / ".venv/bin/fspoolfs", *words)

    def is_active(self, unit: str) -> bool:
        return self.run("systemctl", "is-active", unit, check=False) == "active\n"

    def shown(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && printf %s "$1" >"$0"', path, text)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        eventually(lambda: not self._left(), what="all of its control groups are gone")

    def _left(self) -> set[Path]:
        left = _groups() - self._groups
        for group in sorted(left, reverse=True):
            with suppress(OSError):
                group.rmdir()
        return _groups() - self._groups


def _groups() -> set[Path]:
    mounted = run("findmnt", "--noheadings", "--output", "TARGET", "--types", "cgroup2").stdout.split()
    return {path for place in mounted for path in Path(place).rglob("*") if path.is_dir()}


def _adapted(unit: str, place: Path) -> str:
    """The unit with the program of this checkout, and without what else a whole system has at boot."""
    options = f"--state-dir={place}/state --storage-dir={place}/storage /run/fspool"
    unit = unit.replace("/usr/local/bin/fspoolfs", str(PROJECT / ".venv/bin/fspoolfs"))
    unit = unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
    unit = re.sub(r"^(After|Wants)=.*$", r"\1=fspoolfs-items.service", unit, flags=re.MULTILINE)
    return re.sub(
        r"^EnvironmentFile=.*$", f'Environment=FSPOOLFS_OPTIONS="{options}"', unit, flags=re.MULTILINE
    )


@pytest.fixture
def system(run_directory: Path, tmp_path: Path) -> Iterator[System]:
    place = run_directory / f"d-{tmp_path.name}"
    place.mkdir()
    made = System(place)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(place)


def test_pools_live_in_the_unit_and_a_hung_daemon_is_started_anew(system: System) -> None:
    eventually(lambda: system.is_active("fspoolfs"), what="the daemon is ready")
    assert system.is_active("fspoolfs-items")
    document = (
        "<fspool type='volume'><name>vol</name><capacity unit='MiB'>64</capacity><source>"
        "<pool name='images'/><volume name='v'/><format type='ext4'/></source></fspool>"
    )
    system.write("/run/vol.xml", document)
    system.fspoolfs("fspool-define", "/run/vol.xml")
    system.fspoolfs("fspool-start", "vol", "--build")
    system.fspoolfs("fspool-autostart", "vol")
    system.fspoolfs("fs-create-as", "vol", "web")
    held = "/run/fspool/pools/vol/items/web/data/held"
    system.write(held, "what it holds")
    system.run("chmod", "4755", held)
    # A copy keeps it, whatever the unit forbids.
    system.fspoolfs("fs-clone", "vol/web", "copy")
    assert system.run("stat", "--format", "%a", held.replace("web", "copy")) == "4755\n"
    eventually(lambda: system.shown("fspoolfs", "StatusText") == "1 pool: 1 active", what="the state is told")
    system.write("/run/systemd/system/fspoolfs.service.d/short.conf", _SHORT)
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "fspoolfs")
    system.fspoolfs("wait", "vol", "--timeout", "60")
    system.run("kill", f"-{signal.SIGSTOP.value}", system.shown("fspoolfs", "MainPID"))
    eventually(lambda: system.shown("fspoolfs", "NRestarts") == "1", what="it is started anew", timeout=60)
    eventually(lambda: system.is_active("fspoolfs"), what="the daemon is ready")
    system.fspoolfs("wait", "vol", "--timeout", "60")
    assert system.run("cat", held) == "what it holds"
    system.fspoolfs("fspool-stop", "vol")
    system.run("systemctl", "stop", "fspoolfs")
    eventually(
        lambda: " /run/fspool " not in system.run("cat", "/proc/self/mountinfo"), what="nothing is mounted"
    )
    # Who is under a limit would end with it.
    assert system.run("systemctl", "stop", "fspoolfs-items", check=False) == ""
    assert system.is_active("fspoolfs-items")


@pytest.fixture(params=[*SERVERS])
def source(request: pytest.FixtureRequest) -> str:
    """The <source> of a pool on a server, whose client is a program."""
    return source_on(request.param, request)


@pytest.fixture
def system_with_servers(source: str, system: System) -> System:
    """A host that reaches the servers."""
    return system


def test_programs_that_keep_mounts_work_in_the_unit_and_outlive_the_daemon(
    source: str, system_with_servers: System
) -> None:
    system = system_with_servers
    eventually(lambda: system.is_active("fspoolfs"), what="the daemon is ready")
    document = f"<fspool type='network'><name>net</name>{source}</fspool>"
    system.write("/run/net.xml", document)
    system.fspoolfs("fspool-define", "/run/net.xml")
    system.fspoolfs("fspool-start", "net", "--build")
    system.fspoolfs("fs-create-as", "net", "web")
    held = "/run/fspool/pools/net/items/web/data/held"
    system.write(held, "what it holds")
    system.run("sh", "-c", f"exec 9<{held}; sleep 300 >/dev/null 2>&1 & echo $! >/run/holder")
    system.fspoolfs("fs-snapshot-create", "net/web", "before")
    before = system.run("cat", "/proc/1/mountinfo")
    system.run("systemctl", "restart", "fspoolfs")
    system.fspoolfs("wait", "net", "--timeout", "60")
    after = system.run("cat", "/proc/1/mountinfo")
    assert [line for line in before.splitlines() if " fuse." in line and "/net " in line]
    assert mounted_at_pools(before) == mounted_at_pools(after)
    assert system.run("sh", "-c", "cat /proc/$(cat /run/holder)/fd/9") == "what it holds"
    assert system.run("cat", held.replace("data", "snapshots/before/data")) == "what it holds"
    system.run("sh", "-c", "kill $(cat /run/holder)")
    system.fspoolfs("fspool-stop", "net")
    system.run("systemctl", "stop", "fspoolfs")


def mounted_at_pools(table: str) -> list[str]:
    """The ids and devices of what pools have mounted."""
    return [line.rpartition(" - ")[0] for line in table.splitlines() if "/storage/pools/net " in line]
