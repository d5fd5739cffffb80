"""Which sources and file systems there are: the one place where a new one is made known.

A source is found by the type and format of a pool's definition, a file system by what its probe
says about an attached root.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fspoolfs.backends import btrfs, ceph, generic, moosefs, project_quota, simulated_quota, zfs
from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.network.bound import Bound
from fspoolfs.backends.network.cephfs import Ceph, Cephfs
from fspoolfs.backends.network.cifs import Cifs
from fspoolfs.backends.network.glusterfs import GlusterFs
from fspoolfs.backends.network.moosefs import MooseFs
from fspoolfs.backends.network.nfs import Nfs
from fspoolfs.backends.network.sshfs import Sshfs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.backends.source import Composite, Source
from fspoolfs.backends.volume import VolumeSource
from fspoolfs.backends.volumes.device import Devices
from fspoolfs.backends.volumes.images import Images
from fspoolfs.backends.volumes.libvirt import LibvirtVolumes
from fspoolfs.backends.volumes.lvm import LogicalVolumes
from fspoolfs.backends.volumes.provider import VolumeProvider
from fspoolfs.backends.zfs_volume import ZfsVolumeSource
from fspoolfs.errors import InvalidError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.model.infos import Feature
from fspoolfs.system.libvirt_uri import DEFAULT_URI

_ABSENT = "no backend in this version"

#: What pools are known by, in the order in which `features` shows it. What is not registered is
#: shown too, as not usable: whoever looks for it then knows.
_SOURCES = ("dir", "volume", "network")
_ENGINES = ("sshfs", "cephfs", "moosefs", "nfs", "cifs", "glusterfs")
_PROVIDERS = ("images", "device", "lvm", "libvirt")
_FORMATS = ("ext4", "xfs", "btrfs", "zfs")
_FILE_SYSTEMS = ("btrfs", "project-quota", "zfs", "ceph", "moosefs", "generic")


@dataclass(frozen=True, slots=True)
class FileSystemKind:
    """A file system's name, and the probe that answers `None` for a root that is another's."""

    name: str
    probe: Callable[[RootDirectory], FileSystem | None]


SIMULATED = FileSystemKind(simulated_quota.SimulatedFileSystem.name, simulated_quota.probe)
GENERIC = FileSystemKind(generic.GenericFileSystem.name, generic.probe)
BTRFS = FileSystemKind(btrfs.BtrfsFileSystem.name, btrfs.probe)
PROJECT_QUOTA = FileSystemKind(project_quota.ProjectQuotaFileSystem.name, project_quota.probe)
CEPH = FileSystemKind(ceph.CephFileSystem.name, ceph.probe)
ZFS = FileSystemKind(zfs.ZfsFileSystem.name, zfs.probe)
MOOSEFS = FileSystemKind(moosefs.MooseFileSystem.name, moosefs.probe)


class Registry:
    """What this program can work with.

    `filesystems` are asked in order; where none recognises a root, the generic one takes it.
    """

    def __init__(self, sources: Sequence[Source], filesystems: Sequence[FileSystemKind] = ()) -> None:
        self._sources = tuple(sources)
        self._filesystems = (*filesystems, GENERIC)

    def check(self, definition: PoolDefinition) -> None:
        """Raise `InvalidError` for a format of volumes that nobody knows, in no version."""
        format = definition.source.format
        if definition.type is PoolType.VOLUME and format not in (None, *_FORMATS):
            raise InvalidError(
                f"pool {definition.name}: there is no format {format!r} of volumes; use one of "
                f"{', '.join(_FORMATS)}"
            )

    def source_for(self, definition: PoolDefinition) -> Source:
        """The source for a pool's type and format; one for just this format goes first.

        Raises `UnsupportedError` where there is none.
        """
        wanted = definition.source.format or ""
        for format in dict.fromkeys((wanted, "")):
            for source in self._sources:
                if (
                    source.type == definition.type
                    and source.format == format
                    and not _lacks(source, definition)
                ):
                    return source
        provider = definition.source.provider
        named = [f"format '{wanted}'"] if wanted else []
        named += [f"provider '{provider}'"] if provider else []
        what = f"type '{definition.type}'" + (f" with {' and '.join(named)}" if named else "")
        usable = ", ".join(_title(source) for source in self._sources if not source.unusable())
        raise UnsupportedError(
            f"pool {definition.name}: {what} has no backend in this version; use one of what works on this "
            f"host: {usable}"
        )

    def filesystem_at(self, root: RootDirectory) -> FileSystem:
        """The file system of an attached root."""
        for kind in self._filesystems:
            found = kind.probe(root)
            if found is not None:
                return found
        raise AssertionError("the generic file system takes every root")

    def features(self) -> list[Feature]:
        """Each pool type, volume provider and file system: usable on this host, or why not."""
        rows = {f"pool {name}": _ABSENT for name in _SOURCES}
        rows |= {f"pool {_title(source)}": source.unusable() for source in self._sources}
        rows |= {f"provider {name}": _ABSENT for name in _PROVIDERS}
        rows |= {f"format {name}": _ABSENT for name in _FORMATS}
        rows |= {f"network {name}": _ABSENT for name in _ENGINES}
        rows |= {f"filesystem {name}": _ABSENT for name in _FILE_SYSTEMS}
        rows |= {f"filesystem {kind.name}": "" for kind in self._filesystems}
        found = {name: Feature(name=name, reason=reason) for name, reason in rows.items()}
        for source in self._sources:
            if isinstance(source, Composite):
                found |= {part.name: part for part in source.parts()}
        return list(found.values())


def _lacks(source: Source, definition: PoolDefinition) -> bool:
    """Whether the definition names a part of the source that there is none of."""
    return isinstance(source, Composite) and source.lacks(definition)


def _title(source: Source) -> str:
    """How `features` names a source: "dir", "network nfs"."""
    return f"{source.type} {source.format}".rstrip()


def default_registry(storage: Path, *, libvirt_uri: str = DEFAULT_URI) -> Registry:
    """Everything that works on real storage; volumes that are files lie below `storage`."""
    providers: list[VolumeProvider] = [
        Images(storage),
        Devices(),
        LogicalVolumes(),
        LibvirtVolumes(storage, libvirt_uri),
    ]
    sources: list[Source] = [
        DirectorySource(),
        VolumeSource(storage, providers),
        ZfsVolumeSource(storage, providers),
        # In this order hosts are asked what they serve; that there is an sshd says least.
        NetworkSource([Cephfs(), Ceph(), MooseFs(), Nfs(), Cifs(), GlusterFs(), Sshfs()], Bound()),
    ]
    return Registry(sources, [BTRFS, PROJECT_QUOTA, ZFS, CEPH, MOOSEFS])


def simulated_registry(host: SimulatedHost) -> Registry:
    """Directory pools in memory, on `host`, with limits and counters."""
    return Registry([SimulatedSource(host)], [SIMULATED])
