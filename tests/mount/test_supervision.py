"""A daemon that a service manager runs: what it is told, and when; and the unit that tells systemd so."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, request
from support.daemon import MakeDaemon
from support.needs import needs_program, needs_root
from support.shell import run

PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "fspoolfs" / "data" / "fspoolfs.service"
#: Settings that give a service a mount namespace of its own (systemd.exec(5)).
HIDING = (
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "MountFlags",
    "ReadWritePaths",
    "BindPaths",
)


@pytest.fixture
def manager(run_directory: Path) -> Iterator[socket.socket]:
    """What stands at $NOTIFY_SOCKET."""
    path = run_directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(30)
        yield receiver
    path.unlink()


def heard(manager: socket.socket, wanted: str) -> list[str]:
    """All that is told until `wanted` is."""
    told: list[str] = []
    while not told or told[-1] != wanted:
        told.append(manager.recv(4096).decode())
    return told


@needs_root
@pytest.mark.required
def test_a_service_manager_is_told_how_the_daemon_stands(
    make_daemon: MakeDaemon, manager: socket.socket
) -> None:
    daemon = make_daemon(env={"NOTIFY_SOCKET": manager.getsockname()})
    tree = ControlTree(daemon)
    before = heard(manager, "READY=1")
    assert all(line.startswith("STATUS=") for line in before[:-1])
    pool = tree.active_pool()
    heard(manager, "STATUS=1 pool: 1 active")
    request(pool / "status", "stop")
    heard(manager, "STATUS=1 pool: 1 inactive")
    daemon.stop()
    heard(manager, "STOPPING=1")


@needs_root
@pytest.mark.required
def test_signs_of_life_come_as_long_as_the_daemon_lives(
    make_daemon: MakeDaemon, manager: socket.socket
) -> None:
    make_daemon(env={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"})
    heard(manager, "READY=1")
    for _ in range(3):
        heard(manager, "WATCHDOG=1")


@needs_program("systemd-analyze")
def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert "/usr/local/bin/fspoolfs mount --foreground" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/usr/local/bin/fspoolfs", "/bin/true"))
    shutil.copy(UNIT.with_name("fspoolfs-items.service"), tmp_path)
    checked = run("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir()), check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_unit_hides_no_mount_from_the_host() -> None:
    settings = [line.partition("=")[0] for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not set(settings) & {
        *HIDING,
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectControlGroups",
    }
    assert "KillMode=process" in UNIT.read_text()
