"""What is told to the service manager, over sockets of the two kinds that it may have."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fspoolfs.model.states import PoolState
from fspoolfs.supervision import standing
from fspoolfs.system.service_manager import ServiceManager


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        yield receiver


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_is_told_arrives(kind: str, tmp_path: Path) -> None:
    name = f"fspoolfs-test-{secrets.token_hex(8)}"
    bound, variable = (f"\0{name}", f"@{name}") if kind == "abstract" else (str(tmp_path / "n"),) * 2
    with listening(bound) as receiver:
        manager = ServiceManager.from_environment({"NOTIFY_SOCKET": variable})
        manager.ready()
        manager.status("two\nlines")
        manager.alive()
        manager.stopping()
        told = [receiver.recv(1024) for _ in range(4)]
    assert told[0::2] == [b"READY=1", b"WATCHDOG=1"]
    assert told[1].startswith(b"STATUS=two")
    assert b"\n" not in told[1]
    assert told[3] == b"STOPPING=1"


def test_programs_do_not_inherit_the_socket() -> None:
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    ServiceManager.from_environment(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("limit", "process", "seconds"),
    [
        ("30000000", str(os.getpid()), 30.0),
        ("1500000", "", 1.5),
        ("30000000", "1", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_a_watchdog_is_kept_for_whom_it_is_meant(limit: str, process: str, seconds: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": limit, "WATCHDOG_PID": process}
    assert ServiceManager.from_environment(environment).watchdog == seconds


def test_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager.from_environment({}).ready()
    assert caplog.records == []
    ServiceManager.from_environment({"NOTIFY_SOCKET": f"{tmp_path}/gone"}).ready()
    assert "was not told READY=1" in caplog.text
    assert ServiceManager.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}) == ServiceManager()


def test_a_manager_that_does_not_read_holds_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with listening(str(tmp_path / "n")):
        manager = ServiceManager(str(tmp_path / "n"))
        while not caplog.records:  # until its queue is full
            manager.alive()
    assert "was not told WATCHDOG=1" in caplog.text


def test_how_pools_stand_in_one_line() -> None:
    assert standing(Counter()) == "no pools"
    assert standing(Counter({PoolState.ACTIVE: 1})) == "1 pool: 1 active"
    states = Counter({PoolState.ACTIVE: 2, PoolState.FAILED: 1})
    assert standing(states) == "3 pools: 1 failed, 2 active"
    every = standing(Counter(PoolState))
    assert all(f"1 {state}" in every for state in PoolState)
