"""Tells the service manager how the daemon stands, by the protocol of sd_notify(3).

A datagram to the socket in $NOTIFY_SOCKET is all there is to it, so no library of systemd is needed.
Where nobody listens, everything here does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

from fspoolfs.names import one_line

log = logging.getLogger(__name__)

#: What no program that the daemon starts is to have: it would speak for the daemon (sd_notify(3)).
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Who started this process, if it wants to hear of it.

    `address` is as socket(2) takes it, empty where nobody listens. `watchdog` is how many seconds may
    pass between two signs of life, `None` where none are expected.
    """

    address: str = ""
    watchdog: float | None = None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> ServiceManager:
        """What the environment says, from which it is taken away."""
        variables = os.environ if environment is None else environment
        address, limit, process = (variables.pop(name, "") for name in _OURS)
        if not address:
            return cls()
        if address[0] not in "/@":
            log.warning("NOTIFY_SOCKET %r is no address of a Unix socket and is not used", address)
            return cls()
        # unix(7): the name of an abstract socket begins with a null byte, for which the variable has an @.
        address = f"\0{address[1:]}" if address.startswith("@") else address
        # sd_watchdog_enabled(3): without a number it is meant for whoever has the variable.
        ours = limit.isdigit() and int(limit) > 0 and process in ("", str(os.getpid()))
        return cls(address, int(limit) / _MICROSECONDS if ours else None)

    def ready(self) -> None:
        """The tree is usable."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The daemon begins to end."""
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """One line for a person, which `systemctl status` shows."""
        self._send(f"STATUS={one_line(sentence)}")

    def alive(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, assignment: str) -> None:
        """Never waits: a manager that does not read is not to hold the daemon."""
        if not self.address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(assignment.encode("utf-8", "surrogateescape"), self.address)
            except OSError as error:
                log.warning(
                    "the service manager was not told %s: %s", assignment, os.strerror(error.errno or 0)
                )
