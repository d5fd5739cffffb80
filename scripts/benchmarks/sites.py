"""Clusters to measure on, as the tests have them: servers on a host of their own, and two hosts with a
daemon each, which share one pool there; the first one has a pool in a directory as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.run import Run
from benchmarks.trees import POOL
from support import ceph, moosefs
from support.clients import Client, clients
from support.network import Host, address, network

#: Of each item, by the pool's defaults.
CAPACITY = 1 << 30
#: The pool in a directory, on the first host.
LOCAL = "local"
_UUID = "5b6b7c1e-52b0-4f5a-8a3c-6f1d0e0c9a37"
#: Verbs are waited for, however slow the servers are.
_OPTIONS = ("--grace", "120")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """`limit` is the bare quota call for a directory, `limit_name` what it is; `null_limit` is what of it
    is only the start of a program. `counters` are the servers' own counts of requests so far.
    """

    name: str
    clients: Sequence[Client]
    signal: Callable[[signal.Signals], None]
    limit: Callable[[str], object]
    limit_name: str
    null_limit: Callable[[], object] | None
    counters: Callable[[], Mapping[str, int]]
    #: Seconds that the start of the pool took on each host.
    starts: list[float]
    #: Where the programs of `limit` reach the servers; this thread's.
    reach: Callable[[], AbstractContextManager[None]] = nullcontext

    def pool(self, host: int, name: str = POOL) -> Path:
        return self.clients[host].mount / "pools" / name

    def items(self, host: int) -> Path:
        return self.pool(host) / "items"

    def root(self, host: int) -> Path:
        """The export as it is mounted on a host."""
        return self.clients[host].base / "target"

    def status(self, host: int) -> str:
        return (self.pool(host) / "status").read_text().strip()


def missing(site: str) -> str:
    """Which programs a site needs that are not here; empty where it can be made."""
    programs = {"ceph": ceph.PROGRAMS, "moosefs": (*moosefs.PROGRAMS, "mfssetquota")}[site]
    return ", ".join(program for program in programs if shutil.which(program) is None)


@contextmanager
def opened(site: str, run: Run) -> Iterator[Site]:
    """A site that is up, with the pool active on both hosts. Raises `BenchError`."""
    if run.program is not None:
        raise BenchError("hosts run this checkout's program; --program is not for them")
    place = run.scratch.directory(site)
    # What the hosts' daemons have logged is told at their end, for tests.
    with (place / "told").open("w") as told, redirect_stdout(told), ExitStack() as stack:
        make = {"ceph": _ceph, "moosefs": _moosefs}[site]
        yield stack.enter_context(make(place))


@contextmanager
def _ceph(place: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        net = stack.enter_context(network(3))
        server = net.hosts[0]
        within = ("nsenter", f"--net={server.namespace}", "--")
        cluster = stack.enter_context(ceph.running(place / "ceph", address=address(1), within=within))
        with server.entered():
            cluster.confine("hosts", "/pools/tank")
        starts: list[float] = []
        source = cluster.source("/pools/tank", client="hosts")
        hosts = _hosts(stack, place, net.hosts[1:], source, starts)

        def give(number: signal.Signals) -> None:
            for one in cluster.servers.values():
                one.signal(number)

        yield Site(
            name="ceph",
            clients=hosts,
            signal=give,
            starts=starts,
            limit=_limit_ceph,
            limit_name="setxattr ceph.quota.max_bytes",
            null_limit=None,
            counters=lambda: {
                "metadata server": _ceph_count(cluster, "mds.a", "mds_server", "handle_client_request"),
                "object store": _ceph_count(cluster, "osd.0", "osd", "op"),
            },
        )


def _limit_ceph(directory: str) -> None:
    os.setxattr(directory, "ceph.quota.max_bytes", b"%d" % CAPACITY)


def _ceph_count(cluster: ceph.Cluster, server: str, group: str, counter: str) -> int:
    (socket,) = (cluster.base / "run").glob(f"{server}.*.asok")
    ask = ("ceph", "--conf", cluster.conf, "--admin-daemon", socket, "perf", "dump", group)
    answer = subprocess.run(ask, check=True, capture_output=True).stdout
    return int(json.loads(answer)[group][counter])


@contextmanager
def _moosefs(place: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        servers, net = stack.enter_context(moosefs.running_apart(place / "servers", 2))
        first: Host = net.hosts[-2]
        starts: list[float] = []
        hosts = _hosts(stack, place, net.hosts[-2:], servers.source("/tank"), starts)
        yield Site(
            name="moosefs",
            clients=hosts,
            signal=servers.stop_all,
            starts=starts,
            limit=lambda directory: _quietly("mfssetquota", "-L", str(CAPACITY), directory),
            limit_name="mfssetquota",
            null_limit=lambda: _quietly("mfssetquota"),
            counters=lambda: {"master": sum(_packets(host.base / "target") for host in hosts)},
            reach=first.entered,
        )


def _quietly(*argv: str) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _packets(mounted: Path) -> int:
    """What a client has sent to the master, by the file in which it counts that."""
    if not os.path.ismount(mounted) or not (mounted / ".stats").exists():  # the pool is stopped there
        return 0
    for line in (mounted / ".stats").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "master.packets_sent":
            return int(value)
    raise BenchError(f"{mounted}/.stats does not tell how much was sent to the master")


def _hosts(
    stack: ExitStack, place: Path, hosts: Sequence[Host], source: str, starts: list[float]
) -> Sequence[Client]:
    made = stack.enter_context(clients(place, hosts, *_OPTIONS))
    for client in made:
        (client.mount / "define").write_text(
            f"<fspool type='network'><name>{POOL}</name><uuid>{_UUID}</uuid>{source}"
            f"<target><path>{client.base}/target</path></target>"
            f"<defaults><capacity>{CAPACITY}</capacity></defaults></fspool>\n"
        )
        began = time.perf_counter()
        _start(client.mount / "pools" / POOL)
        starts.append(time.perf_counter() - began)
    local = made[0].mount / "pools" / LOCAL
    local.mkdir()
    _start(local)
    return made


def _start(pool: Path) -> None:
    (pool / "status").write_text("start build\n")
