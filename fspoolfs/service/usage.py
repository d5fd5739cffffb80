"""Who uses an item or a pool: mounts of its directories, in every mount namespace."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Protocol

from fspoolfs.backends import layout
from fspoolfs.errors import BusyError
from fspoolfs.model.infos import UNTOLD, MountUse


class UseFinder(Protocol):
    """Finds mounts of a directory tree; `fspoolfs.system.namespaces.MountWatch` is the real one."""

    def uses(self, root_path: str, *, once: bool = False, lately: bool = False) -> list[MountUse]:
        """Every mount that shows the directory `root_path` or something in it. Blocks shortly.

        `once` spares what would only help another look soon after. With `lately` what was so within the
        last second will do.
        """

    def forget(self) -> None:
        """Let go of what is kept between two looks: it could keep alive what is being unmounted."""


class NoUses:
    """For roots that exist in no file system, such as the simulator's."""

    def uses(self, root_path: str, *, once: bool = False, lately: bool = False) -> list[MountUse]:
        return []

    def forget(self) -> None:
        """Nothing is kept."""


#: How many users an error names before it says how many more there are.
_NAMED = 3


def of_pool(uses: Sequence[MountUse]) -> list[MountUse]:
    """The uses of anything in a pool but our own showing of its snapshots."""
    return [use for use in uses if use.inside != layout.SNAPSHOTS]


def of_location(uses: Sequence[MountUse], *locations: str) -> list[MountUse]:
    """The uses of any of the directories `locations` below the root, or of anything in it.

    A mount that does not tell what it shows may show any of them.
    """
    inside = tuple(f"{location}/" for location in locations)
    return [use for use in uses if use.inside in (*locations, UNTOLD) or use.inside.startswith(inside)]


def describe(use: MountUse) -> str:
    """One line for `users`: the process id, the command, the mount point as that process sees it."""
    return f"{use.pid} {use.command} {_ESCAPED.sub(_escape, use.target)}"


#: What would break the line, as the kernel writes it in mountinfo (proc_pid_mountinfo(5)).
_ESCAPED = re.compile(r"[\x00-\x20\\\x7f]")


def _escape(found: re.Match[str]) -> str:
    return f"\\{ord(found.group()):03o}"


def refuse(what: str, uses: Sequence[MountUse], *, advice: str = "the file `users` lists all") -> BusyError:
    """`what` is what was refused, such as "delete item web"."""
    named = ", ".join(f"process {use.pid} ({use.command}) at {use.target}" for use in uses[:_NAMED])
    more = f" and {len(uses) - _NAMED} more" if len(uses) > _NAMED else ""
    return BusyError(f"{what}: in use by {named}{more}; {advice}")


def refuse_elsewhere(what: str, uses: Sequence[tuple[str, MountUse]], locations: Collection[str]) -> None:
    """Raise `BusyError` where other hosts use something at one of `locations`; `uses` name the hosts."""
    found = [(host, use) for host, use in uses if any(of_location([use], at) for at in locations if at)]
    if found:
        host, use = found[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise BusyError(
            f"{what}: in use on host {host} by process {use.pid} ({use.command}) at {use.target}{more}; end "
            f"that, or, if that host is off for good, write `fence {host}` into the pool's status"
        )
