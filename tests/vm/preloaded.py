"""Real daemons without the seconds that Python takes in the guest to import the program."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from fspoolfs import cli
from fspoolfs.system import mounts
from support.daemon import Daemon

_STANDARD_DESCRIPTORS = 3
_MANY = 1 << 20


class PreloadedDaemon(Daemon):
    """A child of this process, which has imported all of the program; otherwise as any daemon.

    Requests are waited for `grace` seconds. With `place` state and storage lie there, where an earlier
    daemon may have left them.
    """

    #: All that were made and are still of use to somebody.
    known: ClassVar[WeakSet[PreloadedDaemon]] = WeakSet()
    start_limit: ClassVar[float] = 90.0

    def __init__(self, base: Path, place: Path | None = None, *, grace: int = 60) -> None:
        super().__init__(base / "daemon", options=("--grace", str(grace)), env={}, user=None)
        if place is not None:
            self.state, self.storage = place / "state", place / "storage"
        self.known.add(self)

    def _instead_of(self, argv: Sequence[str]) -> Callable[[], None]:
        arguments = argv[argv.index("fspoolfs") + 1 :]

        def become() -> None:
            # What the parent has left to its garbage collector, and what its modules keep open, would close
            # descriptors that are another's by then.
            gc.freeze()
            mounts.forget_recent()
            # As execve(2) would: also the pipe whose end tells the parent that the program runs.
            os.closerange(_STANDARD_DESCRIPTORS, _MANY)
            status = 1
            try:
                # What pytest has put in their places.
                sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
                logging.getLogger().handlers.clear()
                warnings.simplefilter("error")
                status = cli.main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

        return become
