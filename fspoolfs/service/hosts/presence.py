"""Which hosts have a shared pool active, and which items each of them uses.

A host has a record in the pool, with a number that grows while its daemon works, and a file that it
keeps locked for as long as it has the pool attached: by a process of its own, so that the lock lasts
as long as the mounts do and not as the daemon. What it uses are files beside the items' numbers.

No clock of any host is compared with another one's: a host is gone when its lock can be had. Where
the servers keep a host from the data whose locks they have given away, its uses are void then; where
they do not, it may come back and write, and only a person knows whether it will.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from fspoolfs.backends import layout
from fspoolfs.backends.root import SharedDirectory
from fspoolfs.backends.source import Sharing
from fspoolfs.errors import BusyError, FspoolError, InvalidError, NotFoundError, UnsupportedError
from fspoolfs.model.infos import MountUse
from fspoolfs.service.hosts.identity import Host

log = logging.getLogger(__name__)

#: Seconds between two signs of life, and after which what a host uses is known to the others.
RENEWAL = 5.0
_RECORD_LIMIT = 4096
_USES_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Present:
    """A host that has the pool active, or had when it was lost. `beat` grows while its daemon works."""

    host: Host
    beat: int
    alive: bool


class Presence:
    """This host's place in one attached pool. Methods block; one thread at a time uses them."""

    def __init__(self, name: str, root: SharedDirectory, host: Host, sharing: Sharing, note: Path) -> None:
        """`note` is the file in which the number of the process stands that keeps this host's lock."""
        self._name = name
        self._root = root
        self._host = host
        self._sharing = sharing
        self._note = note
        self._beat = 0
        self._published: dict[UUID, bytes] = {}

    # -- this host --------------------------------------------------------------------------------

    def enter(self) -> None:
        """Be one of the pool's hosts. The caller has the pool's lock.

        Raises `UnsupportedError` where the locks of others are not seen from here.
        """
        for other in self.others():
            if other.alive:
                continue
            if self._sharing.fences:
                log.warning("pool %s: host %s is gone; what it used is free", self._name, other.host.name)
                self.drop(other.host)
            elif self._still_beats(other):
                raise UnsupportedError(
                    f"pool {self._name}: host {other.host.name} has it active, but its locks are not seen "
                    "from here; mount the export with locks on every host (without nolock, local_lock)"
                )
        self._claim()
        for item in self._items_used_by(self._host):
            self._remove_use(item, self._host)
        self._write_record()

    def _claim(self) -> None:
        if self._root.keeper.is_kept(self._note) and self._is_locked(self._host):
            return
        self._root.keeper.let_go(self._note)
        lock = self._root.try_lock(layout.host_lock(self._host.id))
        if lock is None:
            raise BusyError(
                f"pool {self._name}: another daemon with this one's number {self._host.id} has it active; "
                "a state directory must not be copied: remove the file `host` of one of them"
            )
        try:
            self._root.keeper.keep(lock, self._note)
        finally:
            lock.release()

    def _still_beats(self, other: Present) -> bool:
        """Whether a host whose lock can be had works all the same."""
        time.sleep(RENEWAL * 1.5)
        again = self._read(other.host.id)
        return again is not None and again.beat != other.beat

    def check(self) -> None:
        """Raise `FspoolError` when others have put this host out."""
        try:
            self._root.stat(layout.host_record(self._host.id))
        except FileNotFoundError:
            raise FspoolError(
                f"pool {self._name}: this host was fenced by another one, which took over its work; start "
                "the pool again"
            ) from None

    def renew(self, used: Mapping[UUID, Sequence[MountUse]]) -> None:
        """Give a sign of life, and say which items are used here."""
        self.check()
        self._write_record()
        self._take_back_if_fenced()
        wanted = {item: _encode_uses(uses) for item, uses in used.items()}
        for item in self._published.keys() - wanted.keys():
            self._remove_use(item, self._host)
            del self._published[item]
        for item, text in wanted.items():
            if self._published.get(item) != text:
                with suppress(FileExistsError):
                    self._root.make_directory(layout.uses(item), mode=0o700)
                self._root.write(layout.use(item, self._host.id), text, replace=True, durable=False)
                self._published[item] = text

    def _take_back_if_fenced(self) -> None:
        """What was written in the moment of a fencing must not undo that: the lock's file is gone then."""
        try:
            self._root.stat(layout.host_lock(self._host.id))
        except FileNotFoundError:
            with suppress(FileNotFoundError):
                self._root.remove_file(layout.host_record(self._host.id))
            self.check()

    def leave(self) -> None:
        """Be none of the pool's hosts any more; before it is detached, since the lock keeps it busy.

        Storage that does not answer keeps its record; it is another's to remove.
        """
        for item in list(self._published):
            self._remove_use(item, self._host)
        self._published.clear()
        with suppress(FileNotFoundError):
            self._root.remove_file(layout.host_record(self._host.id))
        with suppress(FileNotFoundError):
            self._root.remove_file(layout.host_lock(self._host.id))
        self.let_go()

    def let_go(self) -> None:
        """Give up the lock, and touch nothing of the pool."""
        self._root.keeper.let_go(self._note)

    def _write_record(self) -> None:
        self._beat += 1
        record = {"id": str(self._host.id), "name": self._host.name, "beat": self._beat}
        path = layout.host_record(self._host.id)
        self._root.write(path, json.dumps(record).encode() + b"\n", replace=True, durable=False)

    # -- the others -------------------------------------------------------------------------------

    def others(self) -> list[Present]:
        """The other hosts that are in the pool, or were not seen leaving."""
        return [one for one in self.all() if one.host.id != self._host.id]

    def all(self) -> list[Present]:
        """Every host that is in the pool, or was not seen leaving."""
        found = []
        for entry in sorted(self._root.names(layout.HOSTS)):
            with suppress(ValueError):
                present = self._read(UUID(entry))
                if present is not None:
                    found.append(present)
        return found

    def describe(self, present: Present) -> str:
        """One word about a host."""
        if present.host.id == self._host.id:
            return "here"
        return "alive" if present.alive else "lost"

    def _read(self, id: UUID) -> Present | None:
        try:
            data = self._root.read(layout.host_record(id), limit=_RECORD_LIMIT)
            host, beat = Host.decode(data), int(json.loads(data)["beat"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):
            host, beat = Host(id, str(id)), 0  # torn by the death of its host
        return Present(host, beat, self._is_locked(host))

    def _is_locked(self, host: Host) -> bool:
        lock = self._root.try_lock(layout.host_lock(host.id))
        if lock is None:
            return True
        lock.release()
        return False

    def drop(self, host: Host) -> None:
        """Forget a host that is gone, and all that it used."""
        for item in self._items_used_by(host):
            self._remove_use(item, host)
        # In this order: see `_take_back_if_fenced`.
        for path in (layout.host_lock(host.id), layout.host_record(host.id)):
            with suppress(FileNotFoundError):
                self._root.remove_file(path)

    def fence(self, name: str) -> Host:
        """Forget the host called `name` (or its number), because a person says that it is off.

        Raises `NotFoundError`, and `BusyError` where the servers would know better.
        """
        found = [one for one in self.others() if name in (one.host.name, str(one.host.id))]
        if not found:
            known = ", ".join(f"{one.host.name} ({one.host.id})" for one in self.others()) or "no other host"
            raise NotFoundError(f"pool {self._name}: host {name} does not have it active; there is {known}")
        if len(found) > 1:
            raise InvalidError(
                f"pool {self._name}: several hosts are called {name}; name one by its number: "
                f"{', '.join(str(one.host.id) for one in found)}"
            )
        other = found[0]
        if other.alive and self._sharing.fences:
            raise BusyError(
                f"pool {self._name}: host {name} still has its lock; the servers take it away by themselves "
                "when they have lost the host, and keep it from the data then"
            )
        self.drop(other.host)
        return other.host

    # -- who uses what ----------------------------------------------------------------------------

    def used_elsewhere(self, item: UUID) -> list[tuple[str, MountUse]]:
        """Who uses an item on other hosts, with the name of each host; what is void is removed."""
        try:
            entries = self._root.names(layout.uses(item))
        except FileNotFoundError:
            return []
        found: list[tuple[str, MountUse]] = []
        for entry in entries:
            try:
                id = UUID(entry)
            except ValueError:
                continue  # a file that is just being written
            if id == self._host.id:
                continue
            present = self._read(id)
            if present is None or (not present.alive and self._sharing.fences):
                self._remove_use(item, Host(id, ""))
                continue
            found += [(present.host.name, use) for use in self._uses(item, id)]
        return found

    def _uses(self, item: UUID, host: UUID) -> list[MountUse]:
        try:
            data = self._root.read(layout.use(item, host), limit=_USES_LIMIT)
            return [MountUse(**use) for use in json.loads(data)]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            return [MountUse(pid=0, command="unknown", inside="", target="unknown")]

    def _items_used_by(self, host: Host) -> list[UUID]:
        found: list[UUID] = []
        for entry in self._root.names(layout.USES):
            with suppress(ValueError, FileNotFoundError):
                if str(host.id) in self._root.names(layout.uses(UUID(entry))):
                    found.append(UUID(entry))
        return found

    def _remove_use(self, item: UUID, host: Host) -> None:
        with suppress(FileNotFoundError):
            self._root.remove_file(layout.use(item, host.id))
        with suppress(OSError):  # others may use it, too
            self._root.remove_directory(layout.uses(item))


def _encode_uses(uses: Collection[MountUse]) -> bytes:
    return json.dumps([asdict(use) for use in uses]).encode() + b"\n"


def take_lock_away(root: SharedDirectory) -> None:
    """Let the pool's lock be another file from now on: whoever has the old one has nothing any more."""
    with suppress(FileNotFoundError):
        root.remove_file(layout.LOCK)
