"""The scripts: what they install, start and say, and that doing it twice does nothing twice.

`scripts/install` runs on a made-up machine: the programs that it calls are small scripts that note
how they were called, so that no package is installed and no registry is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.leftovers import beneath, take_away
from support.machine import is_mounted
from support.needs import needs_fuse, needs_root
from support.shell import run

PROJECT = Path(__file__).parents[1]
SCRIPTS = [
    PROJECT / "scripts" / name
    for name in ("install", "install-system", "manpages", "quickstart", "test", "vmtest")
]

NEEDED = (
    "fuse3", "libfuse3-3", "gcc", "libc6-dev", "pkg-config", "libfuse3-dev", "python3-dev", "python3-venv",
)  # fmt: skip

#: Notes its name, arguments and the environment that matters, then goes on with `body`.
NOTING_PROGRAM = """#!/bin/bash
echo "{name} $*${{DEBIAN_FRONTEND:+ [$DEBIAN_FRONTEND]}}" >> {journal}
{body}
"""

PYTHON = """
case "$1 $2" in
"-c "*) echo 3.11.9 ;;
"-m venv")
    directory=${!#}
    mkdir -p "$directory/bin"
    cp "$0" "$directory/bin/python"
    ;;
"-m pip") touch "$(dirname "$0")/fspoolfs" && chmod +x "$(dirname "$0")/fspoolfs" ;;
esac
"""


class Machine:
    """A made-up machine with a checkout of the project."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        self.programs = directory / "programs"
        self.journal = directory / "journal"
        self.policy = directory / "policy-rc.d"
        (self.checkout / "scripts").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(PROJECT / "scripts" / "install", self.checkout / "scripts")
        shutil.copy(PROJECT / "pyproject.toml", self.checkout)
        for name in ("bash", "cat", "cp", "cut", "dirname", "env", "grep", "mkdir", "sed", "rm", "sha256sum",
                     "touch", "tr", "chmod"):  # fmt: skip
            path = shutil.which(name)
            assert path is not None, name
            (self.programs / name).symlink_to(path)
        self.program("python3", PYTHON)
        self.program("apt-get")
        self.has_packages(*NEEDED)
        self.user(0)

    def program(self, name: str, body: str = "") -> None:
        """Put a program on the path that notes its calls."""
        path = self.programs / name
        path.write_text(NOTING_PROGRAM.format(name=name, journal=self.journal, body=body))
        path.chmod(0o755)

    def has_packages(self, *names: str) -> None:
        """Let exactly these packages be installed, and one more of which only the settings are left."""
        lines = [f"installed {name}, " for name in names]
        text = "\n".join([*lines, "config-files crun, ", "installed other, provided (= 1.0), also:any"])
        self.program("dpkg-query", f"cat <<'END'\n{text}\nEND")

    def user(self, uid: int) -> None:
        """Let the scripts see this user id."""
        self.program("id", f"echo {uid}")

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the install script with nothing else on the path."""
        script = self.checkout / "scripts" / "install"
        env = {
            "PATH": str(self.programs),
            "PYTHON": str(self.programs / "python3"),
            "POLICY_RC_D": str(self.policy),
        }
        return run(script, *arguments, env=env, check=False)

    def calls(self, name: str) -> list[str]:
        """The calls of one program so far."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]

    def pip_calls(self) -> list[str]:
        return [call for call in self.calls("python3") if call.startswith("-m pip")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    return Machine(tmp_path)


def apt(command: str) -> str:
    """A call of apt-get as the script makes it, never asking and with no recommended packages."""
    options = "--quiet --quiet"
    if command.startswith("install"):
        options += " --option Dpkg::Use-Pty=0 --yes --no-install-recommends"
    return f"{options} {command} [noninteractive]"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run_and_parsed(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    run("bash", "-n", script)


def test_ci_runs_the_test_command_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(PROJECT / ".ci" / "run", tmp_path / ".ci")
    stand_in = tmp_path / "scripts" / "test"
    stand_in.write_text('#!/bin/sh\necho "CI=$CI $*"\nexit 5\n')
    stand_in.chmod(0o755)
    result = run(tmp_path / ".ci" / "run", "-k", "one", check=False)
    assert (result.returncode, result.stdout) == (5, "CI=true -k one\n")


def test_a_complete_machine_gets_only_the_environment(machine: Machine) -> None:
    result = machine.install()
    assert (result.returncode, result.stderr) == (0, "")
    assert machine.calls("apt-get") == []
    assert machine.calls("python3")[-2:] == [
        "-m venv --clear .venv",
        "-m pip --quiet --disable-pip-version-check install --editable .",
    ]


def test_only_missing_packages_are_installed_after_an_update(machine: Machine) -> None:
    machine.has_packages(*[name for name in NEEDED if name not in {"gcc", "python3-venv"}])
    assert machine.install().returncode == 0
    assert machine.calls("apt-get") == [apt("update"), apt("install gcc python3-venv")]


def test_a_package_that_another_one_provides_is_not_missing(machine: Machine) -> None:
    others = [name for name in NEEDED if name not in {"libfuse3-3", "pkg-config"}]
    machine.has_packages(*others, "libfuse3-3t64, libfuse3-3 (= 3.14)", "pkgconf, pkg-config, pkg-config-i")
    assert machine.install().returncode == 0
    assert machine.calls("apt-get") == []


def test_programs_for_tests_are_installed_only_for_tests(machine: Machine) -> None:
    assert machine.install().returncode == 0
    assert machine.calls("apt-get") == []
    assert machine.install("--test").returncode == 0
    updates, installs = machine.calls("apt-get")[::2], machine.calls("apt-get")[1::2]
    assert set(updates) == {apt("update")}
    install, for_guest, for_network, for_zfs = installs
    assert "moosefs-master" in for_network.split()
    assert "crun" in install.split()  # its settings alone do not run
    assert "linux-image-cloud-amd64" in for_guest.split()
    assert for_zfs == apt("install zfs-fuse")
    assert machine.pip_calls()[-1].endswith("--editable .[test]")


def test_a_user_installs_packages_by_sudo(machine: Machine) -> None:
    machine.user(1000)
    machine.has_packages(*NEEDED[1:])
    machine.program("sudo", '"$@"')
    assert machine.install().returncode == 0
    assert len(machine.calls("sudo")) == 2
    assert machine.calls("apt-get") == [apt("update"), apt("install fuse3")]


def test_a_user_without_sudo_is_told_what_to_install(machine: Machine) -> None:
    machine.user(1000)
    machine.has_packages(*NEEDED[2:])
    result = machine.install()
    assert result.returncode == 1
    assert result.stderr == "install: as root, run: apt-get install fuse3 libfuse3-3\n"
    assert machine.calls("apt-get") == []
    assert not (machine.checkout / ".venv").exists()


def test_missing_programs_for_tests_do_not_stop_a_user_without_sudo(machine: Machine) -> None:
    machine.user(1000)
    result = machine.install("--test")
    assert result.returncode == 0
    assert "tests will be skipped; to run them, as root: apt-get install acl attr" in result.stdout


def test_a_machine_without_a_kernel_for_the_guest_gets_the_rest(machine: Machine) -> None:
    machine.program("apt-get", 'case "$*" in *linux-image*) exit 100 ;; esac')
    result = machine.install("--test")
    assert result.returncode == 0
    assert "tests will be skipped: apt-get could not install dmsetup kmod linux-image" in result.stderr
    assert len(machine.calls("apt-get")) == 8


def test_servers_for_tests_are_not_started_by_their_installation(machine: Machine) -> None:
    asks = f'case "$*" in *moosefs*) {machine.policy}; echo "answer $?" >>{machine.journal} ;; esac'
    machine.program("apt-get", asks)
    assert machine.install("--test").returncode == 0
    assert machine.calls("answer") == ["101"]
    assert not machine.policy.exists()
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.policy.chmod(0o755)
    assert machine.install("--test").returncode == 0
    assert machine.calls("answer") == ["101", "0"]
    assert machine.policy.exists()


def test_another_zfs_is_not_replaced_by_the_one_of_the_tests(machine: Machine) -> None:
    machine.program("zpool", "")
    assert machine.install("--test").returncode == 0
    assert not any("zfs-fuse" in call for call in machine.calls("apt-get"))


@pytest.mark.parametrize("command", ["update", "install"])
def test_a_failure_of_apt_is_a_failure(machine: Machine, command: str) -> None:
    machine.has_packages(*NEEDED[1:])
    machine.program("apt-get", f'case " $* " in *" {command} "*) exit 100 ;; esac')
    result = machine.install()
    assert result.returncode == 1
    assert result.stderr == "install: apt-get could not install fuse3\n"
    assert machine.pip_calls() == []


def test_a_machine_without_dpkg_is_left_to_its_owner(machine: Machine) -> None:
    (machine.programs / "dpkg-query").unlink()
    result = machine.install()
    assert result.returncode == 0
    assert "not a Debian system" in result.stdout
    assert len(machine.pip_calls()) == 1


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.install()
    machine.install()
    assert len(machine.pip_calls()) == 1


def test_an_environment_for_tests_is_good_for_use(machine: Machine) -> None:
    machine.install("--test")
    machine.install()
    machine.install("--test")
    assert len(machine.pip_calls()) == 1


def test_changed_requirements_are_installed_into_the_same_environment(machine: Machine) -> None:
    machine.install("--test")
    with (machine.checkout / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    machine.install()
    machine.install("--test")
    assert len(machine.pip_calls()) == 3
    assert len([call for call in machine.calls("python3") if call.startswith("-m venv")]) == 1


def test_another_interpreter_gets_another_environment(machine: Machine) -> None:
    machine.install()
    machine.program("python3", PYTHON.replace("3.11.9", "3.12.1"))
    machine.install()
    assert machine.calls("python3").count("-m venv --clear .venv") == 2


def test_an_environment_whose_interpreter_is_gone_is_made_anew(machine: Machine) -> None:
    machine.install()
    (machine.checkout / ".venv" / "bin" / "fspoolfs").unlink()
    (machine.checkout / ".venv" / "bin" / "python").unlink()
    assert machine.install().returncode == 0
    assert machine.calls("python3").count("-m venv --clear .venv") == 2


def test_a_failed_installation_is_tried_again(machine: Machine) -> None:
    machine.program("python3", PYTHON.replace('"-m pip") ', '"-m pip") exit 1 ;; "never") '))
    assert machine.install().returncode == 1
    assert not (machine.checkout / ".venv" / "installed").exists()


def test_an_old_python_is_refused(machine: Machine) -> None:
    machine.program("python3", "exit 1")
    result = machine.install()
    assert result.returncode == 1
    assert "is not Python 3.11 or later; set PYTHON to one that is" in result.stderr


def test_an_unknown_option_is_refused(machine: Machine) -> None:
    result = machine.install("--tset")
    assert result.returncode == 1
    assert result.stderr == "install: usage: scripts/install [--libvirt | --test]\n"
    assert machine.calls("apt-get") == []


@needs_root
@pytest.mark.required
def test_roots_tests_have_mounts_and_shared_memory_of_their_own(tmp_path: Path) -> None:
    for directory in ("scripts", ".venv/bin"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(PROJECT / "scripts" / "test", tmp_path / "scripts")
    for stand_in, body in (
        ("scripts/install", ""),
        (".venv/bin/python", 'case "$*" in *pytest*) stat -c "%d %a" /dev/shm; echo "$*" ;; esac'),
    ):
        (tmp_path / stand_in).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / stand_in).chmod(0o755)
    lines = run(tmp_path / "scripts" / "test", "-k", "one two").stdout.splitlines()
    device, mode = lines[-2].split()
    assert int(device) != os.stat("/dev/shm").st_dev
    assert (mode, lines[-1]) == ("1777", "-m pytest -k one two")


@pytest.fixture
def place(run_directory: Path) -> Iterator[Path]:
    """A directory for a quick start; what is mounted there is taken away with it."""
    directory = run_directory / "quickstart"
    directory.mkdir()
    yield directory
    take_away(beneath(directory))
    run("rm", "-r", "-f", "--one-file-system", "--", directory)


@needs_root
@needs_fuse
@pytest.mark.required
def test_a_quick_start_can_be_followed_and_repeated(place: Path) -> None:
    mount_point = place / "mount"
    directories = ("--state-dir", place / "state", "--storage-dir", place / "storage")
    quickstart = (PROJECT / "scripts" / "quickstart", mount_point, *directories)
    hello = mount_point / "pools" / "tank" / "items" / "web" / "data" / "hello.txt"

    first = run(*quickstart).stdout
    assert f"fspoolfs is now mounted on {mount_point}.\n" in first
    assert f"fspoolfs is mounted on {mount_point} already.\n" in run(*quickstart).stdout

    # What it tells to type is what a newcomer types; only `tail -f` does not end by itself.
    *tries, follow_events, stop = commands_in(first)
    for line in tries:
        run("bash", "-c", line)
    assert hello.read_text() == "hello\n"
    assert follow_events == f"tail -f {mount_point}/events"
    run("bash", "-c", stop)
    assert not is_mounted(mount_point)

    assert f"fspoolfs is now mounted on {mount_point}.\n" in run(*quickstart).stdout
    assert hello.read_text() == "hello\n"
    run("bash", "-c", stop)


def commands_in(text: str) -> list[str]:
    """The indented lines, which are to be typed."""
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


@pytest.mark.required
def test_an_installed_checkout_is_left_as_it_is() -> None:
    run(PROJECT / "scripts" / "install", timeout=600)
    before = sorted((path, path.lstat().st_mtime_ns) for path in (PROJECT / ".venv").glob("*"))
    assert run(PROJECT / "scripts" / "install").stdout == "install: ready\n"
    assert sorted((path, path.lstat().st_mtime_ns) for path in (PROJECT / ".venv").glob("*")) == before
