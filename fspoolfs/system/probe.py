"""What a device holds: every signature that libblkid knows, partition tables included, and their removal.

The programs are those of util-linux, which look at the device itself and in no cache. Whether it
may be erased is decided elsewhere; `erase` does as it is told.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from fspoolfs.system import command

#: blkid(8): nothing was found; what was found contradicts itself.
_NOTHING, _AMBIVALENT = 2, 8
#: Seconds that looking at a device may take.
_TIMEOUT = 60.0
_SHOWN = 60
_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What stands on a device that is not empty."""

    #: What it is: "xfs", "LVM2_member", "gpt".
    type: str
    is_table: bool = False
    #: A part of something larger, such as a volume of LVM, or no file system for another reason.
    is_other: bool = False
    label: str = ""
    uuid: str = ""

    def __str__(self) -> str:
        """For a person: "an xfs file system, label 'data', UUID ..."."""
        if self.is_table:
            return f"a partition table ({self.type})"
        if not self.type:
            return "signatures of several kinds that contradict each other"
        article = "an" if self.type[0] in "aeioux" or self.type.startswith("LVM") else "a"
        label = f", label {self.label[:_SHOWN]!r}" if self.label else ""
        kind = "signature" if self.is_other else "file system"
        return f"{article} {self.type} {kind}{label}" + (f", UUID {self.uuid}" if self.uuid else "")

    @property
    def known_uuid(self) -> UUID | None:
        """Its UUID, where it is one: vfat and others have shorter ones, a zpool has it in its name."""
        try:
            return UUID(self.label[-_UUID_LENGTH:] if self.type == "zfs_member" else self.uuid)
        except ValueError:
            return None


def content(path: str) -> Content | None:
    """What the device or image at the absolute `path` holds; `None` when it probes empty.

    Raises `UnsupportedError` where blkid is missing, `StorageError` when it cannot look.
    """
    argv = ["blkid", "-p", "-o", "export", path]
    found = command.run(argv, timeout=_TIMEOUT, allowed=(_NOTHING, _AMBIVALENT))
    if found.status == _NOTHING:
        return None
    if found.status == _AMBIVALENT:
        return Content(type="")
    return parse(found.stdout.decode("utf-8", "replace"))


def parse(text: str) -> Content | None:
    """The answer of `blkid -p -o export`."""
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    if "TYPE" in fields:
        label = _unescaped(fields.get("LABEL", ""))
        other = fields.get("USAGE") != "filesystem"
        return Content(type=fields["TYPE"], is_other=other, label=label, uuid=fields.get("UUID", ""))
    if "PTTYPE" in fields:
        return Content(type=fields["PTTYPE"], is_table=True)
    # Of a partition blkid tells its entry in the table of the whole disk, which is not in it.
    return None


def _unescaped(label: str) -> str:
    """blkid puts a backslash before what a shell would take for more than itself."""
    return label.replace("\\", "")


def erase(path: str, *, inherited: Collection[int] = ()) -> None:
    """Remove every signature that `content` would find. Refused by wipefs while the device is in use.

    `inherited` is as in `command.run`.
    """
    command.run(["wipefs", "--all", "--quiet", "--", path], timeout=_TIMEOUT, inherited=inherited)
