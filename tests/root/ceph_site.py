"""Hosts that share a pool on CephFS: each with a network, a daemon and a client of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from mount.control import request, value
from support import ceph
from support.clients import Client, clients
from support.network import Network, address, network
from support.wait import eventually

UUID = "0b7a3b14-6a35-4a44-a6f1-6c3b0a7f0c55"
#: Seconds that servers and hosts need in the longer tests.
LONG = 180.0


@dataclass
class Site:
    """A cluster on the first host of a network, and daemons on the others with the pool active."""

    net: Network
    cluster: ceph.Cluster
    clients: list[Client]
    #: The file with what hosts need to be let in.
    secret: Path

    @property
    def pools(self) -> list[Path]:
        return [client.mount / "pools/tank" for client in self.clients]


def settled(pool: Path, state: str = "active") -> None:
    eventually(lambda: value(pool / "status") == state, what=f"the pool is {state}", timeout=LONG)


def start(pool: Path) -> None:
    try:
        request(pool / "status", "start build")
    except BlockingIOError:
        settled(pool)


def starts(pool: Path) -> bool:
    """Whether the pool is active, perhaps by another attempt: servers wait for clients that they lost."""
    if value(pool / "status") in ("inactive", "failed"):
        with suppress(OSError):
            request(pool / "status", "start")
    return value(pool / "status") == "active"


def document(target: str, secret: Path) -> str:
    """The pool, mounted at `target`, for who has the secret in that file."""
    return (
        f"<fspool type='network'><name>tank</name><uuid>{UUID}</uuid><source><host name='{address(1)}'/>"
        "<dir path='/pools/tank'/><format type='cephfs'/><auth type='cephfs' username='hosts'>"
        f"<secret file='{secret}'/></auth></source><target><path>{target}</path></target></fspool>"
    )


def open_site(stack: ExitStack, directory: Path, *, others: int = 0, **wanted: object) -> Site:
    """Two hosts with the pool active, and `others` on the same network that nobody is on."""
    net = stack.enter_context(network(3 + others))
    server = net.hosts[0]
    within = ["nsenter", f"--net={server.namespace}", "--"]
    cluster = stack.enter_context(
        ceph.running(directory / "ceph", address=address(1), within=within, **wanted)
    )
    with server.entered():
        cluster.make_directory("/pools/tank")
        key = cluster.key_of("hosts", "/pools/tank", "rwps")
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text(key)
    made = stack.enter_context(clients(directory, net.hosts[1:3]))
    site = Site(net, cluster, made, secret)
    for client in made:
        request(client.mount / "define", document(f"{client.base}/target", site.secret))
        start(client.mount / "pools/tank")
    return site


def items(pool: Path) -> list[str]:
    return sorted(os.listdir(pool / "items"))


def agree(site: Site) -> None:
    one, other = site.pools
    eventually(lambda: items(one) == items(other), what="both hosts list the same items", timeout=LONG)


def patiently(pool: Path, request: Callable[[], object]) -> None:
    """Wait for the end of what goes on when its time is over; slow servers are no fault."""
    try:
        request()
    except BlockingIOError:
        eventually(lambda: not busy(pool), what="all has ended", timeout=LONG)


def busy(pool: Path) -> bool:
    return any(value(pool / "items" / name / "status") != "ready" for name in items(pool))


def manages(pool: Path) -> bool:
    """Whether items can be made; while the servers wait for a lost host that is refused, and never hangs."""
    try:
        (pool / "items/after").mkdir(exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ETIMEDOUT, errno.EINPROGRESS):
            raise
        return False
    return True
