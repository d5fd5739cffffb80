"""Real daemons for tests: started as a person starts one, on a mount point of their own.

Pytest plugin with the fixtures `make_daemon` and `daemon`. A test that leaves an error or a traceback
in a daemon's log fails, unless it announced that with `Daemon.expect_log`.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest

from support.keepers import end_keepers
from support.leftovers import beneath, take_away
from support.logs import complaints
from support.machine import is_mounted
from support.shell import User, run

PROJECT = Path(__file__).parents[2]
#: Seconds until a new daemon must answer on a usual machine, and until a terminated one must have ended.
START_LIMIT = 30.0
STOP_LIMIT = 30.0


class Daemon:
    """A daemon in the foreground of its own session; `mount`, `state` and `storage` are its directories."""

    #: Seconds until a new daemon must answer.
    start_limit: ClassVar[float] = START_LIMIT

    def __init__(
        self, base: Path, *, options: tuple[str, ...], env: Mapping[str, str], user: User | None
    ) -> None:
        self.base = base
        self.mount = base / "mount"
        self.state = base / "state"
        self.storage = base / "storage"
        self.user = user
        self._options = options
        self._env = dict(env)
        self._log = base / "log"
        self._announced: list[str] = []
        self._is_log_told = False
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (base, self.mount, self.state, self.storage):
            directory.mkdir()
            if user is not None:
                os.chown(directory, user.uid, user.gid)
        self._log.touch()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last process that was started, which may have ended."""
        assert self._process is not None, "the daemon was never started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that the daemon and those before it on this mount point wrote to stdout and stderr."""
        return self._log.read_text(errors="replace")

    def expect_log(self, pattern: str) -> None:
        """Announce an error: its record must come, found by the regular expression `pattern`."""
        self._announced.append(pattern)

    def start(self) -> None:
        """Start the daemon and return when it answers; `AssertionError` with its log if it does not."""
        assert not self.is_running, "the daemon is running"
        argv = [
            # A warning of Python in the daemon is an error of the daemon.
            *(sys.executable, "-W", "error", "-m", "fspoolfs"),
            *("mount", str(self.mount), "--foreground"),
            *("--state-dir", str(self.state), "--storage-dir", str(self.storage)),
            *self._options,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env={**os.environ, **self._env},
                user=None if self.user is None else self.user.uid,
                group=None if self.user is None else self.user.gid,
                extra_groups=None if self.user is None else [],
                start_new_session=True,
                preexec_fn=self._instead_of(argv),
            )
        if not self._becomes_usable():
            self._fail("did not come up")

    def stop(self) -> None:
        """End the daemon by SIGTERM; `AssertionError` unless it exits with 0 and is unmounted."""
        self.process.terminate()
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._fail(f"did not end within {STOP_LIMIT:g} s of SIGTERM")
        if status != 0:
            self._fail(f"ended with {status} after SIGTERM")
        assert not is_mounted(self.mount), f"{self.mount} is still mounted after the daemon's end"

    def kill(self, *, unmount: bool = True) -> None:
        """End the daemon by SIGKILL; what is left of its mount goes too, or stays for the next daemon."""
        self.process.kill()
        self.process.wait()
        if unmount:
            self.unmount()

    def restart(self) -> None:
        """Stop the daemon if it is running, and start one with the same directories and options."""
        if self.is_running:
            self.stop()
        self.start()

    def unmount(self) -> None:
        """Take the control tree out of the way, dead or alive; what the pools have mounted stays."""
        take_away(leftover for leftover in beneath(self.base) if leftover.remedy[-1] == str(self.mount))

    def close(self) -> None:
        """Stop the daemon, remove all that it had, and fail the test for what the log should not have."""
        try:
            if self.is_running:
                self.stop()
        finally:
            log = self.log
            print(log)  # pytest shows it with a failed test
            if self.is_running:
                self.kill(unmount=False)
            end_keepers(self.state)
            take_away(beneath(self.base))
            run("rm", "-r", "-f", "--one-file-system", "--", self.base)
        found = complaints(log, self._announced)
        if found and not self._is_log_told:
            pytest.fail("the daemon's log:\n" + "\n".join(found), pytrace=False)

    def _instead_of(self, argv: Sequence[str]) -> Callable[[], None] | None:
        """What the new process does instead of executing `argv`; here nothing."""
        return None

    def _becomes_usable(self) -> bool:
        """Wait until the daemon answers on its mount point; false when it ends or is too slow."""
        process = os.pidfd_open(self.process.pid)
        try:
            with open("/proc/self/mountinfo") as table:
                waiter = select.poll()
                # proc(5): a change of the mounts is an exceptional condition (POLLERR and POLLPRI).
                waiter.register(table, select.POLLPRI)
                waiter.register(process, select.POLLIN)
                deadline = time.monotonic() + self.start_limit
                # What is mounted at first may be what a killed daemon left, which answers with an error.
                while not self._answers():
                    waiter.poll(max(0.0, deadline - time.monotonic()) * 1000)
                    if self.process.poll() is not None or time.monotonic() >= deadline:
                        return False
                return True
        finally:
            os.close(process)

    def _answers(self) -> bool:
        # The kernel holds a request until the daemon serves, and fails it when the daemon dies.
        return (
            is_mounted(self.mount)
            and not run(
                "cat", self.mount / "version", user=self.user, check=False, timeout=self.start_limit
            ).returncode
        )

    def _fail(self, what: str) -> NoReturn:
        self._is_log_told = True
        raise AssertionError(f"the daemon {what}; its log:\n{self.log}")


class MakeDaemon:
    """Makes and starts daemons, each in a directory of its own beneath `directory`."""

    def __init__(self, directory: Path, numbers: Iterator[int]) -> None:
        self._directory = directory
        self._numbers = numbers
        self.made: list[Daemon] = []

    def __call__(
        self,
        *options: str,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        prepare: Callable[[Daemon], None] | None = None,
    ) -> Daemon:
        """A running daemon with more `options` of `fspoolfs mount`; `prepare` is called before its start."""
        daemon = Daemon(
            self._directory / f"d{next(self._numbers)}", options=options, env=env or {}, user=user
        )
        self.made.append(daemon)
        if prepare is not None:
            prepare(daemon)
        daemon.start()
        return daemon


_numbers = count(1)


@contextmanager
def daemons(directory: Path) -> Iterator[MakeDaemon]:
    """A `MakeDaemon` whose daemons end with the context; for fixtures of wider scope as well."""
    make = MakeDaemon(directory, _numbers)
    try:
        yield make
    finally:
        close_all(make.made)


def close_all(made: list[Daemon]) -> None:
    """Close every daemon, the last first, even when closing one fails."""
    if made:
        try:
            made.pop().close()
        finally:
            close_all(made)


@pytest.fixture
def make_daemon(run_directory: Path) -> Iterator[MakeDaemon]:
    """Starts daemons: `make_daemon("--sim", user=as_user(1000))`."""
    with daemons(run_directory) as make:
        yield make


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """One running daemon with nothing defined."""
    return make_daemon()


def define_tank(mount: Path) -> Path:
    """Define pool `tank` in its default place; its directory in the control tree."""
    pool = mount / "pools" / "tank"
    pool.mkdir()
    return pool
