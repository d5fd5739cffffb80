"""The formats of volumes: how each file system is made, mounted and enlarged. One row a format.

Whether a volume may be formatted is not asked here. Labels and UUIDs are the pool's, so that a volume
says whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import FspoolError
from fspoolfs.progress import Progress
from fspoolfs.system import btrfs_setup, command, syscalls
from fspoolfs.system.paths import HostRoot

#: Seconds that making, enlarging and checking may take: a disk may have to be read or discarded whole.
_MAKE_TIMEOUT = 4 * 3600.0
_GROW_TIMEOUT = 3600.0
#: mkfs.btrfs refuses a UUID that another device has, and libblkid believes for two seconds what it has
#: seen on a loop device that shows something else by now.
_NO_CACHE = {"BLKID_FILE": "/dev/null"}
#: Seconds for looking at what cannot be mounted: nobody waits for a whole disk to be read.
_LOOK_TIMEOUT = 30.0
#: What a line has that says what is wrong.
_TELLING = re.compile("error|corrupt|bad|invalid|inconsisten|mismatch|damaged", re.IGNORECASE)

#: What e2fsck wants to have, and makes when it needs it; items' names are all the pool's own.
LOST_AND_FOUND = "lost+found"

#: include/uapi/linux/capability.h
_CAP_SYS_RESOURCE = 24

#: Enlarges a mounted file system to its device: the device, the mount point, the root's descriptor.
Grow = Callable[[Device, str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One file system: `make` is the program and its options, `variants` more of those, the best first."""

    name: str
    make: tuple[str, ...]
    #: Options in front of the label, in front of the UUID, and for a volume that is zero anyway.
    label: str
    uuid: str
    fresh: tuple[str, ...]
    #: Bytes that a label may have.
    label_size: int
    #: The Debian package of its programs, and those beside the first of `make`.
    package: str
    programs: tuple[str, ...]
    grow: Grow
    #: The capability (capabilities(7)) that the kernel demands for that, and the other way then.
    grow_needs: int | None = None
    grow_unmounted: Callable[[Device], None] | None = None
    #: Makes a mounted one smaller: its root's descriptor, and bytes.
    shrink: Callable[[int, int], None] | None = None
    #: The same for the one in a file, where it cannot be done while it is mounted.
    shrink_file: Callable[[str, int, Progress], None] | None = None
    #: Sets up what only a mounted file system can be told, through a descriptor of its new root.
    finish: Callable[[int], None]
    #: Undoes what checking it may have added to its root, each time that it is mounted.
    tidy: Callable[[HostRoot], None] = lambda root: None
    variants: tuple[tuple[str, ...], ...] = ((),)
    #: Mount options, tried in this order while the kernel refuses them; the last ones are for what was
    #: made without quota.
    options: tuple[str, ...] = ("",)
    #: Whether its superblock tells if it was made with quota: where not, no kernel takes the option.
    tells_quota: bool = False
    #: What a person runs when it cannot be mounted, and the same without mending anything.
    check: str
    look: tuple[str, ...]
    #: Mends what can be mended without losing anything, where the kernel mounts what has errors.
    mend: tuple[str, ...] | None = None
    #: What a person runs so that kernels without quota mount it, where they do not otherwise.
    drop_quota: str | None = None

    def missing(self) -> str:
        """What has to be installed before it can be used here; empty where all is there."""
        for program in (self.make[0], *self.programs):
            if command.find(program) is None:
                return f"{program} is not installed; install the package {self.package}"
        return ""

    def why_not_online(self) -> str:
        """Why this process cannot enlarge one that is mounted; empty where it can."""
        if self.grow_needs is None or syscalls.has_capability(self.grow_needs):
            return ""
        return (
            f"the kernel wants CAP_SYS_RESOURCE for enlarging a mounted {self.name}, which the daemon lacks"
        )

    def diagnosis(self, device: str) -> str:
        """What the format's check says of a damaged file system, in one line; empty where it says nothing."""
        try:
            said = command.run([*self.look, device], timeout=_LOOK_TIMEOUT, allowed=range(1, 256))
        except FspoolError:
            return ""
        return _telling(said)

    def mended(self, device: Device) -> str:
        """Let the format's check mend a file system with errors; what is left of them, in one line."""
        if self.mend is None:
            return ""
        argv = [*self.mend, device.path]
        said = command.run(argv, timeout=_GROW_TIMEOUT, allowed=range(1, 256), inherited=[device.fd])
        # fsck(8): 1 is "errors corrected"; more than that, and some are left.
        return _telling(said) or f"status {said.status}" if said.status > 1 else ""

    def cut_label(self, name: str) -> str:
        """As much of a pool's name as fits."""
        return name.encode()[: self.label_size].decode("utf-8", "ignore")

    def run_make(
        self,
        device: Device,
        name: str,
        uuid: UUID,
        variant: Sequence[str],
        progress: Progress,
        *,
        fresh: bool,
    ) -> None:
        """Format `device`. Killed when `progress` is cancelled, and with this process."""
        options = [*self.make, *variant, self.label, self.cut_label(name), self.uuid.format(uuid)]
        # The UUID's option is one word or two.
        argv = [*options[:-1], *options[-1].split(" "), *(self.fresh if fresh else ()), device.path]
        command.run(
            argv,
            timeout=_MAKE_TIMEOUT,
            progress=progress,
            variables=_NO_CACHE,
            inherited=[device.fd],
            tied=True,
        )


def _telling(said: command.Output) -> str:
    """The first line of a check's answer that names what is wrong."""
    lines = (said.stderr + b"\n" + said.stdout).decode("utf-8", "replace").splitlines()
    telling = [line.strip().removeprefix("ERROR: ") for line in lines if _TELLING.search(line)]
    return telling[0] if telling else ""


def _grow_ext4(device: Device, place: str, root: int) -> None:
    command.run(["resize2fs", device.path], timeout=_GROW_TIMEOUT, inherited=[device.fd])


def _grow_ext4_unmounted(device: Device) -> None:
    # resize2fs demands the check; status 1 says that something small was mended. Neither is tied to
    # the daemon: what they leave when they are killed half-way may have to be mended by hand.
    fds = [device.fd]
    command.run(["e2fsck", "-f", "-p", device.path], timeout=_GROW_TIMEOUT, allowed=(1,), inherited=fds)
    command.run(["resize2fs", device.path], timeout=_GROW_TIMEOUT, inherited=fds)


def _shrink_ext4_file(path: str, size: int, progress: Progress) -> None:
    # In a copy, which is of no use to the next daemon.
    check, shrink = ["e2fsck", "-f", "-p", path], ["resize2fs", path, f"{size >> 10}K"]
    command.run(check, timeout=_GROW_TIMEOUT, allowed=(1,), progress=progress, tied=True)
    command.run(shrink, timeout=_GROW_TIMEOUT, progress=progress, tied=True)


def _grow_xfs(device: Device, place: str, root: int) -> None:
    command.run(["xfs_growfs", "-d", place], timeout=_GROW_TIMEOUT, inherited=[device.fd])


def _grow_btrfs(device: Device, place: str, root: int) -> None:
    btrfs_setup.fill_device(root)


def _remove_lost_and_found(root: HostRoot) -> None:
    """Unless there is something in it; where nothing can be written it stays as well."""
    with suppress(OSError):
        root.remove_directory(LOST_AND_FOUND)


FORMATS = {
    one.name: one
    for one in (
        Format(
            name="ext4",
            # Blocks of a fixed size: small ones are not for devices with sectors of 4096 bytes.
            make=("mkfs.ext4", "-q", "-F", "-b", "4096"),
            # A kernel without project quota does not mount what is made for it.
            variants=(("-O", "quota,project"), ()),
            options=("prjquota", ""),
            tells_quota=True,
            label="-L",
            uuid="-U {}",
            fresh=("-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
            label_size=16,
            package="e2fsprogs",
            programs=("resize2fs", "e2fsck"),
            grow=_grow_ext4,
            grow_needs=_CAP_SYS_RESOURCE,
            grow_unmounted=_grow_ext4_unmounted,
            shrink_file=_shrink_ext4_file,
            finish=lambda root: None,
            tidy=_remove_lost_and_found,
            check="e2fsck -f",
            look=("e2fsck", "-f", "-n"),
            mend=("e2fsck", "-p"),
            drop_quota="tune2fs -O ^quota,^project",
        ),
        Format(
            name="xfs",
            make=("mkfs.xfs", "-q", "-f", "-s", "size=4096"),
            options=("prjquota", ""),
            label="-L",
            uuid="-m uuid={},reflink=1",
            fresh=("-K",),
            label_size=12,
            package="xfsprogs",
            programs=("xfs_growfs",),
            grow=_grow_xfs,
            finish=lambda root: None,
            check="xfs_repair",
            look=("xfs_repair", "-n"),
        ),
        Format(
            name="btrfs",
            make=("mkfs.btrfs", "-q", "-f"),
            label="-L",
            uuid="-U {}",
            fresh=("-K",),
            label_size=255,
            package="btrfs-progs",
            programs=(),
            grow=_grow_btrfs,
            shrink=btrfs_setup.shrink,
            finish=btrfs_setup.enable_quotas,
            check="btrfs check",
            look=("btrfs", "check", "--readonly"),
        ),
    )
}
#: What a volume gets whose definition names no format.
DEFAULT = FORMATS["ext4"]
