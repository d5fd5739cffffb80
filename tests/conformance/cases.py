"""What the conformance suite runs over. A new backend joins with one line in one of the lists."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from benchmarks.libvirtd import Libvirtd
from fspoolfs.backends import btrfs, ceph, generic, simulated_quota, zfs
from fspoolfs.backends import moosefs as moosefs_items
from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.network.bound import Bound
from fspoolfs.backends.network.cephfs import Cephfs
from fspoolfs.backends.network.moosefs import MooseFs
from fspoolfs.backends.network.sshfs import Sshfs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.backends.source import BuildMode, Source
from fspoolfs.backends.volume import VolumeSource
from fspoolfs.backends.volumes.device import Devices
from fspoolfs.backends.volumes.images import Images
from fspoolfs.backends.volumes.libvirt import LibvirtVolumes
from fspoolfs.backends.volumes.lvm import LogicalVolumes
from fspoolfs.backends.zfs_volume import ZfsVolumeSource
from fspoolfs.model.definitions import ItemDefinition, Permissions, PoolDefinition, PoolSource, PoolType
from fspoolfs.model.documents import parse_pool
from fspoolfs.progress import Progress
from fspoolfs.system import remote
from support import ceph as ceph_cluster
from support import moosefs, sshd
from support.leaks import mark
from support.leftovers import attached, take_away
from support.shell import run
from support.sshd import shared

#: Opens a root that may use the given directory, and gives it up afterwards.
OpenRoot = Callable[[Path], AbstractContextManager[RootDirectory]]


@contextmanager
def host(directory: Path) -> Iterator[RootDirectory]:
    with closing(remote.open_root(str(directory))) as root:
        yield root


@contextmanager
def tmpfs(_: Path) -> Iterator[RootDirectory]:
    made = tempfile.TemporaryDirectory(dir="/dev/shm", prefix=mark())
    with made as directory, host(Path(directory)) as root:
        yield root


@contextmanager
def memory(_: Path) -> Iterator[RootDirectory]:
    yield MemoryRoot(MemoryTree(), "/simulated/root")


@dataclass(frozen=True, slots=True)
class RootCase:
    """How a root is opened, and on which of `support.volumes` its directory is to be, if on any."""

    open: OpenRoot = host
    volume: str | None = None
    #: The fixture of the server that it needs, if it needs one.
    server: str = ""


@dataclass(frozen=True, slots=True)
class FileSystemCase:
    """How a file system recognises a root, and that root."""

    probe: Callable[[RootDirectory], FileSystem | None]
    root: RootCase


@dataclass(frozen=True, slots=True)
class SourceCase:
    """A source, the definition of a pool that it could build, and what takes its volume away again."""

    source: Source
    definition: PoolDefinition
    clean_up: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Leave nothing attached, whatever the test has done."""
        # Roots that it has left open, which keep devices in use.
        gc.collect()
        try:
            self.source.detach(self.definition, force=True)
        finally:
            self.clean_up()


def pool(target: object, name: str = "tank") -> PoolDefinition:
    return PoolDefinition(name=name, type=PoolType.DIR, uuid=UUID(int=1), target=str(target))


def item(mode: int | None = None, owner: int | None = None, group: int | None = None) -> ItemDefinition:
    permissions = Permissions(mode=mode, owner=owner, group=group)
    return ItemDefinition(name="web", uuid=UUID(int=2), permissions=permissions)


#: Bytes; xfs needs 300 MiB.
VOLUME_SIZE = 320 << 20


def volume_source(storage: Path) -> VolumeSource:
    return VolumeSource(storage, [Images(storage), Devices(), LogicalVolumes()])


def zfs_source(storage: Path) -> ZfsVolumeSource:
    return ZfsVolumeSource(storage, [Images(storage), Devices()])


def volume_pool(directory: Path, source: PoolSource, capacity: int | None = None) -> PoolDefinition:
    wanted = pool(directory / "pools" / "tank")
    # No two file systems of one UUID at a time.
    return replace(wanted, uuid=uuid4(), type=PoolType.VOLUME, source=source, capacity=capacity)


def on_image(directory: Path, format: str) -> SourceCase:
    wanted = PoolSource(pool="images", volume="vol1", format=format)
    source = zfs_source(directory) if format == "zfs" else volume_source(directory)
    return SourceCase(source, volume_pool(directory, wanted, VOLUME_SIZE))


@contextmanager
def on_zpool(directory: Path) -> Iterator[RootDirectory]:
    """The root of a new pool."""
    case = on_image(directory, "zfs")
    source, definition = case.source, case.definition
    source.build(definition, BuildMode.NO_OVERWRITE, Progress())
    try:
        with closing(source.attach(definition, Progress())) as root:
            yield root
    finally:
        case.close()


def _network_pool(directory: Path, source: str) -> PoolDefinition:
    wanted = parse_pool(f"<fspool type='network'><name>tank</name>{source}</fspool>".encode())
    return replace(wanted, uuid=uuid4(), target=str(directory / "pools" / "tank"))


def on_sshd(directory: Path) -> SourceCase:
    """On a directory of the run's sshd."""
    exports = directory / "exports"
    exports.mkdir(parents=True)
    return SourceCase(NetworkSource([Sshfs()], Bound()), _network_pool(directory, shared().source(exports)))


def on_moosefs(directory: Path) -> SourceCase:
    """On a directory of the run's MooseFS, which is not there yet."""
    source = moosefs.shared().source(f"{moosefs.shared().directory()}/tank")
    return SourceCase(NetworkSource([MooseFs()], Bound()), _network_pool(directory, source))


@contextmanager
def over_moosefs(_: Path) -> Iterator[RootDirectory]:
    """A new directory on what is mounted once for the whole run."""
    servers = moosefs.shared()
    with host(servers.mounted / servers.directory().lstrip("/")) as root:
        yield root


def on_ceph(directory: Path) -> SourceCase:
    """On a directory of the run's cluster."""
    source = ceph_cluster.shared().source(f"/{uuid4()}/tank")
    return SourceCase(NetworkSource([Cephfs()], Bound()), _network_pool(directory, source))


def bound(directory: Path) -> SourceCase:
    """On a directory of this host."""
    (directory / "exports").mkdir()
    source = PoolSource(directory=str(directory / "exports").lstrip("/"))
    definition = replace(
        pool(directory / "pools" / "tank"), uuid=uuid4(), type=PoolType.NETWORK, source=source
    )
    return SourceCase(NetworkSource([Sshfs()], Bound()), definition)


class Serving(Protocol):
    """A server of the run, and where one of its exports is mounted once for all tests."""

    mounted: Path | None
    at_end: list[Callable[[], None]]


@contextmanager
def _over(
    server: Serving, make: Callable[[Path], SourceCase], place: Path, directory: Path
) -> Iterator[RootDirectory]:
    """A new directory of the pool that `make` makes, which is mounted in `place`."""
    if server.mounted is None:
        case = make(place)
        case.source.build(case.definition, BuildMode.NO_OVERWRITE, Progress())
        server.mounted = Path(case.source.attach(case.definition, Progress()).path)
        server.at_end.append(case.close)
    made = server.mounted / directory.name
    made.mkdir()
    made.chmod(0o755)
    with host(made) as root:
        yield root


def over_ceph(directory: Path) -> AbstractContextManager[RootDirectory]:
    return _over(ceph_cluster.shared(), on_ceph, ceph_cluster.shared().base / "mounted", directory)


def over_sshfs(directory: Path) -> AbstractContextManager[RootDirectory]:
    return _over(shared(), on_sshd, shared().place / "mounted", directory)


ROOTS: dict[str, RootCase] = {
    "host": RootCase(),
    "tmpfs": RootCase(tmpfs),
    "memory": RootCase(memory),
    "ext4": RootCase(volume="ext4"),
    "xfs": RootCase(volume="xfs"),
    "btrfs": RootCase(volume="btrfs-plain"),
    "overlay": RootCase(volume="overlay"),
    "zfs": RootCase(on_zpool, server="usable_zfs"),
    "sshfs": RootCase(over_sshfs, server="sshd"),
    "moosefs": RootCase(over_moosefs, server="moosefs"),
    "ceph": RootCase(over_ceph, server="ceph"),
}
FILE_SYSTEMS: dict[str, FileSystemCase] = {
    "generic-host": FileSystemCase(generic.probe, ROOTS["host"]),
    "generic-tmpfs": FileSystemCase(generic.probe, ROOTS["tmpfs"]),
    "generic-memory": FileSystemCase(generic.probe, ROOTS["memory"]),
    "generic-ext4": FileSystemCase(generic.probe, ROOTS["ext4"]),
    "generic-xfs": FileSystemCase(generic.probe, ROOTS["xfs"]),
    "generic-overlay": FileSystemCase(generic.probe, ROOTS["overlay"]),
    "generic-sshfs": FileSystemCase(generic.probe, ROOTS["sshfs"]),
    "btrfs-plain": FileSystemCase(btrfs.probe, RootCase(volume="btrfs-plain")),
    "btrfs-qgroup": FileSystemCase(btrfs.probe, RootCase(volume="btrfs-qgroup")),
    "btrfs-simple": FileSystemCase(btrfs.probe, RootCase(volume="btrfs-simple")),
    "simulated": FileSystemCase(simulated_quota.probe, ROOTS["memory"]),
    "moosefs": FileSystemCase(moosefs_items.probe, ROOTS["moosefs"]),
    "zfs": FileSystemCase(zfs.probe, ROOTS["zfs"]),
    "ceph": FileSystemCase(ceph.probe, ROOTS["ceph"]),
}


def on_device(directory: Path) -> SourceCase:
    """On a loop device that is the test's own."""
    image = directory / "disk"
    with image.open("wb") as file:
        file.truncate(VOLUME_SIZE)
    device = run("losetup", "--find", "--show", image).stdout.strip()
    source = PoolSource(device=device, format="ext4")
    return SourceCase(
        volume_source(directory),
        volume_pool(directory, source),
        lambda: take_away(found for found in attached() if found.sentence.endswith(f" on {image}")),
    )


def on_libvirt(directory: Path) -> SourceCase:
    """On a volume of a libvirtd that is the test's own."""
    images, place = directory / "images", directory / "libvirt"
    images.mkdir()
    place.mkdir()
    server = Libvirtd(place)
    server.wait_until_usable()
    connect = ("virsh", "--quiet", "--connect", server.uri)
    run(*connect, "pool-create-as", "default", "dir", "--target", images)
    source = PoolSource(pool="default", volume="vol1", provider="libvirt", format="ext4")
    return SourceCase(
        VolumeSource(directory, [LibvirtVolumes(directory, server.uri)]),
        volume_pool(directory, source, VOLUME_SIZE),
        server.kill,
    )


SOURCES: dict[str, Callable[[Path], SourceCase]] = {
    "dir": lambda directory: SourceCase(DirectorySource(), pool(directory / "pools" / "tank")),
    "sim": lambda _: SourceCase(SimulatedSource(SimulatedHost()), pool("/simulated/pools/tank")),
    "images-ext4": lambda directory: on_image(directory, "ext4"),
    "images-xfs": lambda directory: on_image(directory, "xfs"),
    "images-zfs": lambda directory: on_image(directory, "zfs"),
    "images-btrfs": lambda directory: on_image(directory, "btrfs"),
    "device-ext4": on_device,
    "libvirt-ext4": on_libvirt,
    "network-sshfs": on_sshd,
    "network-moosefs": on_moosefs,
    "network-cephfs": on_ceph,
    "network-bound": bound,
}


def source_marks(name: str) -> list[pytest.MarkDecorator]:
    """What a test of this source needs of the machine."""
    if "-" not in name:
        return []
    provider, _, format = name.partition("-")
    if provider == "network":
        servers = {"sshfs": sshd.MARKS, "moosefs": moosefs.MARKS, "cephfs": ceph_cluster.MARKS}
        return servers.get(format, [pytest.mark.root, pytest.mark.required])
    programs = ["zfs-fuse" if format == "zfs" else f"mkfs.{format}", "blkid", "wipefs", "losetup"]
    if provider == "libvirt":
        programs += ["libvirtd", "virsh"]
    return [pytest.mark.root, pytest.mark.required, pytest.mark.program(*programs)]
