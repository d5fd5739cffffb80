"""Who may do what, beyond the mode bits that the kernel checks before a request arrives.

The kernel has checked the control tree's modes. What is left is what one file lets several kinds
of users do: `define`, an item's `config.xml`, and who may own what.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from fspoolfs.errors import AccessError
from fspoolfs.model.definitions import ItemDefinition, Permissions, PoolDefaults
from fspoolfs.model.limits import Limits


def _no_groups() -> frozenset[int]:
    return frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The process that asks. `groups` looks up its supplementary groups when they matter."""

    uid: int
    gid: int
    pid: int = 0
    groups: Callable[[], frozenset[int]] = field(default=_no_groups, compare=False)

    @property
    def administers(self) -> bool:
        """Root, and the user that the daemon runs as."""
        return self.uid in (0, os.geteuid())

    def member_of(self, group: int) -> bool:
        return group == self.gid or group in self.groups()


#: The daemon itself, for what it does on its own account.
DAEMON = Caller(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid())

#: The fields of an item's definition that only the pool's owner chooses, in words.
OWNER_CHOOSES = {
    "capacity": "capacity",
    "soft": "soft limit",
    "files": "files limit",
    "limits": "cgroup limit",
}

#: The mode of `items/` and of an item where nothing else is said.
DEFAULT_MODE = 0o755


def pool_permissions(permissions: Permissions) -> tuple[int, int, int]:
    """Mode, owner and group of a pool's `items/`."""
    return (
        DEFAULT_MODE if permissions.mode is None else permissions.mode,
        os.geteuid() if permissions.owner is None else permissions.owner,
        os.getegid() if permissions.group is None else permissions.group,
    )


def may_write_items(permissions: Permissions, caller: Caller) -> bool:
    """Whether `caller` may create items in a pool with these permissions."""
    if caller.administers:
        return True
    mode, owner, group = pool_permissions(permissions)
    if caller.uid == owner:
        bits = mode >> 6
    elif caller.member_of(group):
        bits = mode >> 3
    else:
        bits = mode
    return bits & 0o3 == 0o3


def check_create(pool: str, permissions: Permissions, caller: Caller) -> None:
    if not may_write_items(permissions, caller):
        raise AccessError(
            f"user {caller.uid} may not create items in pool {pool}: its items directory is not writable "
            "for this user"
        )


def owns_pool(permissions: Permissions, caller: Caller) -> bool:
    """Whether `caller` may say how large items are and whose they are."""
    return caller.administers or caller.uid == pool_permissions(permissions)[1]


def check_sizes(pool: Permissions, wanted: ItemDefinition, given: PoolDefaults, caller: Caller) -> None:
    """Refuse sizes of a new item that differ from those that it would be `given` anyway."""
    if owns_pool(pool, caller):
        return
    for name in ("capacity", "soft", "files"):
        if getattr(wanted, name) not in (None, getattr(given, name)):
            raise AccessError(
                f"the {OWNER_CHOOSES[name]} of item {wanted.name} is the pool owner's to choose"
            )


def check_idmap(old: ItemDefinition | None, wanted: ItemDefinition, caller: Caller) -> None:
    """Refuse another map of ids to all but who administers.

    Whoever uses the mapped directory makes files of any owner in its ranges, root's programs with
    set-user-id among them.
    """
    if wanted.idmap != (None if old is None else old.idmap) and not caller.administers:
        raise AccessError(f"user {caller.uid} may not map the ids of item {wanted.name}: that is for root")


def check_limits(pool: Permissions, wanted: ItemDefinition, given: Limits, caller: Caller) -> None:
    """Refuse limits of a new item other than those that it would be `given` anyway."""
    if wanted.limits not in ((), given) and not owns_pool(pool, caller):
        raise AccessError(
            f"the {OWNER_CHOOSES['limits']} of item {wanted.name} is the pool owner's to choose"
        )


def new_item_permissions(pool: Permissions, wanted: Permissions, caller: Caller) -> Permissions:
    """Who will own a new item, and with which mode.

    Raises `AccessError` when `caller` may not give it to that owner or group.
    """
    mode, _, pool_group = pool_permissions(pool)
    inherited = pool_group if mode & stat.S_ISGID else caller.gid
    permissions = Permissions(
        mode=DEFAULT_MODE if wanted.mode is None else wanted.mode,
        owner=caller.uid if wanted.owner is None else wanted.owner,
        group=inherited if wanted.group is None else wanted.group,
    )
    check_owner(permissions, caller, allowed_group=inherited)
    return permissions


def check_owner(wanted: Permissions, caller: Caller, *, allowed_group: int | None = None) -> None:
    """Refuse to give an item to somebody whom `caller`, or this daemon, may not give it to."""
    if os.geteuid() != 0 and wanted.owner not in (None, os.geteuid()):
        raise AccessError(
            f"an item cannot belong to user {wanted.owner}: the daemon runs as user {os.geteuid()} without "
            "the right to change owners"
        )
    if caller.administers:
        return
    if wanted.owner not in (None, caller.uid):
        raise AccessError(f"user {caller.uid} may not give an item to user {wanted.owner}")
    group = wanted.group
    if group is not None and group != allowed_group and not caller.member_of(group):
        raise AccessError(f"user {caller.uid} may not give an item to group {group}, being no member")


def check_redefine(
    pool: Permissions, old: ItemDefinition, new: ItemDefinition, changed: tuple[str, ...], caller: Caller
) -> None:
    """Refuse what the owner of an item may not change about it by himself."""
    check_idmap(old, new, caller)
    if owns_pool(pool, caller):
        check_owner(new.permissions, caller if caller.administers else DAEMON)
        return
    if caller.uid != old.permissions.owner:
        raise AccessError(f"user {caller.uid} may not change item {old.name}: it belongs to another user")
    for name, words in OWNER_CHOOSES.items():
        if name in changed:
            raise AccessError(f"the {words} of item {old.name} is the pool owner's to change")
    check_owner(new.permissions, caller, allowed_group=old.permissions.group)
