"""Running programs: from fixed places, in a bare environment, never longer than allowed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fspoolfs.errors import CancelledError, InvalidError, StorageError, TimeLimitError, UnsupportedError
from fspoolfs.progress import Progress
from fspoolfs.system import command
from support.daemon import PROJECT
from support.wait import eventually, has_ended


def sh(script: str, *, timeout: float = 30.0, input: bytes | None = None) -> command.Output:
    return command.run(["sh", "-c", script], timeout=timeout, input=input)


def test_output_and_input_are_bytes_of_any_size() -> None:
    data = os.urandom(3_000_000)
    assert command.run(["cat"], timeout=30, input=data).stdout == data
    assert sh("echo out; echo err >&2") == command.Output(stdout=b"out\n", stderr=b"err\n")
    assert sh("cat").stdout == b""


def test_the_environment_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_X", "evil")
    assert set(sh("env").stdout.decode().split()) - {"PWD=/", "SHLVL=0", "_=/usr/bin/env"} == {
        "LC_ALL=C.UTF-8",
        "PATH=" + ":".join(command.DIRECTORIES),
    }


def test_the_environment_can_have_more() -> None:
    found = command.run(["sh", "-c", "echo $MORE $LC_ALL"], timeout=30, variables={"MORE": "one"})
    assert found.stdout == b"one C.UTF-8\n"


def test_programs_start_at_the_root_with_an_ordinary_umask() -> None:
    old = os.umask(0)
    try:
        assert sh("pwd; umask").stdout.split() == [b"/", b"0022"]
    finally:
        os.umask(old)


def test_no_descriptor_of_ours_is_inherited(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert b"secret" not in sh("ls -l /proc/self/fd").stdout


def test_programs_come_from_fixed_directories_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mkfs.evil"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command.find("mkfs.evil") is None
    with pytest.raises(UnsupportedError, match=r"mkfs\.evil is not installed"):
        command.run(["mkfs.evil"], timeout=1)
    for name in (str(program), "./mkfs.evil"):
        with pytest.raises(InvalidError):
            command.run([name], timeout=1)


def test_arguments_are_never_read_by_a_shell() -> None:
    assert command.run(["echo", "$HOME; `id`", "*"], timeout=30).stdout == b"$HOME; `id` *\n"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo first >&2; echo 'no space' >&2; echo >&2; exit 3", "sh: no space"),
        ("exit 3", "sh: it ended with status 3"),
        ("kill -TERM $$", "sh: it was killed by signal 15"),
    ],
)
def test_a_failure_tells_the_last_line_of_the_complaint(script: str, sentence: str) -> None:
    with pytest.raises(StorageError) as caught:
        sh(script)
    assert caught.value.sentence == sentence
    assert caught.value.errno == errno.EIO


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TimeLimitError, match=r"sh did not end within 1\.5 seconds") as caught:
        sh(f"sleep 1000 & echo $! $$ > {pids}; wait", timeout=1.5)
    assert caught.value.errno == errno.ETIMEDOUT
    for pid in pids.read_text().split():
        assert has_ended(int(pid), timeout=10)


def test_a_background_process_does_not_keep_the_caller_waiting() -> None:
    output = sh("sleep 1000 & echo $!")
    os.kill(int(output.stdout), signal.SIGTERM)


@pytest.mark.parametrize("timeout", [0.2, 30.0])
def test_kernels_without_pidfd_wait_as_well(monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    def missing(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", missing)
    if timeout < 1:
        with pytest.raises(TimeLimitError):
            sh("exec sleep 60", timeout=timeout)
    else:
        assert sh("echo x", timeout=timeout).stdout == b"x\n"


def test_a_run_leaves_no_descriptor_behind() -> None:
    before = os.listdir("/proc/self/fd")
    sh("true")
    with pytest.raises(StorageError):
        sh("false")
    with pytest.raises(TimeLimitError):
        sh("exec sleep 60", timeout=0.01)
    assert os.listdir("/proc/self/fd") == before


def test_another_status_can_be_an_answer() -> None:
    found = command.run(["sh", "-c", "echo nothing; exit 2"], timeout=30, allowed=(2, 8))
    assert (found.status, found.stdout) == (2, b"nothing\n")
    with pytest.raises(StorageError):
        command.run(["sh", "-c", "exit 3"], timeout=30, allowed=(2,))


def test_a_program_is_killed_when_its_work_is_cancelled(tmp_path: Path) -> None:
    progress, mark = Progress(), tmp_path / "pid"
    threading.Timer(0.3, progress.cancel).start()
    progress.begin("formatting")
    with pytest.raises(CancelledError, match="formatting was cancelled"):
        command.run(["sh", "-c", f"echo $$ > {mark}; exec sleep 60"], timeout=90, progress=progress)
    assert has_ended(int(mark.read_text()), timeout=30)


#: Runs a program that writes its number and goes on, and is itself ended in the midst of it.
ENDED = """
import sys
from fspoolfs.system import command
lock = open(sys.argv[2], "w")
command.run(
    ["sh", "-c", f"echo $$ > {sys.argv[1]}; exec sleep 300"],
    timeout=600,
    tied=sys.argv[3] == "tied",
    inherited=[lock.fileno()],
)
"""


@pytest.mark.parametrize("tied", ["tied", "loose"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_only_a_tied_program_ends_with_us_and_another_keeps_what_it_inherited(
    tied: str, number: signal.Signals, tmp_path: Path
) -> None:
    mark, locked = tmp_path / "pid", tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", ENDED, mark, locked, tied], cwd=PROJECT) as process:
        eventually(lambda: mark.exists() and mark.read_text() != "", what="the program runs")
        process.send_signal(number)
    pid = int(mark.read_text())
    inherited = f"/proc/{pid}/fd"
    if tied == "tied":
        assert has_ended(pid, timeout=30)
        return
    try:
        assert str(locked) in {os.readlink(f"{inherited}/{fd}") for fd in os.listdir(inherited)}
    finally:
        os.kill(pid, signal.SIGKILL)
    assert has_ended(pid, timeout=30)


def test_a_tied_program_is_an_ordinary_one_else() -> None:
    assert command.run(["sh", "-c", "echo $0 $1", "a", "b"], timeout=30, tied=True).stdout == b"a b\n"
    with pytest.raises(StorageError, match="sh: it ended with status 3"):
        command.run(["sh", "-c", "exit 3"], timeout=30, tied=True)
    with pytest.raises(UnsupportedError, match="is not installed"):
        command.run(["mkfs.absent"], timeout=30, tied=True)


def test_a_program_that_can_be_cancelled_is_waited_for_and_limited_all_the_same() -> None:
    assert (
        command.run(["sh", "-c", "sleep 0.2; echo done"], timeout=30, progress=Progress()).stdout == b"done\n"
    )
    with pytest.raises(TimeLimitError):
        command.run(["sleep", "60"], timeout=0.3, progress=Progress())
