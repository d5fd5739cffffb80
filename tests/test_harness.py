"""The rules that a test run keeps: what it may skip, what it may leave behind, what a log may have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.logs import complaints
from support.machine import loop_devices, mounts
from support.needs import needs_root
from support.nested import Project
from support.shell import CommandError, Shell, as_user, run, sh
from support.wait import eventually, has_ended

REQUIRED_AND_SKIPPED = """
@pytest.mark.required
@pytest.mark.program("no-such-program")
def test_needs_a_program():
    pass
"""


def test_a_skip_tells_its_reason_and_is_no_failure(project: Project) -> None:
    result = project.test(REQUIRED_AND_SKIPPED)
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(("variable", "value"), [("CI", "true"), ("FSPOOLFS_REQUIRED", "1")])
def test_a_skip_of_a_required_test_fails_where_it_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = project.test(REQUIRED_AND_SKIPPED)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a required test was skipped: needs no-such-program*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_required_test_must_not_skip_itself_in_ci(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.test("@pytest.mark.required\ndef test_it(): pytest.skip('not today')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a required test was skipped: not today*"])


def test_a_skip_of_a_test_that_is_not_required_passes_in_ci(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.test(REQUIRED_AND_SKIPPED.replace("@pytest.mark.required", ""))
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_module_must_not_be_skipped_whole_in_ci(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.test("pytest.importorskip('no_such_module')\ndef test_it(): pass")
    result.stdout.fnmatch_lines(["*a whole module was skipped: *no_such_module*"])
    assert result.ret != pytest.ExitCode.OK


def test_an_expected_failure_of_a_required_test_is_no_skip(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.test(
        "@pytest.mark.required\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False"
    )
    result.assert_outcomes(xfailed=1)


def test_a_test_that_mounts_is_skipped_where_nothing_can_be_mounted(project: Project) -> None:
    project.module(
        "no_fuse", 'from support import requirements; requirements.why_no_fuse = lambda: "no FUSE"'
    )
    result = project.test("def test_it(daemon): assert False", options=("-p", "no_fuse"))
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no FUSE*"])


def test_a_run_that_leaves_nothing_passes(project: Project) -> None:
    result = project.test(
        "def test_it(tmp_path): (tmp_path / 'file').write_text(os.environ['FSPOOLFS_TEST_TOKEN'])"
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_process_left_behind_fails_the_run_and_is_ended(project: Project, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    result = project.test(
        f"""
def test_it():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    pathlib.Path({str(pid_file)!r}).write_text(str(process.pid))
    process.returncode = 0  # or its destructor warns
""",
    )
    pid = int(pid_file.read_text())
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*process {pid}: sleep 600*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert has_ended(pid, timeout=30)


@pytest.mark.parametrize("place", ["os.environ['TMPDIR']", "run_directory"])
def test_a_file_left_behind_fails_the_run_and_is_removed(
    project: Project, tmp_path: Path, place: str
) -> None:
    note = tmp_path / "note"
    result = project.test(
        f"""
def test_it(run_directory):
    file = pathlib.Path({place}) / "forgotten"
    file.write_text("")
    pathlib.Path({str(note)!r}).write_text(str(file))
""",
    )
    file = Path(note.read_text())
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*file {file}*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not file.parent.exists()


def test_shared_memory_left_behind_fails_the_run_and_is_removed(project: Project) -> None:
    result = project.test(
        """
def test_it(run_directory):
    pathlib.Path("/dev/shm", run_directory.name).write_text("")
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*file /dev/shm/fspoolfs-*"])
    found = re.search(r"file (/dev/shm/fspoolfs-\w+)", result.stdout.str())
    assert found is not None
    assert not Path(found[1]).exists()


#: Starts a run in a mount namespace of its own, and there on a /dev/shm of its own as well.
OWN_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "--")
OWN_MEMORY = (*OWN_NAMESPACE, "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh")


@needs_root
@pytest.mark.required
def test_what_others_put_into_shared_memory_is_left_to_them(project: Project, run_directory: Path) -> None:
    """The daemon of another run keeps its state there, also while this one is in its own namespace."""
    theirs = Path("/dev/shm", f"theirs-{run_directory.name}")
    result = project.test(
        f"def test_it(): pathlib.Path({str(theirs)!r}).mkdir()",
        within=OWN_NAMESPACE,
    )
    found = theirs.is_dir()
    if found:
        theirs.rmdir()
    assert found
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


@needs_root
@pytest.mark.required
def test_in_shared_memory_of_its_own_everything_new_is_the_runs(project: Project) -> None:
    result = project.test("def test_it(): pathlib.Path('/dev/shm/fspoolfs-sim-x').mkdir()", within=OWN_MEMORY)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*file /dev/shm/fspoolfs-sim-x*"])


@needs_root
@pytest.mark.required
def test_a_loop_device_of_others_is_left_to_them(project: Project) -> None:
    image = project.path / "image"
    image.write_bytes(bytes(1 << 20))
    result = project.test(
        f"def test_it(): subprocess.run(['losetup', '--find', {str(image)!r}], check=True)",
        within=OWN_MEMORY,
    )
    theirs = [loop.device for loop in loop_devices() if loop.file == str(image)]
    for device in theirs:
        run("losetup", "--detach", device)
    assert len(theirs) == 1
    result.assert_outcomes(passed=1)


@needs_root
@pytest.mark.required
def test_a_mount_left_behind_fails_the_run_and_is_unmounted(project: Project) -> None:
    before = mounts()
    result = project.test(
        "def test_it(tmp_path): subprocess.run(['mount', '-t', 'tmpfs', 'none', tmp_path], check=True)",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*mount /tmp/fspoolfs-* (tmpfs, none)*"])
    assert mounts() == before


@needs_root
@pytest.mark.required
def test_in_a_mount_namespace_of_its_own_every_new_mount_is_the_runs(project: Project) -> None:
    elsewhere = project.path / "elsewhere"
    elsewhere.mkdir()
    result = project.test(
        f"def test_it(): subprocess.run(['mount', '-t', 'tmpfs', 'none', {str(elsewhere)!r}], check=True)",
        within=OWN_NAMESPACE,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*mount {elsewhere} (tmpfs, none)*"])


@needs_root
@pytest.mark.required
def test_a_loop_device_left_behind_fails_the_run_and_is_detached(project: Project) -> None:
    result = project.test(
        """
def test_it(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["losetup", "--find", image], check=True)
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*loop device /dev/loop* on /tmp/fspoolfs-*/image*"])


def test_an_asynchronous_test_that_hangs_fails_and_tells_where(project: Project) -> None:
    project.module("limit", "from support.limits import *\nfrom support import limits\nlimits.LIMIT = 0.2")
    result = project.test(
        """
import trio
async def wait_for_nothing(): await trio.sleep_forever()
async def test_hangs():
    async with trio.open_nursery() as nursery: nursery.start_soon(wait_for_nothing)
async def test_goes_on(): await trio.sleep(0)
""",
        options=("-p", "pytest_trio.plugin", "-p", "limit", "-o", "trio_mode=true"),
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["did not end within 0.2 s; its tasks waited:", "*py:* in wait_for_nothing"])


CALM = "12:00:00 INFO mounted\n12:00:01 WARNING slow\n  because of the network\n"
CRASH = (
    "12:00:02 ERROR tank: cannot be read\n"
    "Traceback (most recent call last):\n"
    '  File "x.py", line 1\n'
    "ValueError: broken\n"
    "12:00:03 INFO goes on\n"
)


@pytest.mark.parametrize(
    ("log", "announced", "found"),
    [
        (CALM, [], []),
        (CALM, ["ERROR"], ["announced, but never logged: ERROR"]),
        (CRASH, ["ValueError"], []),
        (CRASH, ["tank: cannot"], []),
        (CRASH, [], ["not announced: " + CRASH.rpartition("\n12:00:03")[0]]),
        (CRASH, ["goes on"], ["not announced: " + CRASH.rpartition("\n12:00:03")[0]]),
        (
            "Traceback (most recent call last):\nKeyError",
            [],
            ["not announced: Traceback (most recent call last):\nKeyError"],
        ),
    ],
)
def test_a_log_must_have_the_announced_errors_and_no_others(
    log: str, announced: list[str], found: list[str]
) -> None:
    assert complaints(log, announced) == found


def test_a_failed_program_tells_what_it_said() -> None:
    with pytest.raises(CommandError, match=r"(?s)exited with 3.*to stdout.*to stderr"):
        sh("echo to stdout; echo to stderr >&2; exit 3")


def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(CommandError, match=r"did not end within 2 s"):
        sh('echo $$ > "$1"; exec sleep 600', pid_file, timeout=2)
    assert has_ended(int(pid_file.read_text()), timeout=30)


@needs_root
def test_a_program_runs_as_another_user_without_roots_groups() -> None:
    assert run("id", user=as_user(1234, 5678)).stdout == "uid=1234 gid=5678 groups=5678\n"


def test_both_shells_get_their_arguments(shell: Shell) -> None:
    assert sh('printf "%s|" "$@"; cat', "a b", "c", shell=shell, input="d").stdout == "a b|c|d"


def test_waiting_in_vain_names_what_did_not_come() -> None:
    with pytest.raises(AssertionError, match="still not true after 0 s: rain"):
        eventually(lambda: False, what="rain", timeout=0)
