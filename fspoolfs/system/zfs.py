"""The programs zpool and zfs: OpenZFS and zfs-fuse 0.7 alike.

Only options that both have are used, and their answers without headers. What they print for people is
never parsed but for "dataset is busy", which they say for a moment after something was unmounted.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fspoolfs.errors import FspoolError, StorageError
from fspoolfs.system import command, syscalls

#: Seconds that a command may take: a pool may have to be replayed or a dataset's blocks be freed.
_TIMEOUT = 300.0
#: Seconds for which "busy" is not believed, and between two attempts.
_BUSY, _STEP = 2.0, 0.02
#: What a dataset is told so that its pool writes everything down; the value means nothing.
_FLUSH = "fspoolfs:flushed"

#: Properties of a dataset that is mounted when it is told to, and never else.
_OURS = {"canmount": "noauto"}

#: What the kernel's module says of itself, while it is loaded.
_MODULE = "/sys/module/zfs/version"
_OPENZFS = "OpenZFS"

#: File system types in mountinfo.
TYPES = frozenset(("zfs", "fuse.zfs"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file system of a pool: its whole name, and the snapshot that it is a clone of, or ""."""

    name: str
    origin: str


def version() -> str:
    """Which zfs it is that this host has, such as "OpenZFS 2.1.11"."""
    try:
        with open(_MODULE) as file:
            return f"{_OPENZFS} {file.read().strip().partition('-')[0]}"
    except FileNotFoundError:
        return "zfs-fuse"


def is_openzfs() -> bool:
    return version().startswith(_OPENZFS)


def unusable() -> str:
    """Why there can be no pools on this host; empty where there can."""
    for program in ("zpool", "zfs"):
        if command.find(program) is None:
            return f"{program} is not installed; install the package zfsutils-linux, or zfs-fuse"
    try:
        _run("zpool", "list", "-H", "-o", "name")
    except FspoolError as error:
        return f"{error}; load the kernel's module zfs, or start zfs-fuse"
    return ""


def _run(*argv: str, inherited: Sequence[int] = ()) -> list[list[str]]:
    """The fields of each line that the program prints."""
    said = command.run(argv, timeout=_TIMEOUT, inherited=inherited)
    return [line.split("\t") for line in said.stdout.decode("utf-8", "replace").splitlines()]


def _run_patiently(*argv: str) -> None:
    """Again and again while it is told that something is busy that was just let go."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            _run(*argv)
            return
        except StorageError as error:
            if "busy" not in str(error):
                raise
            if time.monotonic() >= until:
                raise StorageError(str(error), errno=errno.EBUSY) from error
        time.sleep(_STEP)


# -- pools ----------------------------------------------------------------------------------------


def imported() -> set[str]:
    """The names of the pools that are in use on this host."""
    return {fields[0] for fields in _run("zpool", "list", "-H", "-o", "name")}


def create_pool(name: str, device: str, mountpoint: str, *, inherited: Sequence[int] = ()) -> None:
    """Make a pool of the one `device`, whose first dataset is never mounted and holds the others."""
    datasets = ("-O", f"mountpoint={mountpoint}", "-O", "canmount=off", "-O", "atime=off")
    _run("zpool", "create", "-f", "-o", "cachefile=none", *datasets, name, device, inherited=inherited)


def import_pool(name: str, directory: str) -> None:
    """Import a pool whose device has an entry in `directory`.

    Nothing of it is mounted that has canmount=noauto; zfs-fuse knows no other way to say so.
    """
    _run("zpool", "import", "-o", "cachefile=none", "-d", directory, name)


def export_pool(name: str) -> None:
    """Raises `StorageError` with EBUSY while something of it is mounted; zfs-fuse waits for seconds."""
    _run_patiently("zpool", "export", name)


def is_fuse(magic: int) -> bool:
    """Whether it is zfs-fuse that has mounted something of which `magic` is f_type of statfs(2)."""
    return magic == syscalls.FUSE_MAGIC


def fill_device(name: str, device: str) -> None:
    """Let a pool use all of a device that has grown."""
    _run("zpool", "online", "-e", name, device)


def health(name: str) -> str:
    """ "ONLINE", or another word for what is wrong."""
    return _run("zpool", "list", "-H", "-o", "health", name)[0][0]


def devices_of(name: str) -> list[str]:
    """The words of a pool's status, among which its devices are, as it was imported by."""
    # OpenZFS shortens them otherwise, and knows none by what it shows then; zfs-fuse has no such option.
    whole = ["-P"] if is_openzfs() else []
    said = command.run(["zpool", "status", *whole, name], timeout=_TIMEOUT)
    return said.stdout.decode("utf-8", "replace").split()


# -- datasets -------------------------------------------------------------------------------------


def datasets(pool: str) -> list[Dataset]:
    """All file systems of a pool, itself included."""
    found = _run("zfs", "list", "-H", "-o", "name,origin", "-t", "filesystem", "-r", pool)
    return [Dataset(name, "" if origin == "-" else origin) for name, origin in found]


def lasting_snapshots(pool: str) -> list[str]:
    """The whole names of the snapshots in a pool, but for those that go with their last clone."""
    found = _run("zfs", "list", "-H", "-o", "name,defer_destroy", "-t", "snapshot", "-r", pool)
    return [name for name, goes in found if goes != "on"]


def create(dataset: str) -> None:
    """Make an empty file system, which nobody mounts by itself."""
    _run("zfs", "create", *_options(_OURS), dataset)


def snapshot(name: str) -> None:
    _run("zfs", "snapshot", name)


def clone(snapshot: str, dataset: str, properties: Mapping[str, str]) -> None:
    _run("zfs", "clone", *_options({**_OURS, **properties}), snapshot, dataset)


def destroy_with_clones(snapshot: str) -> None:
    """Destroy a snapshot as soon as it has no clone any more, which may be at once."""
    _run_patiently("zfs", "destroy", "-d", snapshot)


def promote(dataset: str) -> None:
    _run("zfs", "promote", dataset)


def destroy(dataset: str) -> None:
    """Destroy a file system and its snapshots, of which there must be no clones."""
    _run_patiently("zfs", "destroy", "-r", dataset)


def set_property(dataset: str, name: str, value: str) -> None:
    _run("zfs", "set", f"{name}={value}", dataset)


def property_of(dataset: str, name: str) -> str:
    return _run("zfs", "get", "-H", "-p", "-o", "value", name, dataset)[0][0]


def mount(dataset: str) -> None:
    """Mount it where its property mountpoint says."""
    _run_patiently("zfs", "mount", dataset)


def flush(pool: str) -> None:
    """Have everything written down that was done in any dataset of a pool.

    What changes a property is durable when it returns, with all that came before it.
    """
    set_property(pool, _FLUSH, str(time.time_ns()))


def _options(properties: Mapping[str, str]) -> list[str]:
    return [word for name, value in properties.items() for word in ("-o", f"{name}={value}")]
