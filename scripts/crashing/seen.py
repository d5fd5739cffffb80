"""What an outsider sees of a pool: the control tree's files about it, and its real directories.

A view is lines of text, so that a difference can be shown. What no two runs have in common (the uuid
of a new object, the time in a name in the trash) is replaced.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashing.volumes import Made, Volumes, size
from support.machine import mounts

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: What a second item of one name gets behind it in the trash, and what a rollback keeps in its name.
_STAMP = re.compile(r"(?:(?<=@)|(?<=k-))\d{8}-\d{6}")
#: The files of each kind of directory that say what it is; of these "pending.xml" need not be there.
_POOL_FILES = ("config.xml", "pending.xml", "autostart")
_ITEM_FILES = ("status", "config.xml")
OWN = ".fspool"


@dataclass(frozen=True, slots=True)
class View:
    """`told` by the control tree, `found` in the real directories; `active` tells whether it serves.

    `volume` is what its volume holds, if it has one.
    """

    active: bool
    told: tuple[str, ...]
    found: tuple[str, ...]
    volume: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self.told, *self.found, f"volume: {self.volume}")


def look(
    mount: Path, storage: Path, name: str, known: frozenset[str], made: frozenset[Made] = frozenset()
) -> View:
    """The view of pool `name`, defined or not; uuids that are not `known` are new ones.

    `made` are the file systems that volumes had at the beginning.
    """
    pool = mount / "pools" / name
    defined = pool.is_dir()
    root = Path(os.readlink(pool / "root")) if defined else storage / "pools" / name
    told = list(_told(pool)) if defined else ["not defined"]
    found = [*_above(root, storage), *_found(root, "")]
    if defined:
        found += _trash(pool, root)
    status = (pool / "status").read_text().split()[0] if defined else ""

    def plain(lines: list[str]) -> tuple[str, ...]:
        return tuple(_STAMP.sub("TIME", _UUID.sub(replace, line)) for line in lines)

    def replace(match: re.Match[str]) -> str:
        return match[0] if match[0] in known else "NEW"

    if os.path.ismount(root):
        found.append(f"size {size(root)}")
    volume = Volumes(storage).describe(name, made)
    return View(status == "active", plain(told), plain(found), volume)


def uuids(mount: Path) -> frozenset[str]:
    """Those of all pools, items and trash entries there are."""
    return frozenset(
        path.read_text().strip()
        for pattern in ("uuid", "items/*/uuid", "trash/*/uuid")
        for path in (mount / "pools").glob(f"*/{pattern}")
    )


def _told(pool: Path) -> Iterator[str]:
    # What comes behind the word is the progress of a job.
    yield f"status {(pool / 'status').read_text().split()[0]}"
    yield from _files(pool, _POOL_FILES)
    for item in sorted((pool / "items").iterdir()):
        info = item.stat()
        yield f"item {item.name} {stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
        yield from _files(item, _ITEM_FILES)
        for snapshot in sorted((item / "snapshots").iterdir()):
            yield f"snapshot {snapshot.name} of {item.name}"
            place = Path(os.readlink(snapshot / "data"))
            yield from _found(place, f"{snapshot.name} of {item.name}:", attributes=_tells_attributes(place))
    for entry in sorted((pool / "trash").iterdir()):
        yield f"trash {entry.name}"
        yield from _files(entry, ("config.xml",))


def _files(directory: Path, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        path = directory / name
        if path.exists():
            yield f"{name} {path.read_text()}"


def _above(root: Path, storage: Path) -> Iterator[str]:
    """The directories that were made for `root`, which others could harm it through."""
    if root.exists():
        for above in root.relative_to(storage).parents[:-1]:
            info = (storage / above).stat()
            yield f"above the root: {above} {stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"


def _trash(pool: Path, root: Path) -> Iterator[str]:
    """What the deleted items hold, by the names that they have in the trash."""
    for entry in sorted((pool / "trash").iterdir()):
        yield from _found(
            root / OWN / "trash" / (entry / "uuid").read_text().strip(), f"{entry.name} in trash:"
        )


def _found(path: Path, shown: str, *, attributes: bool = True) -> Iterator[str]:
    """A line for `path` and each thing beneath it, but for what belongs to fspoolfs itself."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        yield f"{shown}/ is not there"
        return
    content = [_content(path, info), *(_attributes(path) if attributes else ())]
    yield f"{shown}/ {stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid} {' '.join(content)}"
    if stat.S_ISDIR(info.st_mode):
        for name in sorted(os.listdir(path)):
            if name != OWN:
                yield from _found(path / name, f"{shown}/{name}", attributes=attributes)


def _tells_attributes(snapshot: Path) -> bool:
    """Not where it is mounted by zfs-fuse.

    From what has no extended attributes in a dataset that is read-only that answers ENOSYS, whereupon the
    kernel asks it no more, and takes all that is mounted with it for something that has none.
    """
    return not any(mount.point == str(snapshot) and mount.fstype == "fuse.zfs" for mount in mounts())


def _attributes(path: Path) -> Iterator[str]:
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        yield f"{name}={os.getxattr(path, name, follow_symlinks=False)!r}"


def _content(path: Path, info: os.stat_result) -> str:
    if stat.S_ISLNK(info.st_mode):
        return f"-> {os.readlink(path)}"
    if stat.S_ISREG(info.st_mode):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return f"{info.st_nlink} links, {info.st_size} bytes, {info.st_mtime_ns}, {digest}"
    return ""
