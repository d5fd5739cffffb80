"""The daemon fixtures, with a stand-in for the daemon that mounts a directory and misbehaves on order."""

from __future__ import annotations

import pytest

from support.machine import mounts
from support.needs import needs_root
from support.nested import Project

pytestmark = [needs_root, pytest.mark.required]

#: Mounts its state directory, which has a `version`, and unmounts it on SIGTERM.
STAND_IN = """
import os, signal, subprocess, sys
mount, state = sys.argv[2], sys.argv[5]
def log(line): print(line, file=sys.stderr, flush=True)
def end(*_):
    subprocess.run(["umount", mount], check=True)
    {at_the_end}
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
{at_the_start}
pathlib = __import__("pathlib")
pathlib.Path(state, "version").write_text("1\\n")
subprocess.run(["mount", "--bind", state, mount], check=True)
while True: signal.pause()
"""


def run_with(
    project: Project, test: str, *, at_the_start: str = "pass", at_the_end: str = "pass"
) -> pytest.RunResult:
    """Run `test` with a daemon that does one more thing when it starts and when it ends."""
    package = project.path / "fspoolfs"
    package.mkdir()
    (package / "__main__.py").write_text(STAND_IN.format(at_the_start=at_the_start, at_the_end=at_the_end))
    project.module("stand_in", "import os, support.daemon as d; d.PROJECT = os.getcwd(); d.STOP_LIMIT = 0.5")
    return project.test(test, options=("-p", "stand_in"))


def test_a_daemon_serves_and_is_gone_afterwards(project: Project) -> None:
    before = mounts()
    result = run_with(project, "def test_it(daemon): assert (daemon.mount / 'version').read_text() == '1\\n'")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert mounts() == before


def test_a_daemon_can_be_restarted_and_killed(project: Project) -> None:
    result = run_with(
        project,
        """
from support.machine import is_mounted
def test_it(make_daemon):
    daemon, other = make_daemon(), make_daemon()
    first = daemon.process.pid
    daemon.restart()
    assert daemon.process.pid != first
    daemon.kill()
    assert not daemon.is_running
    assert not is_mounted(daemon.mount)
    daemon.start()
    other.kill(unmount=False)
    assert is_mounted(other.mount)
""",
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_what_a_killed_daemon_had_mounted_elsewhere_stays_until_the_test_ends(project: Project) -> None:
    before = mounts()
    result = run_with(
        project,
        """
from support.machine import is_mounted
def test_it(daemon):
    pool = daemon.storage / "pool"
    pool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", pool], check=True)
    daemon.kill()
    assert not is_mounted(daemon.mount)
    assert is_mounted(pool)
""",
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert mounts() == before


@pytest.mark.parametrize("place", ["at_the_start", "at_the_end"])
def test_an_error_in_the_log_fails_the_test(project: Project, place: str) -> None:
    result = run_with(project, "def test_it(daemon): pass", **{place: "log('ERROR tank: boom')"})
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*not announced: ERROR tank: boom*"])


def test_an_announced_error_is_no_failure(project: Project) -> None:
    result = run_with(
        project,
        "def test_it(daemon): daemon.expect_log('tank: b..m')",
        at_the_start="log('ERROR tank: boom')",
    )
    result.assert_outcomes(passed=1)


def test_an_announced_error_must_come(project: Project) -> None:
    result = run_with(project, "def test_it(daemon): daemon.expect_log('boom')")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*announced, but never logged: boom*"])


def test_a_daemon_that_dies_at_its_start_fails_the_test_with_its_log_once(project: Project) -> None:
    result = run_with(project, "def test_it(daemon): pass", at_the_start="sys.exit('ERROR no storage')")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the daemon did not come up; its log:*", "*ERROR no storage*"])


def test_a_daemon_that_ends_with_an_error_status_fails_the_test(project: Project) -> None:
    result = run_with(project, "def test_it(daemon): pass", at_the_end="sys.exit(3)")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the daemon ended with 3 after SIGTERM*"])


def test_a_daemon_that_does_not_end_fails_the_test_and_is_killed(project: Project) -> None:
    before = mounts()
    result = run_with(project, "def test_it(daemon): pass", at_the_end="signal.pause()")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the daemon did not end within 0.5 s of SIGTERM*"])
    assert "left behind" not in result.stdout.str()
    assert mounts() == before


def test_a_daemon_that_stays_mounted_fails_the_test_and_is_unmounted(project: Project) -> None:
    before = mounts()
    result = run_with(
        project,
        "def test_it(daemon): pass",
        at_the_end="subprocess.run(['mount', '--bind', state, mount], check=True)",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*is still mounted after the daemon's end*"])
    assert mounts() == before
