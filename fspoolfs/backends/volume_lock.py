"""Only one daemon, with the programs that it has run, changes what a device holds.

By a lock of flock(2) on the device, which udev respects as well. Programs that write to the device
inherit the descriptor, and the lock lasts as long as the last of them runs: what a killed daemon has
left at work is waited for, and nothing is looked at or formatted under its hands.
"""

from __future__ import annotations

import fcntl
import logging
import time

from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import BusyError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress

log = logging.getLogger(__name__)

#: Seconds between two attempts, the first and the longest: udev looks at a new device for some
#: milliseconds, and mending a file system takes hours.
_STEP, _LONGEST = 0.002, 0.1
#: Seconds after which it is told that somebody else has the device.
_TELLING = 1.0
#: Seconds that are waited where nobody can cancel it.
_PATIENCE = 30.0


def lock(definition: PoolDefinition, device: Device, progress: Progress | None) -> None:
    """Wait until nobody else has `device`, and have it until its descriptor is closed.

    Raises `CancelledError` when `progress` is cancelled; without one, `BusyError` after half a minute.
    """
    began, step, told = time.monotonic(), _STEP, False
    while not _try(device):
        waited = time.monotonic() - began
        if progress is not None:
            progress.advance(0)
        elif waited >= _PATIENCE:
            raise BusyError(
                f"pool {definition.name}: another program works on {device.origin}; try again when it has "
                "ended"
            )
        if waited >= _TELLING and not told:
            told = True
            log.warning(
                "pool %s: another program works on %s; it is waited for", definition.name, device.origin
            )
        time.sleep(step)
        step = min(2 * step, _LONGEST)


def _try(device: Device) -> bool:
    try:
        fcntl.flock(device.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
