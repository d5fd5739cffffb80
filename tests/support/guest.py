"""Pytest plugin: the guest with its own tests boots when the run begins, and works beside the other tests.

It takes a third of the time of all others together, and one processor. The test of what it has to say
waits for its end.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from support.daemon import PROJECT

SCRIPT = PROJECT / "scripts" / "vmtest"
#: Seconds for all tests in the guest beside all others; alone on a quiet machine they take half of it.
LIMIT = 1800
#: vmtest's status when something is not installed.
MISSING = 77
#: The fixture by which a test asks for it.
_FIXTURE = "guest_with_all_tests"
#: Seconds that it may take to end a guest.
_PATIENCE = 30.0


@dataclass
class Guest:
    """A run of vmtest whose output goes to files."""

    process: subprocess.Popen[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end, with its output."""
        status = self.process.wait(LIMIT + _PATIENCE)
        texts = []
        for file in (self.stdout, self.stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
        return subprocess.CompletedProcess(self.process.args, status, *texts)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.stdout.close()
        self.stderr.close()


_GUEST = pytest.StashKey[Guest]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who waits for the guest is the last: until then the others need not wait, too."""
    items.sort(key=lambda item: _FIXTURE in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(_FIXTURE in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and os.geteuid() == 0 and not session.config.option.collectonly:
        session.config.stash[_GUEST] = _start(SCRIPT)


def _start(script: Path) -> Guest:
    stdout, stderr = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - `Guest.end` closes them
    argv = (script, "--timeout", str(LIMIT))
    return Guest(
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr), stdout, stderr
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    guest = session.config.stash.get(_GUEST, None)
    if guest is not None:
        guest.end()


@pytest.fixture
def guest_with_all_tests(request: pytest.FixtureRequest) -> Guest:
    """The guest that was booted at the beginning."""
    return request.config.stash[_GUEST]
