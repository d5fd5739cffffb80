"""The directories of one operation and the daemon on them, which can begin again from a saved moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from crashing.disk import Disk, Folder, Image
from crashing.errors import CrashtestError
from crashing.leaving import LEAVING
from crashing.tracer import Kill, Tracer
from crashing.volumes import Volumes
from support import zfs
from support.daemon import Daemon
from support.leftovers import beneath, take_away
from support.machine import is_mounted, loop_devices, mounts
from support.shell import run, sh
from support.wait import eventually

#: No verb may go on in the background because the machine is slow.
_OPTIONS = ("--grace", "60")
_KEPT = ("state", "storage")
#: The storage that is a plain directory, and the one whose pools are on volumes of some format.
FOLDER, VOLUME = "folder", "volume-"
#: What images of volumes lie on: one that keeps their inode numbers when it is put back as a whole.
_UNDER_VOLUMES = "ext4"


class Workplace:
    """State and storage in `directory`, the latter on storage of `kind`; `mount` is the control tree."""

    def __init__(self, directory: Path, numbers: Mapping[int, str], kind: str = FOLDER) -> None:
        self._directory = directory
        self._numbers = numbers
        self._log_read = 0
        self._on_zfs = kind == f"{VOLUME}zfs"
        directory.mkdir()
        saved = directory / "saved"
        saved.mkdir()
        self.daemon = Daemon(directory / "d", options=_OPTIONS, env={}, user=None)
        self.mount, self.state, self.storage = (
            self.daemon.mount,
            self.daemon.state,
            self.daemon.storage,
        )
        self._disks: list[Disk] = [Folder(self.state, saved / "state")]
        if kind == FOLDER:
            self._disks.append(Folder(self.storage, saved / "storage"))
        else:
            below = _UNDER_VOLUMES if kind.startswith(VOLUME) else kind
            self._disks.append(Image(below, self.storage, saved / "image"))
        self.volumes = Volumes(self.storage) if kind.startswith(VOLUME) else None

    def save(self) -> None:
        """Keep state and storage as they are now; no daemon runs."""
        self._unmount()
        for disk in self._disks:
            disk.save()

    def begin_again(self) -> None:
        """Put back what was saved; no daemon runs."""
        self._unmount()
        for disk in self._disks:
            disk.put_back()

    def copy_to(self, place: Path) -> None:
        """Copy state and storage into the new directory `place`."""
        place.mkdir()
        run("cp", "-a", "--sparse=always", "--", *(self.daemon.base / name for name in _KEPT), place)

    def _unmount(self) -> None:
        """Take away what a daemon has left mounted in its state directory, and its pools' volumes."""
        if self._on_zfs:
            _export()
        left = [*beneath(self.state), *beneath(self.storage)]
        take_away(leftover for leftover in left if leftover.remedy[0] == "umount")
        eventually(
            # They go with their last user, which may be a program that has just been killed.
            lambda: not any(device.file.startswith(f"{self.storage}/") for device in loop_devices()),
            what=f"the loop devices of {self.storage} have gone",
        )

    def start(self) -> None:
        """Start the daemon and wait until it serves."""
        with LEAVING.held():
            self.daemon.start()

    def do(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a line of an operation; see `crashing.operations` for its variables."""
        env = {
            "M": str(self.mount),
            "S": str(self.storage),
            "D": str(self.daemon.process.pid),
            "P": str(self.mount / "pools" / "tank"),
            "R": str(self.storage / "pools" / "tank"),
        }
        return sh(script, shell="dash", env=env, check=False)

    def must(self, script: str) -> None:
        """The same for what can only fail when something is wrong with the test or the daemon."""
        done = self.do(f"set -e\n{script}")
        if done.returncode:
            raise CrashtestError(f"{script.strip()}\nfailed:\n{done.stderr}{self.daemon.log}")

    def trace(self, kill: Kill | None = None) -> Tracer:
        """Follow the running daemon and kill it at a change to storage."""
        return Tracer(
            self.daemon.process.pid,
            names=self._numbers,
            directories=(str(self.state), str(self.storage)),
            kill=kill,
        )

    @property
    def is_serving(self) -> bool:
        """Whether the daemon runs and has not begun to end; the end of one that is followed shows late."""
        return self.daemon.is_running and is_mounted(self.mount)

    def kill(self) -> None:
        """Kill the daemon if it runs. Its mount stays, as it does when nobody is there to clean up."""
        if self.daemon.is_running:
            self.daemon.kill(unmount=False)

    def boot(self) -> None:
        """Make the host appear to have been booted since the daemon ended: no pool is active by itself."""
        for marker in (self.state / "active").iterdir():
            marker.write_text("the boot before\n")

    def new_log(self) -> str:
        """What the daemons have logged since this was last asked."""
        log = self.daemon.log
        new, self._log_read = log[self._log_read :], len(log)
        return new

    def close(self) -> None:
        """End the daemon, unmount, and remove everything."""
        self.kill()
        self.daemon.unmount()
        self._unmount()
        for disk in self._disks:
            disk.close()
        run("rm", "-rf", "--one-file-system", "--", self._directory)


def _export() -> None:
    """Unmount all of zfs, the deepest first, and let go of the zpools."""
    for mount in sorted(mounts(), key=lambda mount: len(mount.point), reverse=True):
        # What is shown elsewhere goes with what it shows.
        if mount.fstype in zfs.TYPES and is_mounted(Path(mount.point)):
            os.statvfs(mount.point)  # as the daemon does it before, see `fspoolfs.backends.zfs_mounts.settle`
            run("umount", mount.point)
    for name in zfs.imported():
        eventually(
            lambda name=name: run("zpool", "export", name, check=False).returncode == 0,  # type: ignore[misc]
            what=f"zpool {name} is exported",
        )
