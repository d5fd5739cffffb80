"""Pools that other hosts can attach, too, but whose storage has no locks between them: one host at a time.

The first one leaves its number in a file that only one can make. Nothing removes it when that host
dies; a person has to say that it is off.
"""

from __future__ import annotations

from contextlib import suppress

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import BusyError, CorruptError, NotFoundError
from fspoolfs.service.hosts.identity import Host

_LIMIT = 1024


class SoleHost:
    """This host's claim to one attached pool. Methods block."""

    def __init__(self, name: str, root: RootDirectory, host: Host, reason: str) -> None:
        """`reason` is why the storage does not let several hosts work on it."""
        self._name = name
        self._root = root
        self._host = host
        self._reason = reason

    def enter(self) -> None:
        """Raises `BusyError` when another host has the pool active, or had when it was lost."""
        owner = self._owner()
        if owner is None:
            try:
                self._root.write(layout.OWNER, self._host.encode(), replace=False, durable=True)
                return
            except OSError:  # some servers do not tell the loser EEXIST
                owner = self._owner()
                if owner is None:
                    raise
        if owner.id != self._host.id:
            raise BusyError(
                f"pool {self._name} is active on host {owner.name}, or was when that was lost, and "
                f"{self._reason}, so only one host may have it active; stop it there, or, if that host is "
                f"off for good, write `fence {owner.name}` into status and start again"
            )

    def _owner(self) -> Host | None:
        try:
            data = self._root.read(layout.OWNER, limit=_LIMIT)
        except FileNotFoundError:
            return None
        try:
            return Host.decode(data)
        except ValueError as error:
            raise CorruptError(
                f"{self._root.location(layout.OWNER)} should name the host that has the pool active, but "
                f"cannot be understood ({error}); remove it if none has"
            ) from error

    def leave(self) -> None:
        """Let another host have the pool."""
        owner = self._owner()
        if owner is not None and owner.id == self._host.id:
            with suppress(FileNotFoundError):
                self._root.remove_file(layout.OWNER)

    def let_go(self) -> None:
        """The storage does not answer: the claim stays, and is this host's when it comes back."""

    def fence(self, name: str) -> Host:
        """Forget the host called `name` (or its number), because a person says that it is off."""
        owner = self._owner()
        if owner is None or owner.id == self._host.id or name not in (owner.name, str(owner.id)):
            known = "no other host" if owner is None or owner.id == self._host.id else f"host {owner.name}"
            raise NotFoundError(f"pool {self._name}: host {name} does not have it active; {known} has")
        self._root.remove_file(layout.OWNER)
        return owner
