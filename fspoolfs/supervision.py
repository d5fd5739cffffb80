"""Keeps the service manager told: how the pools stand, and that the event loop goes round."""

from __future__ import annotations

from collections import Counter

import trio

from fspoolfs.model.states import PoolState
from fspoolfs.service.events import Event, EventLog
from fspoolfs.service.pools import Pools
from fspoolfs.system.service_manager import ServiceManager

#: Signs of life within the time after which the manager takes the daemon for hung (sd_watchdog_enabled(3)).
_SIGNS = 2
#: Seconds between two lines for a person: starting a thousand pools is not worth a thousand datagrams.
_CALM = 1.0
#: The order in which states are told: those that a person should see stand first.
_ORDER = (
    PoolState.FAILED,
    PoolState.STALLED,
    PoolState.ACTIVE,
    PoolState.INACTIVE,
    PoolState.STARTING,
    PoolState.BUILDING,
    PoolState.STOPPING,
    PoolState.DELETING,
)


class Supervision:
    """Tells how pools stand and that the loop runs, for as long as `run` does: until it is cancelled."""

    def __init__(self, manager: ServiceManager, pools: Pools, events: EventLog) -> None:
        self._manager = manager
        self._pools = pools
        self._changed = trio.Event()
        events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        if event.kind.startswith("pool-"):
            self._changed.set()

    async def run(self) -> None:
        if not self._manager.address:
            return
        async with trio.open_nursery() as nursery:
            if self._manager.watchdog is not None:
                nursery.start_soon(self._show_life, self._manager.watchdog / _SIGNS)
            nursery.start_soon(self._tell)

    async def _show_life(self, interval: float) -> None:
        """From the loop that serves all requests, so that one that hangs is missed."""
        while True:
            self._manager.alive()
            await trio.sleep(interval)

    async def _tell(self) -> None:
        told = ""
        while True:
            self._changed = trio.Event()
            sentence = standing(Counter(pool.state for pool in self._pools))
            if sentence != told:
                self._manager.status(sentence)
                told = sentence
            await trio.sleep(_CALM)
            await self._changed.wait()


def standing(states: Counter[PoolState]) -> str:
    """How many pools are in which state: "3 pools: 1 failed, 2 active"."""
    total = states.total()
    if not total:
        return "no pools"
    parts = ", ".join(f"{states[state]} {state}" for state in _ORDER if states[state])
    return f"{total} {'pool' if total == 1 else 'pools'}: {parts}"
