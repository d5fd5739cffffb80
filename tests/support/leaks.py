"""Pytest plugin: a run that leaves something on the machine fails, says what, and takes it away.

Every run has a token. Processes are known by it in their environment, mounts and loop devices by the
directory that is named after it, files in /dev/shm by their names. What has no such mark is somebody
else's, however new it is: it is neither blamed nor touched. Only what no one else can reach needs no
mark: in a mount namespace of its own every new mount is the run's, and on a /dev/shm of its own every
file (`scripts/test` makes both for root).
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
from support.machine import in_own_mount_namespace, processes_with
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


def mark() -> str:
    """What the name of a file in /dev/shm begins with that is to be known as this run's."""
    return f"fspoolfs-{os.environ[TOKEN_VARIABLE]}-"


def _shared() -> Counter[Leftover]:
    """What this process may have in common with others, and what may have been there before."""
    return Counter([*leftovers.mounted(), *leftovers.in_shared_memory()])


def _left(current: TestRun) -> list[Leftover]:
    deadline = time.monotonic() + GRACE
    for process in processes_with(TOKEN_VARIABLE, current.token):
        has_ended(process.pid, timeout=max(0.0, deadline - time.monotonic()))
    mounts_are_ours = in_own_mount_namespace()
    memory_is_ours = mounts_are_ours and _has_own_shared_memory()
    old = current.before
    return [
        *leftovers.running(TOKEN_VARIABLE, current.token),
        *_ours(current, leftovers.mounted(), old, all_of_them=mounts_are_ours),
        *_ours(current, leftovers.in_shared_memory(), old, all_of_them=memory_is_ours),
        *_ours(current, leftovers.attached(), old, all_of_them=False),  # there is one set for all
        *leftovers.files(current.temporary),
        *leftovers.files(current.directory, but={current.temporary, current.own_temporary}),
    ]


def _ours(
    current: TestRun, found: list[Leftover], before: Counter[Leftover], *, all_of_them: bool
) -> list[Leftover]:
    """What is new among `found` and carries the run's token, or all that is new."""
    new = (Counter(found) - before).elements()
    return [leftover for leftover in new if all_of_them or current.token in leftover.sentence]


def _has_own_shared_memory() -> bool:
    """Whether /dev/shm is another file system here than for the process that started this one."""
    try:
        return os.stat("/dev/shm").st_dev != os.stat(f"/proc/{os.getppid()}/root/dev/shm").st_dev
    except OSError:  # a parent of another user, or a machine without it
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
