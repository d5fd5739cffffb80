"""Control groups that exist in memory only, for `--sim` and the tests of the service.

They belong to the machine and outlive the daemon, as the kernel's do.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fspoolfs.backends.cgroups import Place
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import Faults
from fspoolfs.errors import BusyError, ExistsError, UnsupportedError
from fspoolfs.model.infos import Feature
from fspoolfs.model.limits import LIMITS, Limits
from fspoolfs.system.cgroups.tree import escaped, in_use


@dataclass(slots=True)
class SimulatedGroups:
    """`Groups` with every limit but those of `absent`, which are by interface file and reason.

    `refused` are errors of the kernel by interface file, answered when it is set. What changes a group is
    a place for `faults` to crash at.
    """

    absent: dict[str, str] = field(default_factory=dict)
    refused: dict[str, OSError] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    limits: dict[tuple[str, str], Limits] = field(default_factory=dict)
    members: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def features(self) -> Sequence[Feature]:
        rows = [Feature(name=f"cgroup {file}", reason=self.absent.get(file, "")) for file in LIMITS]
        return [Feature(name="cgroups", note="simulated"), *rows]

    def features_of(self, root: RootDirectory | None) -> Sequence[Feature]:
        return []

    def check(self, item: str, limits: Limits, root: RootDirectory | None) -> None:
        for file, _ in limits:
            if file in self.absent:
                raise UnsupportedError(
                    f"item {item}: the limit {file} cannot be enforced: {self.absent[file]}; leave it out of "
                    "<cgroups>"
                )

    def put(self, place: Place, limits: Limits, root: RootDirectory | None) -> None:
        self.check(place.item, limits, root)
        with self._lock:
            key = place.pool, place.item
            if self._owners.setdefault(place.pool, place.uuid) != place.uuid:
                raise ExistsError(f"the control group {place.pool} belongs to another pool")
            if not limits and key not in self.limits:
                return
            for file, _ in limits:
                if file in self.refused:
                    raise self.refused[file]
            with self.faults.change():
                self.limits[key] = limits

    def remove(self, place: Place) -> None:
        with self._lock:
            key = place.pool, place.item
            if self._owners.get(place.pool) != place.uuid:
                return
            if pids := self.members.get(key):
                raise BusyError(in_use(place, pids))
            with self.faults.change():
                self.limits.pop(key, None)
            if not any(pool == place.pool for pool, _ in self.limits):
                del self._owners[place.pool]

    def path(self, place: Place) -> str:
        return f"/fspool/{escaped(place.pool)}/{escaped(place.item)}"

    def in_use(self, place: Place, pids: Sequence[int]) -> str:
        return in_use(place, pids)

    def pids(self, place: Place) -> list[int]:
        with self._lock:
            return sorted(self.members.get((place.pool, place.item), []))

    def enter(self, place: Place, pid: int) -> None:
        with self._lock:
            for pids in self.members.values():
                if pid in pids:
                    pids.remove(pid)
            self.members.setdefault((place.pool, place.item), []).append(pid)

    def items(self) -> Mapping[tuple[str, str], list[str]]:
        with self._lock:
            found: dict[tuple[str, str], list[str]] = {}
            for pool, item in self.limits:
                found.setdefault((self._owners[pool], pool), []).append(item)
            return found
