"""A whole MooseFS for tests: a master and chunk servers on hosts of their own, and how it is mounted.

MooseFS refuses addresses of loopback devices' own network, so that all of it lives in network namespaces.
The regular one has a single host with an address for each server, for faults there is one host for each.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from support.network import Host, Network, address
from support.shell import run
from support.wait import eventually

PROGRAMS = ("mfsmaster", "mfschunkserver", "mfsmount", "nsenter", "ip")
MARKS = [pytest.mark.root, pytest.mark.mount, pytest.mark.program(*PROGRAMS), pytest.mark.required]

#: Where the master is, from everywhere.
MASTER = address(1)
#: Addresses that the master treats in another way: whoever comes from there has to know the password, or may
#: set no quotas.
GUARDED, MEAN = address(101), address(102)
PASSWORD = "not-a-secret"

_MASTER = """\
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = {place}
EXPORTS_FILENAME = {place}/exports.cfg
TOPOLOGY_FILENAME = {place}/topology.cfg
MATOML_LISTEN_HOST = {address}
MATOCS_LISTEN_HOST = {address}
MATOCL_LISTEN_HOST = {address}
LOCK_MEMORY = 0
NICE_LEVEL = 0
REPLICATIONS_DELAY_INIT = 1
CHUNKS_LOOP_MIN_TIME = 1
SESSION_SUSTAIN_TIME = 60
"""
_CHUNKS = """\
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = {place}
HDD_CONF_FILENAME = {place}/disks.cfg
MASTER_HOST = {master}
BIND_HOST = {address}
CSSERV_LISTEN_HOST = {address}
HDD_LEAVE_SPACE_DEFAULT = 64MiB
LOCK_MEMORY = 0
NICE_LEVEL = 0
"""
_EXPORTS = f"""\
{address(1)}-{address(99)} / rw,alldirs,admin,maproot=0:0
{GUARDED} / rw,alldirs,admin,maproot=0:0,password={PASSWORD}
{MEAN} / rw,alldirs,maproot=0:0
"""


class Server:
    """One process, in the foreground, with a directory of its own."""

    def __init__(self, program: str, host: Host, place: Path, *options: str) -> None:
        self._argv = [str(shutil.which(program, path="/usr/sbin")), "-f", "-c", f"{place}/config", *options]
        self._host = host
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # The program is the child itself, for whoever kills it.
        with self._host.entered(), (self._place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._argv, "start"], stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was never started"
        return self._process.pid

    def kill(self) -> None:
        """As a power cut."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: int) -> None:
        """To the server and those that it has started, which are of its session."""
        os.killpg(self.pid, number)

    def end(self) -> None:
        """At once: nothing that it has is kept."""
        if self._process is not None and self._process.poll() is None:
            self.kill()


class MooseFs:
    """Servers that run, and one mount with all that they hold (`mounted`), as an administrator has it."""

    def __init__(self, place: Path, hosts: list[Host], chunks: int) -> None:
        """The master is on the first host, chunk servers on the first ones; `client` is the last one."""
        self.place = place
        self.client = hosts[-1]
        self.master = self._make_master(hosts[0])
        self.chunks = [self._make_chunks(hosts[min(n, len(hosts)) - 1], n) for n in range(1, chunks + 1)]
        #: Programs of the mount that had to be killed, which may take their time to end.
        self.killed: list[int] = []
        self.mounted = place / "mounted"
        self.mounted.mkdir()

    def _make_master(self, host: Host) -> Server:
        place = self.place / "master"
        place.mkdir(parents=True)
        (place / "metadata.mfs").write_bytes(b"MFSM NEW")
        (place / "topology.cfg").touch()
        (place / "exports.cfg").write_text(_EXPORTS)
        (place / "config").write_text(_MASTER.format(place=place, address=MASTER))
        return Server("mfsmaster", host, place, "-a")

    def _make_chunks(self, host: Host, number: int) -> Server:
        place = self.place / f"chunks{number}"
        (place / "disk").mkdir(parents=True)
        (place / "disks.cfg").write_text(f"{place}/disk\n")
        config = _CHUNKS.format(place=place, master=MASTER, address=address(number))
        (place / "config").write_text(config)
        return Server("mfschunkserver", host, place)

    def start(self) -> None:
        self.master.start()
        for server in self.chunks:
            server.start()
        eventually(self._is_mountable, what="the master of the MooseFS answers")
        self.wait_for_chunks(len(self.chunks))
        eventually(lambda: os.statvfs(self.mounted).f_blocks > 0, what="chunk servers have told their space")

    def wait_for_chunks(self, registered: int) -> None:
        """Until chunk servers have come to the master so many times; what is written before has one copy."""
        log = self.place / "master" / "log"
        eventually(
            lambda: log.read_text().count("chunkserver register end") >= registered,
            what=f"{registered} chunk servers have registered",
        )

    def _is_mountable(self) -> bool:
        options = "mfscfgfile=/dev/null"
        tried = self.client.run("mfsmount", "-o", options, f"{MASTER}:9421:/", self.mounted, check=False)
        return tried.returncode == 0

    def wait_for_copies(self, directory: str) -> None:
        """Until each file in an exported directory has as many copies again as it is to have."""
        place = self.mounted / directory.lstrip("/")
        files = [path for path in place.rglob("*") if path.is_file()]

        def are_there() -> bool:
            told = self.client.run("mfscheckfile", *files).stdout
            return "1 copy" not in told and "0 copies" not in told

        eventually(are_there, what="everything has its copies again", timeout=90.0)

    def _clients(self) -> list[str]:
        return [line for line in self.client.processes().values() if line.startswith("mfsmount")]

    def directory(self) -> str:
        """A new directory, as a pool's source names it."""
        made = Path(tempfile.mkdtemp(dir=self.mounted, prefix="export-"))
        made.chmod(0o755)  # users have to get through
        return f"/{made.name}"

    def source(self, directory: str, more: str = "") -> str:
        """The <source> of a pool on one of its directories; `more` follows the format."""
        return (
            f"<source><host name='{MASTER}'/><dir path='{directory}'/><format type='moosefs'/>{more}</source>"
        )

    def stop_all(self, number: int = signal.SIGSTOP) -> None:
        """Have no server answer any more, or with SIGCONT have all of them do."""
        for server in (self.master, *self.chunks):
            server.signal(number)

    def _leaving(self) -> list[int]:
        """The programs that still serve the mount."""
        return [pid for pid, line in self.client.processes().items() if str(self.mounted) in line]

    def close(self) -> None:
        # Lazily: what hangs on a dead server is to go, too.
        run("umount", "--lazy", self.mounted, check=False)  # it may never have been mounted
        # As long as there is a master, what has mounted takes leave of it and ends.
        with suppress(AssertionError):
            eventually(lambda: not self._clients(), what="mounts have ended", timeout=10.0)
        for server in (*self.chunks, self.master):
            server.end()
        run("rm", "-r", "-f", "--one-file-system", "--", self.place)


@contextmanager
def running(place: Path) -> Iterator[MooseFs]:
    """A small one, on one host: a master and two chunk servers, since there are two copies of everything."""
    with ExitStack() as stack:
        host = Host()
        made: list[MooseFs] = []
        stack.callback(lambda: host.close(but=[pid for one in made for pid in one.killed]))
        for one in (MASTER, address(2), GUARDED, MEAN):
            host.add(one)
        made.append(MooseFs(place, [host], 2))
        yield _started(stack, made[0])


@contextmanager
def running_apart(place: Path, clients: int = 1) -> Iterator[tuple[MooseFs, Network]]:
    """One for faults, with a host for each server, three of them with chunks, and for each client."""
    with ExitStack() as stack:
        made = Network(stack, 3 + clients)
        yield _started(stack, MooseFs(place, made.hosts, 3)), made


def _started(stack: ExitStack, made: MooseFs) -> MooseFs:
    stack.callback(made.close)
    made.start()
    return made


#: The servers of the run while there are some.
_shared: list[MooseFs] = []


def shared() -> MooseFs:
    """The servers that the fixture `moosefs` gave to the test that runs."""
    return _shared[0]


@pytest.fixture(scope="session")
def _shared_moosefs(run_directory: Path) -> Iterator[MooseFs]:
    with running(run_directory / "moosefs") as made:
        _shared.append(made)
        try:
            yield made
        finally:
            _shared.remove(made)


@pytest.fixture
def moosefs(_shared_moosefs: MooseFs, network_places: None) -> Iterator[MooseFs]:
    """Servers that tests share and are not to be stopped; the test is on a host that reaches them."""
    with _shared_moosefs.client.entered():
        yield _shared_moosefs


@pytest.fixture
def own_moosefs(run_directory: Path, network_places: None) -> Iterator[MooseFs]:
    """Servers that the test may stop and kill; it is on a host from which they are reached."""
    with running(run_directory / "own-moosefs") as made, made.client.entered():
        yield made
