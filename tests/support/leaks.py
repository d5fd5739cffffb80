"""Pytest plugin: a run that leaves something on the machine fails, says what, and takes it away.

Every run has a token. Processes are known by it in their environment, mounts, loop devices and files
by the directory that is named after it, so that runs beside each other do not blame each other. In a
mount namespace of its own (`scripts/test` makes one for root) every new mount is the run's.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import leftovers
from support.leftovers import Leftover
from support.machine import processes_with
from support.shell import run
from support.wait import has_ended

#: The environment variable that carries the run's token to every process that a test starts.
TOKEN_VARIABLE = "FSPOOLFS_TEST_TOKEN"
#: Seconds in which a process that was told to end may still do so after the last test.
GRACE = 2.0


@dataclass(slots=True)
class TestRun:
    """One run of pytest: its token and its directory, short since socket names have 107 bytes."""

    __test__ = False

    token: str
    directory: Path
    before: Counter[Leftover]

    @property
    def own_temporary(self) -> Path:
        """pytest's `tmp_path`s; they need not be removed by the tests."""
        return self.directory / "t"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the run; tests and the programs they start must leave it empty."""
        return self.directory / "tmp"


RUN = pytest.StashKey[TestRun]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    token = secrets.token_hex(4)
    current = TestRun(token, Path(f"/tmp/fspoolfs-{token}"), Counter())
    config.stash[RUN] = current
    if config.option.basetemp is None:
        config.option.basetemp = str(current.own_temporary)


def pytest_sessionstart(session: pytest.Session) -> None:
    current = session.config.stash[RUN]
    current.before = _shared()
    # Tests run programs as other users, who must get through to what is theirs.
    current.directory.mkdir(mode=0o755)
    current.temporary.mkdir()
    current.temporary.chmod(0o1777)
    os.environ[TOKEN_VARIABLE] = current.token
    os.environ["TMPDIR"] = tempfile.tempdir = str(current.temporary)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    # As the innermost wrapper this comes after the last fixture's end and before the closing lines.
    yield
    current = session.config.stash[RUN]
    found = list(_left(current))
    if found:
        _report(session, [leftover.sentence for leftover in found])
    failures = [failure for leftover in found if (failure := leftover.remove())]
    if failures:
        _report(session, ["could not be taken away:", *failures])
    run("rm", "-r", "-f", "--one-file-system", "--", current.directory)


@pytest.fixture(scope="session")
def run_directory(request: pytest.FixtureRequest) -> Path:
    """The directory of this run, which every user may enter; what is put there must be removed."""
    return request.config.stash[RUN].directory


def _shared() -> Counter[Leftover]:
    """What this process has in common with others that neither the run's token nor its place marks."""
    return Counter([*leftovers.mounted(), *leftovers.in_shared_memory()])


def _left(current: TestRun) -> list[Leftover]:
    deadline = time.monotonic() + GRACE
    for process in processes_with(TOKEN_VARIABLE, current.token):
        has_ended(process.pid, timeout=max(0.0, deadline - time.monotonic()))
    everything_is_ours = _in_own_mount_namespace()
    new = (_shared() - current.before).elements()
    return [
        *leftovers.running(TOKEN_VARIABLE, current.token),
        *(leftover for leftover in new if everything_is_ours or current.token in leftover.sentence),
        *(leftover for leftover in leftovers.attached() if current.token in leftover.sentence),
        *leftovers.files(current.temporary),
        *leftovers.files(current.directory, but={current.temporary, current.own_temporary}),
    ]


def _in_own_mount_namespace() -> bool:
    """Whether this process was put into a new mount namespace when it was started."""
    try:
        return os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
    except OSError:  # a parent of another user
        return False


def _report(session: pytest.Session, sentences: list[str]) -> None:
    """Make the run fail with `sentences` among its errors."""
    text = "\n".join(["the tests left behind:", *(f"  {sentence}" for sentence in sentences)])
    report = pytest.TestReport(
        nodeid="the machine after the tests",
        location=("", None, "the machine after the tests"),
        keywords={},
        outcome="failed",
        longrepr=text,
        when="teardown",
    )
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
