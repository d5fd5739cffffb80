"""The facts of the machine and the build that a figure means nothing without."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.mounts import mount_of

_ROOT = Path(__file__).resolve().parents[2]


def facts(directory: Path) -> dict[str, str]:
    """What stands above the table; `directory` is where the run works."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    mount = mount_of(directory)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} x {_processor()}, {memory_gib:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "storage": f"{mount.kind} on {_what_is(mount.source)}",
        "versions": f"fspoolfs {_commit()}, Python {platform.python_version()}, pyfuse3 {version('pyfuse3')}",
    }


def _what_is(device: str) -> str:
    """A device; of a loop device, what its image lies on."""
    backing = Path("/sys/block", Path(device).name, "loop", "backing_file")
    if not backing.exists():
        return device
    below = mount_of(Path(backing.read_text().removesuffix("\n")))
    return f"a loop device, its image on {below.kind} on {below.source}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit that is checked out, "-dirty" if it was changed since; "unknown" outside of a work tree."""
    command = ["git", "--no-optional-locks", "-C", os.fspath(_ROOT), "describe", "--always", "--dirty"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"
