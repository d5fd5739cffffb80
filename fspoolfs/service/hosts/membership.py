"""What an attached pool has to do with other hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fspoolfs.backends.source import Sharing
from fspoolfs.service.hosts.committing import SharedCommitter
from fspoolfs.service.hosts.identity import Host
from fspoolfs.service.hosts.presence import Presence
from fspoolfs.service.journal import Journal


class Tenancy(Protocol):
    """This host's place among those that could have the pool active. Methods block."""

    def leave(self) -> None:
        """Be none of them any more; before the pool is detached."""

    def let_go(self) -> None:
        """The same where the storage does not answer: it is not touched."""

    def fence(self, name: str) -> Host:
        """Forget another host, because a person says that it is off."""


@dataclass(slots=True, frozen=True, eq=False)
class Membership:
    """What several hosts share; `reader` is a journal for reading along, closed between two looks."""

    presence: Presence
    committer: SharedCommitter
    reader: Journal
    sharing: Sharing
