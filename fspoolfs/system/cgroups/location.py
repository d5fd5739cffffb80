"""Which control groups this host has, and below which one fspoolfs may make its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fspoolfs.system import mounts
from fspoolfs.system.cgroups.legacy import Legacy
from fspoolfs.system.cgroups.unified import Unified

#: Tells that systemd runs (sd_booted(3)), and so that control groups are its own.
_SYSTEMD: Final = Path("/run/systemd/system")
#: The unit that hands a part of them to fspoolfs; docs/cgroups.md has it.
UNIT: Final = "/system.slice/fspoolfs-items.service"
_OURS: Final = frozenset({"io", "memory", "pids", "cpu"})
_CONTROLLERS_V1: Final = frozenset(
    {
        *("blkio", "memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"),
        *("net_cls", "net_prio", "perf_event", "rdma", "misc"),
    }
)


def find(parent: str | None) -> Unified | Legacy | str:
    """What limits are set with, below the group `parent` or a default one; or why there is nothing."""
    unified, legacy, others = _mounted()
    where = parent if parent is not None else _default()
    if unified is not None and _OURS & set(_controllers(unified)):
        if parent is None and where == UNIT and not (unified / UNIT.lstrip("/")).is_dir():
            return (
                f"systemd manages the control groups of this host, and there is none at {UNIT}; start that "
                "unit, or name another one that is delegated with --cgroup-parent (docs/cgroups.md)"
            )
        return Unified(unified, where)
    if legacy:
        # Nothing is delegated in version 1; a new group of its own is what others make there, too.
        return Legacy(legacy, [*([unified] if unified is not None else []), *others], parent or "/")
    return "no control groups with controllers are mounted"


def _default() -> str:
    return UNIT if _SYSTEMD.is_dir() else "/"


def _mounted() -> tuple[Path | None, Mapping[str, Path], Sequence[Path]]:
    """Where version 2 is mounted, each controller of version 1, and hierarchies without any."""
    unified: Path | None = None
    legacy: dict[str, Path] = {}
    others = []
    for mount in mounts.mounts():
        if mount.fs_type == "cgroup2":
            unified = unified or Path(mount.target)
        elif mount.fs_type == "cgroup":
            names = _CONTROLLERS_V1.intersection(os.path.basename(mount.target).split(","))
            for name in names:
                legacy.setdefault(name, Path(mount.target))
            if not names:
                others.append(Path(mount.target))
    return unified, legacy, others


def _controllers(unified: Path) -> list[str]:
    try:
        return (unified / "cgroup.controllers").read_text().split()
    except OSError:
        return []
