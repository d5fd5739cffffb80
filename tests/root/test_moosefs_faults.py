"""Pools on MooseFS whose servers die, stop or come back, seen from a daemon and from who writes there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mount.control import request, value
from root.moosefs_pools import active, clients_of, root_of, types_at
from support import moosefs as servers
from support.daemon import Daemon, MakeDaemon
from support.moosefs import MooseFs, running_apart
from support.shell import run
from support.wait import eventually

# First of all, since daemons are to be on the host that the fixture enters.
pytestmark = servers.MARKS

#: Appends a line and syncs it, over and over, and tells each when it is safe.
_WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    os.write(fd, b"%d\\n" % number)
    os.fsync(fd)
    print(number, flush=True)
    number += 1
"""
#: Seconds that a MooseFS may take until it works again after one of its servers was killed.
_BACK = 90.0
#: For which the master keeps the session of a client that it does not hear of.
_SUSTAINED = 60.0


@contextmanager
def writing(file: Path, told: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who writes into `file`, with what he was promised in `told`."""
    with told.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdout=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def check_kept(file: Path, told: Path) -> None:
    """All that was promised is there, in order, and nothing else but perhaps one line more."""
    written = file.read_text().splitlines()
    assert written == [str(number) for number in range(len(written))]
    assert len(written) >= lines_of(told)


def is_responsive(daemon: Daemon) -> bool:
    """Whether a daemon serves what has nothing to do with servers that are gone."""
    run("cat", daemon.mount / "version", timeout=5.0)
    run("ls", daemon.mount / "pools", timeout=5.0)
    return True


@pytest.mark.long
@pytest.mark.usefixtures("own_moosefs")
def test_nothing_that_was_promised_is_lost_with_a_master_that_is_killed_and_comes_back(
    own_moosefs: MooseFs, daemon: Daemon, tmp_path: Path
) -> None:
    with active(daemon, own_moosefs) as pool:
        item = pool / "items" / "web"
        item.mkdir()
        data, told = root_of(pool) / "web", tmp_path / "told"
        with writing(data / "file", told):
            eventually(lambda: lines_of(told) > 20, what="somebody writes")
            own_moosefs.master.kill()
            assert is_responsive(daemon)
            before = lines_of(told)
            own_moosefs.master.start()
            eventually(lambda: lines_of(told) > before + 20, what="writing goes on", timeout=_BACK)
        check_kept(data / "file", told)
        eventually(lambda: value(pool / "status") == "active", what="the pool is active", timeout=_BACK)
        (pool / "items" / "shop").mkdir()
        (item / "snapshots" / "after").mkdir()
        assert lines_of(item / "snapshots" / "after" / "data" / "file") >= lines_of(told)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("own_moosefs")
def test_servers_that_do_not_answer_keep_nobody_from_the_rest_and_are_let_go(
    own_moosefs: MooseFs, daemon: Daemon
) -> None:
    daemon.expect_log("storage does not answer")
    before = clients_of(own_moosefs.client)
    (daemon.mount / "pools" / "other").mkdir()
    other = daemon.mount / "pools" / "other"
    request(other / "status", "start build")
    with active(daemon, own_moosefs) as pool:
        (pool / "items" / "web").mkdir()
        root = root_of(pool)
        own_moosefs.stop_all()
        try:
            # Nothing of it may be held by a cache.
            with subprocess.Popen(["touch", root / "web" / "new"], stderr=subprocess.DEVNULL) as hung:
                with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
                    (pool / "items" / "shop").mkdir()
                assert caught.value.errno in (errno.ETIMEDOUT, errno.EINPROGRESS)
                assert is_responsive(daemon)
                (other / "items" / "web").mkdir()
                assert hung.poll() is None
                with suppress(BlockingIOError):  # it goes on as a job
                    request(pool / "status", "destroy")
                eventually(lambda: value(pool / "status") == "inactive", what="the pool is let go")
                assert types_at(root) == []
                assert hung.wait(30) != 0
                assert is_responsive(daemon)
        finally:
            own_moosefs.stop_all(signal.SIGCONT)
        # Its program gives up its session, and with it its locks; where it ended before it heard of the
        # master again, the master does so.
        eventually(lambda: clients_of(own_moosefs.client) == before, what="its program has ended")
        eventually(lambda: started(pool), what="the pool can be started again", timeout=_SUSTAINED + _BACK)
        assert "web" in os.listdir(pool / "items")
        for name in os.listdir(pool / "items"):
            assert value(pool / "items" / name / "status") == "ready"
    request(other / "status", "destroy")


@contextmanager
def _busy_is_no_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def started(pool: Path) -> bool:
    """Whether the pool could be started, at once or by now."""
    if value(pool / "status") != "active":
        with suppress(TimeoutError, BlockingIOError), _busy_is_no_error():
            request(pool / "status", "start")
    return value(pool / "status") == "active"


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("network_places")
def test_chunk_servers_that_die_and_come_back_take_nothing_with_them(
    run_directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with running_apart(run_directory / "apart") as (made, _), made.client.entered():
        make: MakeDaemon = request.getfixturevalue("make_daemon")
        daemon, exported = make(), made.directory()
        with active(daemon, made, exported) as pool:
            (pool / "items" / "web").mkdir()
            data, told = root_of(pool) / "web", tmp_path / "told"
            with writing(data / "file", told):
                for number, server in enumerate(made.chunks, start=1):
                    go_on(told)
                    server.kill()
                    go_on(told)
                    (pool / "items" / f"i{number}").mkdir()
                    server.start()
                    made.wait_for_chunks(len(made.chunks) + number)
                    made.wait_for_copies(exported)
            check_kept(data / "file", told)
            assert len(os.listdir(pool / "items")) == 1 + len(made.chunks)
        make.made.remove(daemon)
        daemon.close()


def go_on(told: Path) -> None:
    before = lines_of(told)
    eventually(lambda: lines_of(told) > before + 20, what="somebody goes on writing", timeout=_BACK)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("own_moosefs")
def test_a_copy_is_whole_or_not_there_after_its_master_was_killed(
    own_moosefs: MooseFs, daemon: Daemon
) -> None:
    # The master may be away in the very moment of the last destroy.
    daemon.expect_log("fspoolfs .* serves|its storage does not answer; it is let go as it is")
    files = 3000
    with active(daemon, own_moosefs) as pool:
        item = pool / "items" / "web"
        item.mkdir()
        for number in range(files):
            (item / "data" / f"f{number}").touch()
        for attempt in range(5):
            with subprocess.Popen(
                ["sh", "-c", f'echo "clone c{attempt}" >"$1/status"', "sh", item], stderr=subprocess.DEVNULL
            ) as process:
                if attempt:
                    run("sleep", str(attempt * 0.02))
                own_moosefs.master.kill()
                own_moosefs.master.start()
                process.wait(_BACK)
            eventually(lambda: started(pool), what="the pool works again", timeout=_BACK)
            eventually(lambda: is_settled(pool), what="nothing goes on", timeout=_BACK)
            for name in os.listdir(pool / "items"):
                assert len(os.listdir(pool / "items" / name / "data")) == files


def is_settled(pool: Path) -> bool:
    return all(value(pool / "items" / name / "status") == "ready" for name in os.listdir(pool / "items"))
