"""What tests can leave behind on a machine, how to tell it from what is not theirs, and its removal."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.machine import loop_devices, mounts, processes_with, shared_memory
from support.shell import CommandError, run


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that should be gone: a sentence for a person, and the command that takes it away."""

    sentence: str
    remedy: tuple[str, ...]

    def remove(self) -> str:
        """Take it away; returns why that failed, or an empty string."""
        try:
            run(*self.remedy)
        except CommandError as error:
            return str(error)
        return ""


def mounted() -> list[Leftover]:
    """Every mount of this mount namespace, those above others first, as they must be unmounted."""
    unmount = ("umount", "--lazy") if os.geteuid() == 0 else ("fusermount3", "-u", "-z")
    return [
        Leftover(f"mount {mount.point} ({mount.fstype}, {mount.source})", (*unmount, mount.point))
        for mount in reversed(mounts())
    ]


def attached() -> list[Leftover]:
    """Every loop device of the machine that has a file."""
    return [
        # One that clears itself may have gone with the mount that was taken away before it.
        Leftover(
            f"loop device {loop.device} on {loop.file}",
            ("sh", "-c", f"losetup --detach {loop.device} || ! losetup {loop.device}"),
        )
        for loop in loop_devices()
    ]


def running(variable: str, value: str) -> list[Leftover]:
    """Every process that was started with `variable` set to `value` and has not ended."""
    return [
        Leftover(f"process {process.pid}: {process.command}", ("sh", "-c", f"kill -KILL {process.pid}"))
        for process in processes_with(variable, value)
    ]


def in_shared_memory() -> list[Leftover]:
    """This user's files in /dev/shm, but podman's: it keeps one lock file there for ever."""
    return [_file(path) for path in shared_memory() if not os.path.basename(path).startswith("libpod_")]


def files(directory: Path, *, but: Collection[Path] = ()) -> list[Leftover]:
    """The entries of `directory` except `but`."""
    return [_file(str(path)) for path in sorted(directory.iterdir()) if path not in but]


def beneath(directory: Path) -> Iterator[Leftover]:
    """What must go before `directory` can be removed: mounts on it or from it, then loop devices."""
    for leftover in [*mounted(), *attached()]:
        if f"{directory}/" in leftover.sentence:
            yield leftover


def take_away(found: Iterable[Leftover]) -> None:
    """Remove all of `found`; `AssertionError` with what would not go."""
    failures = [failure for leftover in found if (failure := leftover.remove())]
    assert not failures, "\n".join(failures)


def _file(path: str) -> Leftover:
    return Leftover(f"file {path}", ("rm", "-r", "-f", "--one-file-system", "--", path))
