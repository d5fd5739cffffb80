"""The daemon as a program: starting, refusing to start, ending, and what it leaves."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import refused, request, value
from support.daemon import Daemon, MakeDaemon, define_tank
from support.machine import is_mounted
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.wait import eventually, has_ended

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

PROJECT = Path(__file__).parents[2]


def fspoolfs(*arguments: str | Path, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command; it must come back by itself."""
    return run(
        sys.executable, "-m", "fspoolfs", *arguments, check=check, env={**more, "PYTHONPATH": str(PROJECT)}
    )


class Background:
    """A daemon in the background, in directories of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.mount = base / "mount"
        self.state = base / "state"
        self.storage = base / "storage"

    @property
    def options(self) -> tuple[str | Path, ...]:
        return (self.mount, "--state-dir", self.state, "--storage-dir", self.storage)

    @property
    def pid(self) -> int:
        return int((self.state / "lock").read_text())

    def start(self, *more: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return fspoolfs("mount", *self.options, *more, check=check)


@pytest.fixture
def background(run_directory: Path) -> Iterator[Background]:
    """What is still there at the end is taken away."""
    found = Background(run_directory / "background")
    found.base.mkdir()
    yield found
    if is_mounted(found.mount):
        pid = found.pid
        run("umount", "--lazy", found.mount)
        assert has_ended(pid, timeout=20)
    run("rm", "-r", "-f", "--one-file-system", "--", found.base)


# -- starting -------------------------------------------------------------------------------------


def test_in_the_background_the_command_returns_when_the_tree_is_usable(background: Background) -> None:
    assert background.start().stdout == ""
    assert (background.mount / "version").read_text()
    (background.mount / "pools" / "tank").mkdir()
    log = (background.state / "fspoolfs.log").read_text()
    assert f"serves {background.mount}" in log
    assert "Traceback" not in log
    assert (background.state / "fspoolfs.log").stat().st_mode & 0o777 == 0o600
    pid = background.pid
    # Nothing of who started it is held: no terminal, no directory, no other file.
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    assert os.getsid(pid) == pid
    fspoolfs("unmount", background.mount)
    assert has_ended(pid, timeout=20)
    assert not is_mounted(background.mount)


def test_a_background_daemon_logs_where_it_is_told(background: Background) -> None:
    file = background.base / "its.log"
    background.start("--log-file", file, "--log-level", "debug")
    assert "serves" in file.read_text()
    assert not (background.state / "fspoolfs.log").exists()


def test_what_is_missing_of_its_directories_is_made_private(background: Background) -> None:
    background.start()
    # Others pass through it to storage that lies in it, and read nothing.
    assert background.state.stat().st_mode & 0o777 == 0o711
    assert all(path.stat().st_mode & 0o077 == 0 for path in background.state.iterdir())
    request(define_tank(background.mount) / "status", "start build")
    assert (background.storage / "pools" / "tank" / ".fspool").stat().st_mode & 0o777 == 0o700


# -- refusing to start ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_a_second_daemon_on_one_state_directory_is_refused_naming_the_first(
    mode: str, daemon: Daemon, background: Background
) -> None:
    result = fspoolfs(
        "mount", background.mount, "--state-dir", daemon.state, "--storage-dir", background.storage,
        *(["--foreground"] if mode == "foreground" else []), check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert re.search(rf"\b{daemon.process.pid}\b", result.stderr), result.stderr
    assert result.stderr.startswith("fspoolfs: ")
    assert result.stderr.count("\n") == 1
    assert not is_mounted(background.mount)
    assert (daemon.mount / "version").read_text()


def test_a_second_daemon_on_one_mount_point_is_refused(daemon: Daemon, background: Background) -> None:
    result = fspoolfs("mount", daemon.mount, "--state-dir", background.state, check=False)
    assert result.returncode == 1
    assert f"{daemon.mount}: a control tree of fspoolfs is mounted there already" in result.stderr
    assert (daemon.mount / "version").read_text()


def test_a_mount_point_of_another_file_system_is_refused(background: Background) -> None:
    background.mount.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", background.mount)
    try:
        result = background.start(check=False)
        assert result.returncode == 1
        assert "a tmpfs file system is mounted there already" in result.stderr
    finally:
        run("umount", background.mount)


@pytest.mark.parametrize("place", ["pools", "pools/tank/trash", "pools/new"])
def test_a_mount_point_in_a_control_tree_is_refused(
    daemon: Daemon, background: Background, place: str
) -> None:
    define_tank(daemon.mount)
    result = fspoolfs("mount", daemon.mount / place, "--state-dir", background.state, check=False)
    assert result.returncode == 1
    assert f"lies in the control tree of fspoolfs that is mounted at {daemon.mount};" in result.stderr
    assert os.listdir(daemon.mount / "pools") == ["tank"]


def test_a_mount_point_that_is_not_empty_is_refused(background: Background) -> None:
    background.mount.mkdir()
    (background.mount / "mine").touch()
    result = background.start(check=False)
    assert result.returncode == 1
    assert f"{background.mount} is not empty" in result.stderr
    assert (background.mount / "mine").exists()


def test_a_mount_point_that_is_a_file_is_refused(background: Background) -> None:
    background.mount.touch()
    result = background.start(check=False)
    assert result.returncode == 1
    assert str(background.mount) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_state_directory_that_cannot_be_made_is_a_sentence(background: Background) -> None:
    background.state.touch()
    result = background.start(check=False)
    assert result.returncode == 1
    assert str(background.state) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_a_mount_that_fails_is_a_sentence(mode: str, background: Background) -> None:
    without_fuse = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$@"', "sh")
    result = run(
        *without_fuse, sys.executable, "-m", "fspoolfs", "mount", *background.options,
        *(["--foreground"] if mode == "foreground" else []), check=False, cwd=PROJECT,
    )  # fmt: skip
    assert result.returncode == 1
    assert f"fspoolfs: {background.mount} could not be mounted" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_killed_daemon_left_mounted_is_cleared(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    pool = define_tank(daemon.mount)
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    for _ in range(2):
        daemon.kill(unmount=False)
        assert is_mounted(daemon.mount)
        with refused(errno.ENOTCONN):
            os.listdir(daemon.mount)
        daemon.start()
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
        assert os.listdir(pool / "items") == ["web"]
    table = Path("/proc/self/mountinfo").read_text()
    assert table.count(f" {daemon.mount} ") == 1, "mounts are not stacked"


def test_a_mount_point_may_be_named_by_a_symbolic_link(background: Background) -> None:
    way = background.base / "way"
    way.symlink_to(background.base)
    options = (way / "mount", *background.options[1:])
    fspoolfs("mount", *options)
    refusal = fspoolfs("mount", way / "mount", "--state-dir", background.base / "other", check=False)
    assert "mounted there already" in refusal.stderr
    os.kill(background.pid, signal.SIGKILL)
    eventually(lambda: not _answers(background.mount), what="the daemon is dead")
    fspoolfs("mount", *options)
    assert (background.mount / "version").read_text()
    fspoolfs("unmount", way / "mount")
    assert not is_mounted(background.mount)


def _answers(mount: Path) -> bool:
    try:
        return bool(os.listdir(mount))
    except OSError:
        return False


def test_it_starts_anew_while_the_last_one_is_still_ending(background: Background) -> None:
    background.start()
    first = background.pid
    fspoolfs("unmount", background.mount)
    background.start()
    assert background.pid != first
    assert has_ended(first, timeout=20)


# -- settings -------------------------------------------------------------------------------------


def test_settings_are_read_from_a_file_and_options_override_them(background: Background) -> None:
    file = background.base / "fspoolfs.toml"
    file.write_text(
        f'mountpoint = "{background.mount}"\nstate-dir = "{background.state}"\n'
        f'storage-dir = "{background.base}/elsewhere"\ngrace = 2.5\nlog-level = "error"\nallow-other = true\n'
    )
    fspoolfs("mount", "--config", file, "--storage-dir", background.storage)
    assert is_mounted(background.mount)
    pool = define_tank(background.mount)
    assert os.readlink(pool / "root") == str(background.storage / "pools" / "tank")
    assert (background.state / "fspoolfs.log").read_text() == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour = 1", "unknown setting 'colour'"),
        ("grace = 0", "0 is no value for grace"),
        ("grace = 'soon'", "'soon' is no value for grace"),
        ("grace = nan", "nan is no value for grace"),
        ("grace = true", "True is no value for grace"),
        ("log-level = 'loud'", "'loud' is no value for log-level"),
        ("allow-other = 'yes'", "'yes' is no value for allow-other"),
        ("state-dir = ''", "'' is no value for state-dir"),
        ("foreground = true", "unknown setting 'foreground'"),
        ("[mount]\ngrace = 1", "unknown setting 'mount'"),
        ("grace = ", "Invalid value"),
        ("\xff", "invalid start byte|codec can't decode|Invalid"),
    ],
)
def test_settings_that_are_wrong_are_errors(text: str, sentence: str, background: Background) -> None:
    file = background.base / "fspoolfs.toml"
    file.write_bytes(text.encode("latin-1"))
    result = background.start("--config", file, check=False)
    assert result.returncode == 1
    assert re.search(re.escape(sentence) if "|" not in sentence else sentence, result.stderr), result.stderr
    assert str(file) in result.stderr
    assert not is_mounted(background.mount)
    assert not background.state.exists()


def test_a_settings_file_that_is_missing_is_an_error(background: Background) -> None:
    result = background.start("--config", background.base / "none.toml", check=False)
    assert result.returncode == 1
    assert "none.toml: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["mount", "--colour"], ["mount", "a", "b"], ["dismount"], ["mount", "--grace", "x"]]
)
def test_a_wrong_command_line_is_status_2_with_the_usage(arguments: list[str]) -> None:
    result = fspoolfs(*arguments, check=False)
    assert result.returncode == 2
    assert "usage: fspoolfs" in result.stderr


def test_a_grace_time_of_nothing_is_refused(background: Background) -> None:
    for text in ("0", "-1", "nan"):
        result = background.start(f"--grace={text}", check=False)
        assert result.returncode in (1, 2), text
        assert "grace" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["mount", "unmount"])
def test_help_names_the_default_mount_point(command: str) -> None:
    assert "default: /run/fspool" in fspoolfs(command, "--help").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["mount", "--help"], ["--version"]])
def test_help_goes_to_stdout(arguments: list[str]) -> None:
    result = fspoolfs(*arguments)
    assert "fspoolfs" in result.stdout
    assert result.stderr == ""


# -- ending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_with_0_while_requests_are_under_way(
    number: signal.Signals, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon()
    pool = define_tank(daemon.mount)
    request(pool / "status", "start build")
    stop, begun = threading.Event(), threading.Barrier(5)
    answers: list[int] = []

    def work(name: str) -> None:
        begun.wait()
        while not stop.is_set():
            try:
                (pool / "items" / name).mkdir()
                (pool / "items" / name).rmdir()
                (pool / "info").read_text()
            except OSError as error:
                answers.append(error.errno or 0)
                return

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    eventually(lambda: len(os.listdir(pool / "trash")) > 20, what="requests are under way")
    daemon.process.send_signal(number)
    assert daemon.process.wait(30) == 0
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not is_mounted(daemon.mount)
    # Whoever was cut off learns that the tree has gone, and nothing else.
    assert set(answers) <= {errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ESTALE}
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
    root = daemon.storage / "pools" / "tank"
    assert set(os.listdir(pool / "items")) == set(os.listdir(root)) - {".fspool"}


def test_unmounting_ends_it_with_0(daemon: Daemon) -> None:
    fspoolfs("unmount", daemon.mount)
    assert daemon.process.wait(20) == 0
    assert not is_mounted(daemon.mount)


def test_a_tree_in_use_is_not_unmounted(daemon: Daemon) -> None:
    descriptor = os.open(daemon.mount / "pools", os.O_RDONLY)
    try:
        result = fspoolfs("unmount", daemon.mount, check=False)
        assert result.returncode == 1
        assert "some process has it open" in result.stderr
        assert is_mounted(daemon.mount)
    finally:
        os.close(descriptor)
    fspoolfs("unmount", daemon.mount)
    assert daemon.process.wait(20) == 0


def test_a_signal_ends_it_even_while_it_is_in_use(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    descriptor = os.open(daemon.mount / "events", os.O_RDONLY)
    try:
        daemon.stop()
        with refused(errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV):
            os.read(descriptor, 100)
    finally:
        # close(2) flushes, which nobody answers any more.
        with refused(errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV):
            os.close(descriptor)


def test_unmounting_what_is_not_mounted_is_an_error(background: Background) -> None:
    background.mount.mkdir()
    result = fspoolfs("unmount", background.mount, check=False)
    assert result.returncode == 1
    assert "no control tree of fspoolfs is mounted there" in result.stderr
    run("mount", "-t", "tmpfs", "tmpfs", background.mount)
    try:
        assert fspoolfs("unmount", background.mount, check=False).returncode == 1
        assert is_mounted(background.mount)
    finally:
        run("umount", background.mount)


def test_what_a_killed_daemon_left_is_unmounted(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.kill(unmount=False)
    fspoolfs("unmount", daemon.mount)
    assert not is_mounted(daemon.mount)


def test_a_daemon_that_ends_lets_everything_go_that_others_need(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    request(define_tank(daemon.mount) / "status", "start build")
    daemon.stop()
    # Another daemon, of another state, takes the pool over as it is.
    other = make_daemon()
    target = daemon.storage / "pools" / "tank"
    request(
        other.mount / "define",
        f"<fspool type='dir'><name>tank</name><target><path>{target}</path></target></fspool>",
    )
    request(other.mount / "pools" / "tank" / "status", "start")
    request(other.mount / "pools" / "tank" / "status", "stop")


# -- simulation -----------------------------------------------------------------------------------


def test_the_module_and_the_installed_command_are_the_same() -> None:
    installed = Path(sys.executable).with_name("fspoolfs")
    assert run(installed, "--version").stdout == fspoolfs("--version").stdout
