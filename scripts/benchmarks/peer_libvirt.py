"""Peer: the volumes of a libvirt storage pool of type dir, through libvirt's Python binding."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

from benchmarks.libvirtd import running_libvirtd
from benchmarks.packages import install, install_python
from benchmarks.scratch import Scratch

_PACKAGES = ("libvirt-daemon", "libvirt-dev", "pkg-config", "gcc", "libc6-dev", "python3-dev")

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
    with running_libvirtd(scratch.directory("libvirt")) as server:
        connection = binding.open(server.uri)
        try:
            root = scratch.directory("volumes")
            xml = f"<pool type='dir'><name>bench</name><target><path>{root}</path></target></pool>"
            pool = connection.storagePoolCreateXML(xml, 0)
            yield _Volumes(pool)
            pool.destroy()
        finally:
            connection.close()
