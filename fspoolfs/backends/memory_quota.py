"""What one directory of an in-memory tree holds, and may hold: an account, like a project's in a kernel.

Everything that is made beneath such a directory is charged to its account, and carries its number
wherever it goes; so nothing is ever walked to count it. Never decides what is charged where.
"""

from __future__ import annotations

from dataclasses import dataclass

from fspoolfs.model.infos import UsageInfo


@dataclass(slots=True)
class Account:
    """`capacity` in bytes and `files` are the limits, `None` for none; `used` and `inodes` the counters."""

    capacity: int | None = None
    files: int | None = None
    used: int = 0
    inodes: int = 0

    def charge(self, size: int, inodes: int) -> None:
        self.used += size
        self.inodes += inodes

    def takes(self, size: int, inodes: int) -> bool:
        """Whether so much more is within the limits; to hold less is always allowed."""
        return (size <= 0 or self.capacity is None or self.used + size <= self.capacity) and (
            inodes <= 0 or self.files is None or self.inodes + inodes <= self.files
        )

    def info(self) -> UsageInfo:
        return UsageInfo(allocation=self.used, inodes=self.inodes)
