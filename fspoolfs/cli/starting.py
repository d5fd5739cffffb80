"""Starts a daemon, in the foreground or in the background, and reports whether it came up."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fspoolfs import daemon, log, mountpoint
from fspoolfs.config import Config
from fspoolfs.errors import BusyError, FspoolError, StorageError
from fspoolfs.system.atomic import LockFile

_READY = b"ready"
#: A file system in memory (shm_overview(7)).
_MEMORY = "/dev/shm"
#: What the name of a simulation's state directory begins with.
_SIMULATED = "fspoolfs-sim-"
#: The file in a state directory that a daemon holds locked while it lives.
_LOCK = "lock"
#: Seconds to wait for a daemon that is just ending to let go of the state directory.
_PATIENCE = 5.0


def start(config: Config) -> int:
    """Return 0 when the tree is usable, or, in the foreground, when it has ended.

    Raises `FspoolError` with why not.
    """
    config = replace(config, mountpoint=mountpoint.resolved(config.mountpoint))
    if config.foreground:
        with _state(config) as settled:
            log.configure(config.log_level, config.log_file)
            _run(settled, lambda: None)
        return 0
    return _start_in_background(config)


@contextmanager
def _state(config: Config) -> Iterator[Config]:
    """`config` with a state directory that exists; a simulation has its own, in memory."""
    try:
        if config.sim:
            memory = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
            _remove_abandoned(Path(memory))
            with tempfile.TemporaryDirectory(prefix=_SIMULATED, dir=memory) as state:
                yield replace(config, state_dir=Path(state))
            return
        # Others pass through to their items, where the storage lies in it; what is private is so by itself.
        config.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError.from_os(f"state directory {config.state_dir}", error) from error
    yield config


def _remove_abandoned(memory: Path) -> None:
    """Remove the state of this user's simulations that were killed, which nothing else ever would."""
    for state in memory.glob(f"{_SIMULATED}*"):
        with suppress(OSError, BusyError):
            info = state.lstat()
            # Everybody may write here: what others made, or could reach into, is left alone.
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
                continue
            # One that is just starting has no lock yet, or has not written its number into it.
            if not (state / _LOCK).lstat().st_size:
                continue
            lock = LockFile.acquire(str(state / _LOCK))
            try:
                shutil.rmtree(state)
            finally:
                lock.release()


def _run(config: Config, ready: Callable[[], None]) -> None:
    try:
        lock = _lock(config.state_dir / _LOCK)
    except OSError as error:
        raise StorageError.from_os(f"state directory {config.state_dir}", error) from error
    try:
        mountpoint.prepare(config.mountpoint)
        daemon.run(config, ready)
    finally:
        lock.release()


def _lock(path: Path) -> LockFile:
    """One daemon for one state directory."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return LockFile.acquire(str(path))
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _start_in_background(config: Config) -> int:
    """Fork; the child tells through a pipe that it is ready, or why not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_daemon(config, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read()
    if message == _READY:
        return 0
    os.waitpid(child, 0)
    sentence = message.decode("utf-8", "replace") or "the daemon ended without saying why"
    raise FspoolError(sentence)


def _be_daemon(config: Config, pipe: int) -> None:
    """Never returns."""

    def tell(message: bytes) -> None:
        os.write(pipe, message)
        os.close(pipe)

    status = 1
    told = False

    def ready() -> None:
        nonlocal told
        told = True
        tell(_READY)

    try:
        os.setsid()
        _let_go_of_terminal()
        with _state(config) as settled:
            log.configure(config.log_level, config.log_file or settled.state_dir / "fspoolfs.log")
            _run(settled, ready)
        status = 0
    except FspoolError as error:
        if not told:
            tell(str(error).encode("utf-8", "surrogateescape"))
    except BaseException:
        daemon.log.critical("the daemon ended by an error not foreseen", exc_info=True)
        if not told:
            tell(traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _let_go_of_terminal() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if nothing > 2:
        os.close(nothing)
    os.chdir("/")
