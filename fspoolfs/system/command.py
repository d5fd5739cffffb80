"""The one place that runs programs: fixed directories, no shell, a bare environment, a time limit."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fspoolfs.errors import InvalidError, StorageError, TimeLimitError, UnsupportedError
from fspoolfs.progress import Progress

#: Where programs are looked up, in this order.
DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": ":".join(DIRECTORIES)}
#: The daemon's own is 0, and what programs create should not be open to everyone.
_UMASK = 0o022
#: What asks the kernel to kill the program with the thread that waits for it (PR_SET_PDEATHSIG);
#: Python code between fork and exec could hang in a process with threads.
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")
#: How long a killed program may take to end, in seconds; one that waits for a dead server in the
#: kernel is left behind.
_GRACE = 2.0
#: How often it is looked whether a program that can be cancelled is to stop, in seconds.
_STEP = 0.1
#: The most of a program's complaint that goes into an error, in characters.
_SAID = 400

#: include/uapi/linux/memfd.h, since 6.3; demanded where the sysctl vm.memfd_noexec is 2.
_MFD_NOEXEC_SEAL = 0x08


@dataclass(frozen=True, slots=True)
class Output:
    """What a program has printed that ended with `status`: 0, or another one that is no failure."""

    stdout: bytes
    stderr: bytes
    status: int = 0


def find(program: str) -> str | None:
    """The absolute path of `program`, a plain name, or `None` when it is not installed."""
    for directory in DIRECTORIES:
        path = f"{directory}/{program}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,
    allowed: Collection[int] = (),
    progress: Progress | None = None,
    variables: Mapping[str, str] | None = None,
    inherited: Collection[int] = (),
    tied: bool = False,
) -> Output:
    """Run a program to its end, at most `timeout` seconds; `input` is its standard input.

    Its environment is bare but for `variables`, and of our descriptors it has those `inherited`: a
    lock on one of them lasts while it runs. One that is `tied` is killed when this process dies;
    another goes on to its end.

    Blocks. What a program leaves running in the background does not keep the call waiting. Raises
    `UnsupportedError` when it is not installed, `TimeLimitError` after killing its process group,
    `CancelledError` likewise when `progress` is cancelled, and `StorageError` with the last line of
    its complaint for any other end than status 0 or an `allowed` one.
    """
    program = argv[0]
    if "/" in program:
        raise InvalidError(f"{program}: programs are named without a directory")
    words = [_installed(program), *argv[1:]]
    if tied:
        words = [_installed(_TIED[0]), *_TIED[1:], *words]
    with contextlib.ExitStack() as stack:
        # Files, not pipes: they never fill up, and a background process that inherits them does not
        # keep their end from being seen.
        stdin, stdout, stderr = (_memory_file(stack, name) for name in ("stdin", "stdout", "stderr"))
        _put(stdin, input or b"")
        environment = _ENVIRONMENT | dict(variables or {})
        process = _start(words, program, (stdin, stdout, stderr), environment, inherited)
        _wait(process, program, timeout, progress)
        if process.returncode != 0 and process.returncode not in allowed:
            raise StorageError(f"{program}: {_reason(process.returncode, _content(stderr))}")
        return Output(_content(stdout), _content(stderr), process.returncode)


def _installed(program: str) -> str:
    path = find(program)
    if path is None:
        raise UnsupportedError(f"{program} is not installed (looked in {', '.join(DIRECTORIES)})")
    return path


def _memory_file(stack: contextlib.ExitStack, name: str) -> int:
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _put(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _start(
    argv: list[str],
    program: str,
    streams: tuple[int, int, int],
    environment: Mapping[str, str],
    inherited: Collection[int],
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd="/",
            umask=_UMASK,
            start_new_session=True,
            pass_fds=inherited,
        )
    except OSError as error:
        raise StorageError.from_os(f"run {program}", error) from error


def _wait(process: subprocess.Popen[bytes], program: str, timeout: float, progress: Progress | None) -> None:
    """Wait for the program; kill its whole group when the time is over, or when we are interrupted."""
    deadline = time.monotonic() + timeout
    try:
        ended = progress is None and _ends_within(process, timeout)
        while progress is not None and not ended and time.monotonic() < deadline:
            ended = _ends_within(process, _STEP)
            if not ended:
                progress.advance(0)
    except BaseException:
        _kill(process)
        raise
    if not ended:
        _kill(process)
        raise TimeLimitError(f"{program} did not end within {timeout:g} seconds and was killed")


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    # Popen.wait with a time limit polls with growing sleeps; a pidfd wakes at once.
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return _ends_within_polling(process, seconds)
    try:
        if not wait_for(pidfd, seconds):
            return False
    finally:
        os.close(pidfd)
    process.wait()
    return True


def wait_for(pidfd: int, seconds: float) -> bool:
    """Whether the process behind `pidfd` ends within that time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _ends_within_polling(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Not reaped yet, so the number is still its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _ends_within(process, _GRACE)


def _reason(status: int, complaint: bytes) -> str:
    lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return lines[-1].strip()[:_SAID]
    return f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
