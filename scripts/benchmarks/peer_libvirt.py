"""Peer: the volumes of a libvirt storage pool of type dir, through libvirt's Python binding."""

from __future__ import annotations

import importlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from benchmarks.errors import BenchError
from benchmarks.packages import install, install_python
from benchmarks.private import RUNTIME, private
from benchmarks.processes import Server
from benchmarks.scratch import Scratch

_PACKAGES = ("libvirt-daemon", "libvirt-dev", "pkg-config", "gcc", "libc6-dev", "python3-dev")

_START_LIMIT = 60.0
_DRIVER = "libvirt_driver_storage.so"
#: Beside its sockets, where libvirtd keeps definitions and caches.
_STATE = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
_CONFIGURATION = """listen_tls = 0
listen_tcp = 0
unix_sock_dir = "{place}"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""


_VOLUME = """<volume><name>{name}</name><capacity>0</capacity>
<target><format type='dir'/></target></volume>"""


class _Volume(Protocol):
    def info(self) -> Sequence[int]: ...
    def delete(self, flags: int) -> int: ...


class _Pool(Protocol):
    def createXML(self, xml: str, flags: int) -> _Volume: ...
    def listAllVolumes(self, flags: int) -> Sequence[_Volume]: ...
    def destroy(self) -> int: ...


class _Connection(Protocol):
    def storagePoolCreateXML(self, xml: str, flags: int) -> _Pool: ...
    def close(self) -> int: ...


class _Binding(Protocol):
    """What is used of the module `libvirt`, which is not typed."""

    def open(self, name: str) -> _Connection: ...


class _Volumes:
    """A pool whose volumes are empty directories, libvirt's nearest thing to an item."""

    name = "libvirt dir volume"
    synced = False

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._volumes: dict[str, _Volume] = {}

    def create(self, volume: str) -> None:
        self._volumes[volume] = self._pool.createXML(_VOLUME.format(name=volume), 0)

    def fill(self, volume: str) -> None:
        """Nothing: libvirt deletes only an empty directory."""

    def delete(self, volume: str) -> None:
        self._volumes.pop(volume).delete(0)

    def list_with_info(self) -> int:
        return len([volume.info() for volume in self._pool.listAllVolumes(0)])


def install_libvirt() -> None:
    """The daemon, and the binding with what compiling it takes; raises `BenchError`."""
    install(_PACKAGES)
    install_python("libvirt-python", module="libvirt")


@contextmanager
def start_libvirt(scratch: Scratch) -> Iterator[_Volumes]:
    """A libvirtd that has the storage driver only."""
    binding = cast(_Binding, importlib.import_module("libvirt"))
    place = scratch.directory("libvirt")
    (place / "libvirtd.conf").write_text(_CONFIGURATION.format(place=place))
    drivers = scratch.directory("drivers")
    (drivers / _DRIVER).symlink_to(_installed_driver())
    argv = ("libvirtd", "--config", place / "libvirtd.conf", "--pid-file", place / "pid")
    socket = place / "libvirt-sock"
    with Server(
        private(argv, hidden=(*RUNTIME, *_STATE)),
        log=place / "log",
        env={"LIBVIRT_DRIVER_DIR": os.fspath(drivers)},
        name="libvirtd",
    ) as server:
        server.wait_until(socket.exists, what="its socket is there", seconds=_START_LIMIT)
        connection = binding.open(f"storage:///system?socket={socket}")
        try:
            root = scratch.directory("volumes")
            xml = f"<pool type='dir'><name>bench</name><target><path>{root}</path></target></pool>"
            pool = connection.storagePoolCreateXML(xml, 0)
            yield _Volumes(pool)
            pool.destroy()
        finally:
            connection.close()


def _installed_driver() -> Path:
    libraries = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    for directory in (libraries, Path("/usr/lib64")):
        driver = directory / "libvirt" / "connection-driver" / _DRIVER
        if driver.exists():
            return driver
    raise BenchError(f"{_DRIVER} is not where libvirt-daemon puts it")
