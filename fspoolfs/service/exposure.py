"""Where people find the content of snapshots: a read-only view of each pool's snapshot directory.

Snapshots lie among the daemon's own files, which nobody else can enter. The first one of a pool
brings a mount of their common directory in the state directory, read-only and passable, that
follows the snapshots by itself. A daemon that may not mount shows them where they are.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from fspoolfs.backends import layout
from fspoolfs.backends.root import HostDirectories
from fspoolfs.service.objects import Attached

log = logging.getLogger(__name__)


class Mounter(Protocol):
    """Shows directories read-only elsewhere; `fspoolfs.system.showing` is the real one."""

    def show(self, fd: int, at: str) -> None:
        """Mount the directory behind `fd` at `at`, made if missing; once is enough.

        Raises `OSError` where that is not allowed.
        """

    def hide(self, at: str) -> None:
        """Take the mount away, used or not; that there is none is no error."""


class Exposure:
    """Shows the snapshots of pools. Methods block."""

    def __init__(self, directory: Path, mounter: Mounter | None) -> None:
        self._directory = directory
        self._mounter = mounter

    def expose(self, pool: str, attached: Attached) -> None:
        """Let the snapshots of an attached pool be seen, unless they are already."""
        if attached.exposed is None:
            attached.exposed = self._show(pool, attached)

    def _show(self, pool: str, attached: Attached) -> str:
        root = attached.root
        at = str(self._directory / pool)
        if self._mounter is not None and isinstance(root, HostDirectories):
            fd = root.open_directory(layout.SNAPSHOTS)
            try:
                self._mounter.show(fd, at)
                return at
            except OSError as error:
                log.warning("pool %s: its snapshots cannot be shown at %s: %s", pool, at, error)
            finally:
                os.close(fd)
        return root.location(layout.SNAPSHOTS)

    def withdraw(self, pool: str) -> None:
        """Show nothing of a pool any more, which is stopped."""
        if self._mounter is not None:
            self._mounter.hide(str(self._directory / pool))
