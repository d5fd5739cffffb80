"""Databases in containers on items of volume pools, while our daemon dies and they do.

No byte of theirs passes through the daemon, so that its death is no event for them. What was acknowledged
to a client is there when the container was killed, since the file system is a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mount.control import request, value
from root.volume_pools import FORMATS, MARKS, MIB, define
from support.daemon import Daemon
from support.needs import needs_program
from support.shell import run
from support.wait import eventually

pytestmark = [*MARKS, needs_program("bwrap", "fio"), pytest.mark.container]

#: Who the database's server runs as, which refuses to be root.
USER = 4711
#: Four writers; each prints the number of a row once its transaction is committed.
WRITERS = """
import itertools, sqlite3, threading
numbers, lock = itertools.count(1), threading.Lock()
def write():
    database = sqlite3.connect("/data/db", timeout=60)
    database.execute("PRAGMA synchronous = FULL")
    for _ in iter(int, 1):
        with lock:
            number = next(numbers)
        with database:
            database.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 500))
        print(number, flush=True)
with sqlite3.connect("/data/db") as database:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER, text TEXT)")
for _ in range(4):
    threading.Thread(target=write).start()
"""
#: Fills the database until it is told that there is no room.
FILLER = """
import sqlite3
database = sqlite3.connect("/data/db")
try:
    while True:
        with database:
            database.execute("INSERT INTO rows VALUES (0, ?)", ("x" * 100_000,))
except sqlite3.OperationalError as error:
    print(error)
"""


def contained(data: Path, argv: Sequence[str], *, user: int = 0) -> list[str]:
    """The command that runs `argv` in a container with the host's programs, and `data` at /data."""
    users = data.parent / "passwd"
    if not users.exists():
        users.write_text(f"root:x:0:0::/:/bin/sh\npg:x:{USER}:{USER}::/:/bin/sh\n")
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--uid", str(user), "--gid", str(user)),
        *("--ro-bind", "/usr", "/usr", "--ro-bind", str(users), "/etc/passwd"),
        *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", str(data), "/data"),
        *argv,
    ]


class Writers:
    """The container of the writers, and the numbers that it has acknowledged."""

    def __init__(self, data: Path) -> None:
        self.acknowledged: list[int] = []
        self._process = subprocess.Popen(
            contained(data, ["/usr/bin/python3", "-c", WRITERS]),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.acknowledged.append(int(line))

    def await_more(self) -> None:
        wanted = len(self.acknowledged) + 50
        eventually(
            lambda: len(self.acknowledged) >= wanted or self._process.poll() is not None,
            what="the database goes on",
        )
        assert self._process.poll() is None

    def kill(self) -> None:
        """kill -9 of the container and all in it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def writers(data: Path) -> Iterator[Writers]:
    made = Writers(data)
    try:
        yield made
    finally:
        made.kill()


def check_database(data: Path, acknowledged: Sequence[int]) -> None:
    """The database is whole, and has every row that was acknowledged."""
    with closing(sqlite3.connect(data / "db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = {number for (number,) in database.execute("SELECT number FROM rows")}
    assert set(acknowledged) - there == set()


@pytest.mark.parametrize("format", FORMATS)
def test_a_database_does_not_notice_the_daemon_and_survives_its_container(
    daemon: Daemon, format: str
) -> None:
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    for name in ("db", "io"):
        (pool / "items" / name).mkdir()
    data = (pool / "items" / "db" / "data").resolve()
    verified = [
        *("fio", "--name=verified", f"--directory={(pool / 'items' / 'io' / 'data').resolve()}"),
        *("--rw=randwrite", "--bs=4k", "--size=16m", "--rate_iops=2000", "--fsync=64"),
        *("--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--minimal"),
    ]
    with subprocess.Popen(verified, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as fio:
        with writers(data) as database:
            database.await_more()
            daemon.kill()
            database.await_more()
            daemon.start()
            eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
            database.await_more()
        check_database(data, database.acknowledged)
        with writers(data) as again:
            again.await_more()
        check_database(data, again.acknowledged)
        output, _ = fio.communicate(timeout=60)
    assert fio.returncode == 0, output
    request(pool / "status", "stop")


def test_a_database_that_is_full_goes_on_when_its_item_gets_more_room(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "btrfs")
    request(pool / "status", "start build")
    item = pool / "items" / "db"
    item.mkdir()
    request(item / "capacity", "16M")
    data = (item / "data").resolve()
    with writers(data) as database:
        database.await_more()
    filler = contained(data, ["/usr/bin/python3", "-c", FILLER])
    # The index of the log is mapped into memory: where that cannot grow, the end is a signal.
    said = run(*filler, check=False)
    assert "disk" in said.stdout + said.stderr, (
        "sqlite takes EDQUOT for an error of the disk, or for a full one"
    )
    request(item / "capacity", "64M")
    check_database(data, database.acknowledged)
    with writers(data) as again:
        again.await_more()
    check_database(data, [*database.acknowledged, *again.acknowledged])
    request(pool / "status", "stop")


def _postgres() -> Path | None:
    """Where PostgreSQL's programs are, if it is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


@pytest.mark.skipif(_postgres() is None, reason="needs PostgreSQL")
@pytest.mark.parametrize("format", FORMATS)
def test_pgbench_goes_on_while_the_daemon_dies_and_its_server_recovers(daemon: Daemon, format: str) -> None:
    programs, user = _postgres(), USER
    assert programs is not None
    pool = define(daemon, "tank", format, size=1024 * MIB)
    request(pool / "status", "start build")
    request(
        daemon.mount / "define",
        f"<fs><name>pg</name><source fspool='tank'/><permissions><mode>0700</mode><owner>{user}</owner>"
        f"<group>{user}</group></permissions></fs>",
    )
    data = (pool / "items" / "pg" / "data").resolve()
    assert shutil.which("setpriv")
    begin = f"""
        export PATH={programs}:$PATH PGHOST=/tmp PGUSER=pg
        [ -e /data/pg ] || initdb -D /data/pg -U pg -A trust >/dev/null
        pg_ctl -D /data/pg -o '-k /tmp -h ""' -l /data/log -w start >/dev/null
    """
    server = f"""{begin}
        pgbench -i -s 2 postgres >/dev/null 2>&1
        echo ready
        exec pgbench -c 4 -T 600 -P 1 postgres 2>&1
    """
    sums = ", ".join(
        f"(SELECT sum({column}) FROM pgbench_{table})"
        for column, table in (("abalance", "accounts"), ("tbalance", "tellers"), ("delta", "history"))
    )
    check = f"""{begin}
        psql -Atc "SELECT {sums}" postgres
        pg_ctl -D /data/pg stop >/dev/null
    """

    def as_user(script: str) -> list[str]:
        dropped = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--")
        return [*dropped, *contained(data, ["/bin/sh", "-c", script], user=user)]

    with subprocess.Popen(
        as_user(server), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as bench:
        assert bench.stdout is not None
        lines = iter(bench.stdout.readline, "")
        assert next(lines) == "ready\n"
        for number, line in enumerate(one for one in lines if one.startswith("progress:")):
            assert " 0 failed" in line or "failed" not in line
            if number == 2:
                daemon.kill()
            if number == 4:
                daemon.start()
            if number == 6:
                break
        os.killpg(bench.pid, signal.SIGKILL)
    eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
    accounts, tellers, history = run(*as_user(check), timeout=100).stdout.strip().split("|")
    assert accounts == tellers == history != "0", "what is in the history is in the balances"
    request(pool / "status", "stop")
