"""What the quota groups of a btrfs mean for items: limits, what is counted, what is tidied up.

Where every reference counts ("qgroups") the limit of an item is that of its subvolume's group 0/ID,
and subvolumes that users make inside an item are groups of their own, out of its limit. Where an
extent counts once ("simple quotas") an item has a group LEVEL/ID too, which has its limit: the
kernel puts every subvolume that is made inside an item into the groups that its parent is in. A
program can ask the kernel not to; such a subvolume is brought back when the item is counted.

Descriptors here are the root's: what is done through one in a full item is refused, even lifting its
limit. Only groups of `LEVEL`, and those of subvolumes that were items or lay in items, are ever changed or
removed. Quotas are never switched on or off here, and no rescan is started.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from fspoolfs.backends import btrfs_subvolumes as subvolumes
from fspoolfs.system import btrfs, qgroups
from fspoolfs.system.qgroups import Group, Mode

#: The level of items' groups with simple quotas. People number their levels from 1.
LEVEL = 245
#: Its members are subvolumes that are gone, and whose extents others may still share.
GRAVEYARD = qgroups.group_id(LEVEL, 0)

#: How many groups of destroyed subvolumes one removal tries to remove; more than it adds.
_SWEPT_AT_ONCE = 4


@contextmanager
def tolerating(*numbers: int) -> Iterator[None]:
    """What these error numbers say is no failure here."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def enforce(fd: int, subvolume: int, capacity: int | None) -> None:
    """Set, or lift, the limit of an item; quotas must be on."""
    if qgroups.status(fd).mode is Mode.FULL:
        with tolerating(errno.EEXIST):
            if qgroups.read(fd, subvolume) is None:
                qgroups.create(fd, subvolume)
        qgroups.limit(fd, subvolume, capacity)
        return
    group = qgroups.group_id(LEVEL, subvolume)
    with tolerating(errno.EEXIST):
        qgroups.create(fd, group)
    # The item's own comes first: what is made inside from then on is a member by itself.
    _assign(fd, subvolume, group)
    _bring_back(fd, subvolume, group)
    qgroups.limit(fd, group, capacity)


def lift(fd: int, subvolume: int) -> None:
    """Take away the limit of a subvolume that is, or was, an item; none is no error."""
    for group in (subvolume, qgroups.group_id(LEVEL, subvolume)):
        with tolerating(errno.ENOENT, errno.ENOTCONN):
            qgroups.limit(fd, group, None)


def usage(fd: int, subvolume: int) -> int:
    """What an item and the subvolumes in it hold; quotas must be on."""
    number = qgroups.group_id(LEVEL, subvolume)
    group = qgroups.read(fd, number)
    if group is None:
        inside = subvolumes.descendants(fd, subvolume)
        return sum(_referenced(qgroups.read(fd, one)) for one in (subvolume, *inside))
    strays = _bring_back(fd, subvolume, number)
    return group.referenced + sum(_referenced(qgroups.read(fd, one)) for one in strays)


def usages(fd: int, items: Mapping[str, int], inside: Mapping[int, Sequence[int]]) -> dict[str, int]:
    """What many subvolumes hold; `inside` are the children of each subvolume that has any."""
    groups = qgroups.read_all(fd)
    found = {}
    for path, subvolume in items.items():
        number = qgroups.group_id(LEVEL, subvolume)
        own = groups.get(number)
        nested = subvolumes.below(subvolume, inside) if subvolume in inside else []
        if own is None:
            found[path] = sum(_referenced(groups.get(one)) for one in (subvolume, *nested))
        else:
            strays = _bring_back(fd, subvolume, number) if nested else []
            found[path] = own.referenced + sum(_referenced(groups.get(one)) for one in strays)
    return found


def _referenced(group: Group | None) -> int:
    return 0 if group is None else group.referenced


def _bring_back(fd: int, subvolume: int, group: int) -> list[int]:
    """Make members of what lies in an item and is none; answers which these were."""
    inside = subvolumes.descendants(fd, subvolume)
    strays = sorted(set(inside) - set(qgroups.members(fd, group))) if inside else []
    for stray in strays:
        _assign(fd, stray, group)
    return strays


def _assign(fd: int, member: int, group: int) -> None:
    """Make a member, and both groups where they are missing."""
    try:
        qgroups.assign(fd, member, group)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        for missing in (member, group):
            with tolerating(errno.EEXIST):
                qgroups.create(fd, missing)
        with tolerating(errno.EEXIST):
            qgroups.assign(fd, member, group)


class Undertaker:
    """Removes the groups of subvolumes that were destroyed.

    The kernel (since 6.11) removes group 0/ID itself, when it has cleaned up the subvolume some time
    later. Older ones have to be asked, and with simple quotas a group has to stay as long as a
    snapshot or clone shares what its subvolume wrote. These are remembered as members of the
    `GRAVEYARD`, so that they are known after a restart; without simple quotas, in memory only.
    """

    def __init__(self) -> None:
        self._awaited: deque[int] = deque()
        self._last_swept = 0

    def bury(self, fd: int, destroyed: Sequence[int]) -> None:
        """`destroyed` are gone; what is removed of their groups now or later is done here."""
        mode = qgroups.status(fd).mode
        if mode is Mode.FULL:
            self._awaited.extend(destroyed)
            self._sweep_awaited(fd)
        elif mode is Mode.SIMPLE:
            for subvolume in destroyed:
                _retire(fd, subvolume)
            self._sweep_graveyard(fd)

    def _sweep_awaited(self, fd: int) -> None:
        for _ in range(min(len(self._awaited), _SWEPT_AT_ONCE)):
            subvolume = self._awaited.popleft()
            if not _remove(fd, subvolume):
                self._awaited.append(subvolume)

    def _sweep_graveyard(self, fd: int) -> None:
        """Try some, others each time."""
        some = list(islice(qgroups.members(fd, GRAVEYARD, after=self._last_swept), _SWEPT_AT_ONCE))
        for subvolume in some:
            _remove(fd, subvolume)
        self._last_swept = some[-1] if some else 0

    def sweep_all(self, fd: int) -> None:
        """Finish what was interrupted: groups of items that are gone, and the whole graveyard."""
        if qgroups.status(fd).mode is not Mode.SIMPLE:
            return
        # Groups before subvolumes: an item's subvolume is older than its group, so that none that is
        # being made is taken for one that is gone.
        numbers = {qgroups.number_of(one) for one in qgroups.read_all(fd) if qgroups.level_of(one) == LEVEL}
        living = {reference.child for reference in btrfs.references(fd)}
        for subvolume in numbers - living - {qgroups.number_of(GRAVEYARD)}:
            _retire(fd, subvolume)
        for subvolume in list(qgroups.members(fd, GRAVEYARD)):
            if subvolume not in living:
                _remove(fd, subvolume)


def _retire(fd: int, subvolume: int) -> None:
    """Dissolve the group of an item that is gone, and bury its subvolumes."""
    group = qgroups.group_id(LEVEL, subvolume)
    for member in {subvolume, *qgroups.members(fd, group)}:
        if not subvolumes.exists(fd, member):
            _bury(fd, member)
        with tolerating(errno.ENOENT):
            qgroups.release(fd, member, group)
    with tolerating(errno.ENOENT, errno.EBUSY):
        qgroups.remove(fd, group)


def _bury(fd: int, subvolume: int) -> None:
    with tolerating(errno.EEXIST):
        qgroups.create(fd, GRAVEYARD)
    # EINVAL: the kernel has removed the subvolume's own group by now.
    with tolerating(errno.EEXIST, errno.EINVAL):
        qgroups.assign(fd, subvolume, GRAVEYARD)


def _remove(fd: int, subvolume: int) -> bool:
    """Whether the group of a destroyed subvolume is gone; not while it counts something."""
    try:
        qgroups.remove(fd, subvolume)
    except OSError as error:
        # ENOTCONN: quotas were switched off, and all groups with them.
        return error.errno in (errno.ENOENT, errno.ENOTCONN)
    return True
