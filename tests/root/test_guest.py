"""The guest that `scripts/vmtest` boots: all that is tested in it, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.guest import LIMIT, MISSING, SCRIPT, Guest
from support.machine import processes_with
from support.needs import needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.vm]


def guest(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run vmtest; the test is skipped where it cannot run."""
    result = run(SCRIPT, *arguments, check=False, timeout=timeout)
    if result.returncode == MISSING:
        pytest.skip(result.stderr.strip())
    return result


@pytest.mark.required
@pytest.mark.timeout(LIMIT + 60)
def test_everything_in_the_guest_succeeds(guest_with_all_tests: Guest) -> None:
    result = guest_with_all_tests.wait()
    if result.returncode == MISSING:
        pytest.skip(result.stderr.strip())
    print(result.stdout, result.stderr)  # pytest shows it with a failed test
    assert result.returncode == 0
    assert " passed" in result.stdout
    assert " skipped" not in result.stdout


@pytest.mark.required
@pytest.mark.timeout(200)
def test_command_has_its_output_and_status_and_leaves_the_machine_alone(tmp_path: Path) -> None:
    script = f"uname -r; echo fault >&2; echo 1 > {tmp_path}/file; cat {tmp_path}/file; exit 5"
    result = guest("--timeout", "120", "--", "sh", "-c", script, timeout=150)
    assert result.returncode == 5
    release, *rest = result.stdout.splitlines()
    assert release.endswith("-amd64")
    assert release != os.uname().release
    assert rest == ["fault", "1"]
    assert os.listdir(tmp_path) == []


@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_guest_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    def left() -> list[str]:
        return [process.command for process in processes_with("TMPDIR", str(tmp_path))]

    command = (SCRIPT, "--", "sh", "-c", "echo here; exec sleep 1000")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        if process.wait(30) == MISSING:
            pytest.skip(first.decode().strip())
    assert first == b"here\n"
    eventually(lambda: not left(), what="qemu and virtiofsd are gone")
    if number == signal.SIGTERM:
        assert os.listdir(tmp_path) == []


@pytest.mark.timeout(200)
def test_a_guest_whose_emulator_is_killed_is_booted_once_more(tmp_path: Path) -> None:
    command = (SCRIPT, "--timeout", "150", "--", "sh", "-c", "echo here; exec sleep 1000")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        for _ in range(2):
            if process.poll() == MISSING:
                pytest.skip(first.strip())
            for found in processes_with("TMPDIR", str(tmp_path)):
                if "qemu-system" in found.command:
                    os.kill(found.pid, signal.SIGKILL)
            while (line := process.stdout.readline().decode()) not in ("here\n", ""):
                assert "qemu was killed by signal 9" in line
        assert process.wait(30) == 125
    assert os.listdir(tmp_path) == []


@pytest.mark.timeout(200)
def test_guest_is_ended_when_the_time_is_up(tmp_path: Path) -> None:
    result = guest("--timeout", "3", "--", "sleep", "1000", timeout=150)
    assert result.returncode == 124
    assert "vmtest: the guest did not end within 3 s" in result.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    empty = {"PATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("bash", "dirname", "env"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    result = run(SCRIPT, check=False, env=empty)
    assert result.returncode == MISSING
    assert "qemu-system-x86_64 (package qemu-system-x86)" in result.stderr
    assert "scripts/install --test" in result.stderr
