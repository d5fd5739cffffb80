"""Mounts of exports: made where nobody sees them, moved to the target, guarded from below, and let go.

At the target lies a guard first, an empty file system that nobody can write to: when the export's
mount vanishes, nothing lands on the disk underneath. Nothing here waits for a server without end.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from fspoolfs.backends import layout
from fspoolfs.backends import place as places
from fspoolfs.backends.network import exports
from fspoolfs.backends.network.engine import Engine
from fspoolfs.errors import BusyError, FspoolError, StorageError, TimeLimitError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import bounded, fusectl, holders, mounting, mounts, remote, syscalls
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.paths import HostRoot

T = TypeVar("T")

#: Where exports are mounted for the moment in which their mount is moved to its place; root's alone.
HOLD = "/run/fspoolfs/network"
#: The source of guards in mountinfo.
GUARD = "fspoolfs-guard"
#: Seconds for one look at a server that is mounted.
GLANCE = 5.0
#: Seconds between two looks at what ends by itself.
_STEP = 0.02
#: Seconds for one answer of a server, before what is mounted from it is let go without it.
ANSWER = 2.0

_TARGET = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PROBE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a mount answers whose server process has ended or was let go.
#: The last one is what clients answer that the servers have put out (CephFS).
DEAD = frozenset((errno.ENOTCONN, errno.ECONNABORTED, errno.ESTALE, errno.ENODEV, errno.ESHUTDOWN))


def place_of(definition: PoolDefinition, table: Sequence[mounts.Mount] | None = None) -> str:
    """The target without symbolic links; what is mounted there is not touched."""
    return places.unvisited(places.target_of(definition), table)


# -- mounting -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Made:
    """A mount of the export, in no place yet; `moved` when it was given one."""

    tree: int
    moved: bool = False

    def move(self, place: str) -> HostRoot:
        """Put it onto the guard at `place`. The root is what was looked at, for certain."""
        target = os.open(place, _TARGET)
        try:
            root = self.root(place)
            try:
                mounting.move(self.tree, target)
            except BaseException:
                root.close()
                raise
            self.moved = True
            return root
        finally:
            os.close(target)

    def root(self, place: str) -> HostRoot:
        """Its root, which says that it is at `place`."""
        return remote.root_of(place, Descriptor(os.open(".", _DIRECTORY, dir_fd=self.tree)))


@contextmanager
def detached(definition: PoolDefinition, engine: Engine, progress: Progress) -> Iterator[Made]:
    """The export, mounted; it is let go with the context if it was not moved."""
    _sweep(definition, engine)
    hold = f"{_prefix(definition)}{secrets.token_hex(4)}"
    made: Made | None = None
    answered = False
    try:
        _make_hold(hold)
        engine.mount(definition, hold, progress)
        found = mounts.last_on(hold)
        if found is None or not is_own(definition, engine, found):
            what = "nothing" if found is None else f"{found.source} ({found.fs_type})"
            raise StorageError(
                f"pool {definition.name}: {engine.name} said that {exports.shown(definition)} was "
                "mounted, but "
                f"there is {what}; look into the system's log"
            )
        made = Made(
            bounded.call(
                lambda: _copy(hold),
                seconds=engine.patience,
                what=f"pool {definition.name}: opening {exports.shown(definition)}",
                spoil=os.close,
            )
        )
        try:
            yield made
        except FspoolError as error:  # a refusal says nothing against the server
            answered = not isinstance(error, (StorageError, TimeLimitError))
            raise
        answered = True
    finally:
        if made is not None:
            os.close(made.tree)
        # A server that has just answered is taken leave of without anybody waiting for that.
        _drop(engine, hold, keep=answered or (made is not None and made.moved))


def _prefix(definition: PoolDefinition) -> str:
    return f"{HOLD}/{definition.uuid}-"


def _sweep(definition: PoolDefinition, engine: Engine) -> None:
    """Let go what a daemon that was killed has left of its attempts to mount this pool."""
    for name in os.listdir(HOLD) if os.path.isdir(HOLD) else ():
        if name.startswith(f"{definition.uuid}-"):
            _drop(engine, f"{HOLD}/{name}")


def _copy(hold: str) -> int:
    fd = os.open(hold, _DIRECTORY)
    try:
        return mounting.copy_detached(fd)
    finally:
        os.close(fd)


def _make_hold(hold: str) -> None:
    """A private place that is a mount of its own: what is mounted there appears in no other namespace."""
    for directory in (os.path.dirname(HOLD), HOLD):
        with suppress(FileExistsError):
            os.mkdir(directory, mode=0o700)
    os.mkdir(hold, mode=0o700)
    fd = os.open(hold, _DIRECTORY)
    try:
        tree = mounting.copy_detached(fd)
        mounting.move(tree, fd)
        os.close(tree)
    finally:
        os.close(fd)


def _drop(engine: Engine, hold: str, *, keep: bool = False) -> None:
    """Take away a private place and, unless `keep`, see to the end of the program that mounted there.

    Which may take leave of its servers first: what a killed one had, they keep from others for a while.
    """
    unmounted = False
    while (found := mounts.last_on(hold)) is not None:
        if not keep and not found.fs_type.startswith("fuse."):
            release(engine, found)
        with suppress(OSError):
            mounts.unmount_lazily(hold)
        unmounted = True
    if not keep and not (unmounted and _end_by_themselves(hold, engine.patience)):
        # Never by the number of a connection, which may be another mount's by now: it ends with its program.
        end_clients(hold)
    with suppress(FileNotFoundError):
        os.rmdir(hold)


def guard(place: str) -> None:
    """Cover the target, once, with what nobody can write to."""
    if is_guarded(place):
        return
    tree = mounting.mount_detached(GUARD, "tmpfs", "ro,size=4k,nr_inodes=2,mode=0555")
    try:
        target = os.open(place, _TARGET)
        try:
            mounting.move(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def probe_root(definition: PoolDefinition, root: HostRoot) -> None:
    """As `probe`, of one that is in its place already; only among our own files, if there are any."""
    try:
        root.stat(layout.OWN)
        fd = root.open_directory("")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(definition, error) from error
    try:
        probe(definition, Made(fd))
    finally:
        os.close(fd)


def probe(definition: PoolDefinition, made: Made) -> None:
    """Write a file durably and take it away again. Raises `StorageError` where that cannot be done."""
    try:
        try:
            where = os.open(layout.OWN, _DIRECTORY | os.O_NOFOLLOW, dir_fd=made.tree)
        except FileNotFoundError:
            where = os.open(".", _DIRECTORY, dir_fd=made.tree)
    except OSError as error:
        raise _unwritable(definition, error) from error
    name = f".fspool-probe-{secrets.token_hex(8)}"
    try:
        fd = os.open(name, _PROBE, 0o600, dir_fd=where)
        try:
            os.write(fd, b"fspoolfs\n")
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=where)
    except OSError as error:
        raise _unwritable(definition, error) from error
    finally:
        os.close(where)


def _unwritable(definition: PoolDefinition, error: OSError) -> StorageError:
    return StorageError(
        f"pool {definition.name}: {exports.shown(definition)} is mounted but cannot be written "
        f"({os.strerror(error.errno or errno.EIO)}); let this host's root write there, on the server",
        errno=error.errno,
    )


def is_guarded(place: str) -> bool:
    found = mounts.mount_at(place)
    return found is not None and found.source == GUARD


def remove_guard(place: str) -> None:
    if is_guarded(place):
        mounts.unmount_lazily(place)


def within(
    definition: PoolDefinition,
    work: Callable[[], T],
    *,
    seconds: float = GLANCE,
    spoil: Callable[[T], object] | None = None,
) -> T:
    """What `work` on the mounted export returns; `TimeLimitError` when the server does not answer."""
    what = f"pool {definition.name}: {exports.shown(definition)} does not answer: what was asked of it"
    return bounded.call(work, seconds=seconds, what=what, spoil=spoil)


# -- what is mounted --------------------------------------------------------------------------------


def is_own(definition: PoolDefinition, engine: Engine, mount: mounts.Mount) -> bool:
    """Whether a mount is of the pool's export."""
    if not engine.fs_types:  # a directory may be of any type, and its own mount may have gone
        return is_on_guard(mount) or engine.shows(definition, mount)
    return mount.fs_type in engine.fs_types and engine.shows(definition, mount)


def is_on_guard(mount: mounts.Mount) -> bool:
    """Whether a mount lies on a guard, as what was put there by `Made.move`."""
    below = mounts.with_id(mount.parent_id)
    return below is not None and below.source == GUARD


def release(engine: Engine, mount: mounts.Mount) -> bool:
    """Bring back whatever waits for a mount's server for ever; False where nothing does that."""
    if mount.fs_type not in engine.fs_types:  # such as what was bound, which is somebody else's
        return False
    if not mount.fs_type.startswith("fuse."):
        # The kernel's own clients: forced (umount2(2), MNT_FORCE), their requests fail with EIO.
        with suppress(OSError):
            bounded.call(
                lambda: syscalls.unmount(mount.target, syscalls.MNT_FORCE | syscalls.UMOUNT_NOFOLLOW),
                seconds=GLANCE,
                what=f"unmounting {mount.target}",
            )
        return True
    return fusectl.abort(int(mount.device.partition(":")[2]))


def _end_by_themselves(hold: str, seconds: float) -> bool:
    """Whether the programs that had mounted at `hold` end in time."""
    deadline = time.monotonic() + seconds
    while _clients(hold):
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    return True


def end_clients(hold: str) -> None:
    """End the programs that were told to mount at a place that begins so: a stopped one hears nothing."""
    for pid in _clients(hold):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _clients(hold: str) -> list[int]:
    """Root's processes with such a place as a word, on this host alone: others may share its numbers.

    Not mfsmount, which calls itself otherwise: its master keeps the locks of one that was killed.
    """
    found, here = [], os.readlink("/proc/thread-self/ns/net")
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as line:
                named = os.fsencode(hold) in line.read()
            if named and os.stat(f"/proc/{name}").st_uid == 0 and os.readlink(f"/proc/{name}/ns/net") == here:
                found.append(int(name))
    return found


# -- letting go -------------------------------------------------------------------------------------


def unmount(
    definition: PoolDefinition,
    engines: Collection[Engine],
    place: str,
    *,
    force: bool,
    busy: Callable[[], BusyError],
) -> None:
    """Unmount the pool's export at `place`, and the guard below it; none is no error.

    Raises `busy` while it is used. A server that does not answer keeps nobody waiting: what waits for
    it is let go, as it is with `force`.
    """
    prefix = _prefix(definition)
    while (found := mounts.mount_at(place)) is not None:
        engine = next((one for one in engines if is_own(definition, one, found)), None)
        if engine is None:
            break
        answers = _answers(place)
        if not force and not answers and holders.holders(place):
            raise busy()
        if not force and answers:
            try:
                bounded.call(lambda: mounts.unmount(place), seconds=GLANCE, what=f"unmounting {place}")
                # Until its program has taken leave, servers may keep from others what it had.
                _end_by_themselves(prefix, engine.patience)
                continue
            except TimeLimitError:
                answers = False
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise busy() from None
                if error.errno == errno.EINVAL:  # somebody else was quicker
                    continue
                raise
        if not answers:
            # While it is mounted, the number of its connection is no other's.
            release(engine, found)
        with suppress(OSError):
            mounts.unmount_lazily(place)
        if not answers:
            end_clients(prefix)
    remove_guard(place)


def _answers(place: str) -> bool:
    try:
        bounded.call(lambda: os.statvfs(place), seconds=ANSWER, what=f"looking at {place}")
    except (OSError, FspoolError):
        return False
    return True
