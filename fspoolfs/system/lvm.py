"""Logical volumes, by the programs of LVM 2: their reports are JSON, sizes are bytes.

Works with the configuration of the host (lvm.conf(5)), udev or none. Names have been checked: see
`is_name`. Everything blocks; LVM has locks of its own against other programs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspoolfs.system import command

#: Seconds that a program may take: it waits for whoever has locked the group.
_TIMEOUT = 300.0
#: ECMD_INVALID of lvm(8): it does not know an option.
_INVALID = 3
#: lvm(8): what names consist of; none begins with a hyphen.
_NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}")
#: How libdevmapper puts the names of a group and a volume together: hyphens are doubled.
_MAPPED = re.compile(r"(?P<group>(?:[^-]|--)+)-(?P<volume>(?:[^-]|--)+)")

_VOLUME_FIELDS = "vg_name,lv_name,lv_path,lv_size,lv_tags,lv_active,lv_layout,pool_lv,data_percent"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """One logical volume. `pool` is the thin pool that it lies in, if in one, else empty.

    `used` is the part of it that is mapped, 0.0 to 1.0: all of one that is not thin, and `None` of a thin
    one, or of a thin pool, that is not active, since LVM asks the kernel.
    """

    group: str
    name: str
    path: str
    size: int
    tags: frozenset[str]
    active: bool
    pool: str
    used: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """A volume group, and the size of its extents, to which all sizes are rounded up."""

    name: str
    free: int
    extent: int


def unusable() -> str:
    """Why there are no logical volumes on this host; empty where there can be."""
    if command.find("lvs") is None:
        return "lvs is not installed; install the package lvm2"
    if not Path("/dev/mapper/control").exists():
        return "the kernel has no device mapper (/dev/mapper/control); load the module dm_mod"
    return ""


def is_name(name: str) -> bool:
    """Whether LVM may call a group or a volume so."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def volume_behind(device_number: tuple[int, int]) -> tuple[str, str] | None:
    """Group and name of the logical volume that the device (major, minor) is; `None` for any other."""
    directory = Path("/sys/dev/block") / f"{device_number[0]}:{device_number[1]}" / "dm"
    try:
        uuid, name = (directory / "uuid").read_text(), (directory / "name").read_text().rstrip("\n")
    except OSError:  # another kind of device
        return None
    return split_name(name) if uuid.startswith("LVM-") else None


def volume_named(path: str) -> tuple[str, str] | None:
    """Group and volume that a path would lead to that leads nowhere, as while a volume is not active."""
    directory, _, name = path.rpartition("/")
    if directory == "/dev/mapper":
        return split_name(name)
    group = directory.removeprefix("/dev/")
    return (group, name) if directory == f"/dev/{group}" and is_name(group) and is_name(name) else None


def split_name(mapped: str) -> tuple[str, str] | None:
    """Group and volume from the name of a mapped device, such as "vg0-my--data"."""
    found = _MAPPED.fullmatch(mapped)
    return None if found is None else (found["group"].replace("--", "-"), found["volume"].replace("--", "-"))


# -- reports --------------------------------------------------------------------------------------


def volumes(selection: str = "") -> list[LogicalVolume]:
    """All logical volumes, or those that `selection` (lvmreport(7)) leaves."""
    return [_volume(row) for row in _report("lvs", "lv", _VOLUME_FIELDS, selection)]


def volume(group: str, name: str) -> LogicalVolume | None:
    found = volumes(f'vg_name="{group}" && lv_name="{name}"')
    return found[0] if found else None


def volume_groups(selection: str = "") -> list[VolumeGroup]:
    """All volume groups, or those that `selection` leaves."""
    return [_group(row) for row in _report("vgs", "vg", "vg_name,vg_free,vg_extent_size", selection)]


def volume_group(name: str) -> VolumeGroup | None:
    found = volume_groups(f'vg_name="{name}"')
    return found[0] if found else None


def _report(program: str, kind: str, fields: str, selection: str) -> list[dict[str, str]]:
    argv = [program, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields]
    if selection:
        argv += ["--select", selection]
    return parse(command.run(argv, timeout=_TIMEOUT).stdout, kind)


def parse(text: bytes, kind: str) -> list[dict[str, str]]:
    """The rows of a report in JSON."""
    found: dict[str, Any] = json.loads(text)
    return [row for report in found["report"] for row in report[kind]]


def _volume(row: dict[str, str]) -> LogicalVolume:
    # Caches have pools, too, and a percentage that says something else, as that of a snapshot does.
    is_thin = "thin" in row["lv_layout"].split(",")
    percent = row["data_percent"]
    return LogicalVolume(
        group=row["vg_name"],
        name=row["lv_name"],
        path=row["lv_path"],
        size=int(row["lv_size"]),
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        active=row["lv_active"] == "active",
        pool=row["pool_lv"] if is_thin else "",
        used=1.0 if not is_thin else float(percent) / 100 if percent else None,
    )


def _group(row: dict[str, str]) -> VolumeGroup:
    return VolumeGroup(name=row["vg_name"], free=int(row["vg_free"]), extent=int(row["vg_extent_size"]))


# -- changes --------------------------------------------------------------------------------------


def create(group: str, name: str, size: int, *, tag: str, inherited: Collection[int] = ()) -> None:
    """Make a volume, and remove what signatures an older one has left in its place.

    The program has the descriptors `inherited`: see `command.run`.
    """
    wipe = ("--wipesignatures", "y", "--zero", "y")
    argv = ["lvcreate", "--yes", *wipe, "--addtag", tag, "--size", f"{size}b", "--name", name, group]
    _change(argv, inherited=inherited)


def rename(group: str, old: str, new: str, *, inherited: Collection[int] = ()) -> None:
    """Raises `StorageError` where there is a volume of the new name."""
    _change(["lvrename", group, old, new], inherited=inherited)


def activate(group: str, name: str) -> None:
    _change(["lvchange", "--activate", "y", "--ignoreactivationskip", f"{group}/{name}"])


def deactivate(group: str, name: str) -> None:
    """Raises `StorageError` while it is in use."""
    _change(["lvchange", "--activate", "n", f"{group}/{name}"])


def extend(group: str, name: str, size: int) -> None:
    _change(["lvextend", "--size", f"{size}b", f"{group}/{name}"])


def reduce(group: str, name: str, size: int) -> None:
    """Cut a volume off, whatever is on it."""
    plain = ["lvreduce", "--yes", "--force", "--size", f"{size}b"]
    # Since LVM 2.03.17 it looks at the file system, and knows few; versions before do not know the option.
    said = command.run([*plain, "--fs", "ignore", f"{group}/{name}"], timeout=_TIMEOUT, allowed=(_INVALID,))
    if said.status == _INVALID:
        _change([*plain, f"{group}/{name}"])


def remove(group: str, name: str) -> None:
    _change(["lvremove", "--yes", f"{group}/{name}"])


def _change(argv: Sequence[str], *, inherited: Collection[int] = ()) -> None:
    command.run(argv, timeout=_TIMEOUT, inherited=inherited)
