"""Asking the master of a mounted MooseFS: limits and counters of directories, lazy copies.

As its tools do it: in the root of every mount there is a file that is never listed and says where the
mount's own program takes requests (.masterinfo). Asked here by inode and not by path, so that nobody can
plant a link on the way; and many directories in one connection, which the tools start a program for each.
Requests, and their answers, have had one form since MooseFS 3.0.9; numbers are big-endian.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from fspoolfs.errors import StorageError, TimeLimitError

# MFSCommunication.h
_REGISTER, _REGISTERED = 400, 401
_SNAPSHOT, _SNAPSHOT_DONE = 468, 469
_QUOTA, _QUOTA_ANSWER = 476, 477
_GET_VERSION, _VERSION = 10, 11
_BLOB: Final = b"DjI1GAQDULI5d2YjA26ypc3ovkhjvhciTQVx3CS4nYgtBoUcsljiVpsErJENHaw0"
_AS_TOOL: Final = 4
_TOOL_VERSION: Final = (3, 0, 117)
_KEEP_HARD_LINKS: Final = 8

_HEADER = struct.Struct(">II")
_INFO = struct.Struct(">IHI")
#: inodes, length, size and realsize.
_NUMBERS = struct.Struct(">IQQQ")
#: The number of a request, which its answer repeats.
_MESSAGE = struct.Struct(">I")

#: .masterinfo, and what makes sure that it is no file of somebody's.
_MASTERINFO: Final = ".masterinfo"
_MASTERINFO_INODE: Final = 0x7FFFFFFF
_MASTERINFO_SIZES: Final = (10, 14)
_ROOT_INODE: Final = 1
#: How many directories above one that was opened its mount's root is looked for.
_DEPTH: Final = 256
#: The longest answer that is believed, in bytes.
_LONGEST: Final = 1 << 16

#: Seconds that one request may take.
PATIENCE: Final = 10.0
#: Seconds that the copy of a large tree may take: the master looks at each of its files.
COPYING: Final = 120.0
#: How many requests are sent before their answers are read; all of these fit into a socket's buffer.
_AHEAD: Final = 64

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

#: MFS_ERROR_* that mean the same as a number of errno(3).
_ERRORS: Final = {
    1: errno.EPERM,
    2: errno.ENOTDIR,
    3: errno.ENOENT,
    4: errno.EACCES,
    5: errno.EEXIST,
    6: errno.EINVAL,
    7: errno.ENOTEMPTY,
    21: errno.ENOSPC,
    33: errno.EROFS,
    34: errno.EDQUOT,
    48: errno.ENOENT,
    49: errno.EPERM,
}


class Limit(IntFlag):
    """Which limits a directory has: of what is in it, all levels, itself left out."""

    SOFT_INODES = 0x01
    SOFT_LENGTH = 0x02
    SOFT_SIZE = 0x04
    SOFT_REALSIZE = 0x08
    INODES = 0x10
    LENGTH = 0x20
    SIZE = 0x40
    REALSIZE = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a directory holds and may hold. `length` is the sum of its files' lengths, in bytes."""

    limits: Limit
    max_inodes: int
    max_length: int
    inodes: int
    length: int


def where(directory: int) -> tuple[str, int, int] | None:
    """Address, port and session of the mount that the open `directory` lies on; `None` on anything else."""
    device = os.fstat(directory).st_dev
    here = os.open(".", _DIRECTORY, dir_fd=directory)
    try:
        for _ in range(_DEPTH):
            found = _read_masterinfo(here)
            if found is not None or os.fstat(here).st_ino == _ROOT_INODE:
                return found
            above = os.open("..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = above
            if os.fstat(here).st_dev != device:
                break
        return None
    finally:
        os.close(here)


def _read_masterinfo(directory: int) -> tuple[str, int, int] | None:
    try:
        info = os.stat(_MASTERINFO, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if info.st_ino != _MASTERINFO_INODE or info.st_size not in _MASTERINFO_SIZES or info.st_uid:
        return None
    fd = os.open(_MASTERINFO, _FILE, dir_fd=directory)
    try:
        address, port, session = _INFO.unpack_from(os.read(fd, max(_MASTERINFO_SIZES)))
    finally:
        os.close(fd)
    return socket.inet_ntoa(struct.pack(">I", address)), port, session


@contextmanager
def connected(directory: int, *, seconds: float = PATIENCE) -> Iterator[Master]:
    """A connection to the master of the MooseFS that the open `directory` lies on.

    Raises `OSError` (ENOTTY) where it lies on none, `TimeLimitError`, and `StorageError` where the
    mount's program cannot be reached.
    """
    found = where(directory)
    if found is None:
        raise OSError(errno.ENOTTY, "not on a MooseFS")
    address, port, session = found
    with (
        _told_apart(f"{address}:{port}", seconds),
        socket.create_connection((address, port), seconds) as line,
    ):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        master = Master(line)
        master.register(session)
        yield master


@contextmanager
def _told_apart(address: str, seconds: float) -> Iterator[None]:
    """What may go wrong with a connection, as errors of the domain."""
    try:
        yield
    except TimeoutError as error:
        raise TimeLimitError(
            f"the master of the MooseFS did not answer within {seconds:g} seconds"
        ) from error
    except ConnectionError as error:
        raise StorageError(
            f"mfsmount does not answer at {address} ({os.strerror(error.errno or errno.EPIPE)}); the daemon "
            "has to run in the network namespace in which the file system was mounted",
            errno=errno.EIO,
        ) from error


class Master:
    """An open connection. What is asked about are directories, by inode."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def register(self, session: int) -> None:
        payload = _BLOB + struct.pack(">BIHBB", _AS_TOOL, session, *_TOOL_VERSION)
        self._send(_REGISTER, payload)
        answer = self._receive(_REGISTERED)
        _check(answer[-1])

    def quota(self, inode: int) -> Quota:
        """What a directory holds and may hold."""
        return _quota(self._ask(_QUOTA, struct.pack(">IB", inode, 0), _QUOTA_ANSWER))

    def quotas(self, inodes: Sequence[int]) -> dict[int, Quota]:
        """The same of many; what is no directory, or is gone, is left out."""
        found: dict[int, Quota] = {}
        for first in range(0, len(inodes), _AHEAD):
            some = inodes[first : first + _AHEAD]
            for inode in some:
                self._send(_QUOTA, struct.pack(">IIB", 0, inode, 0))
            for inode in some:
                answer = self._receive(_QUOTA_ANSWER)[_MESSAGE.size :]
                if len(answer) > 1:
                    found[inode] = _quota(answer)
        return found

    def limit(self, inode: int, *, length: int | None = None, inodes: int | None = None) -> None:
        """Set hard limits of a directory; `None` leaves one as it is."""
        limits = (Limit.LENGTH if length is not None else Limit(0)) | (
            Limit.INODES if inodes is not None else Limit(0)
        )
        payload = (
            struct.pack(">IBI", inode, limits, 0)
            + _NUMBERS.pack(0, 0, 0, 0)
            + _NUMBERS.pack(inodes or 0, length or 0, 0, 0)
        )
        self._ask(_QUOTA, payload, _QUOTA_ANSWER)

    def lift(self, inode: int, limits: Limit) -> None:
        """Take limits of a directory away; those that it does not have are no error."""
        self._ask(_QUOTA, struct.pack(">IB", inode, limits), _QUOTA_ANSWER)

    def copy(self, inode: int, parent: int, name: bytes) -> None:
        """Make the entry `name` of directory `parent` a lazy copy of all that `inode` is, in one step.

        It merges with a directory that is there already.
        """
        self._line.settimeout(COPYING)
        self._snapshot(inode, parent, name, _KEEP_HARD_LINKS)

    def _snapshot(self, inode: int, parent: int, name: bytes, mode: int) -> None:
        payload = struct.pack(">IIB", inode, parent, len(name)) + name
        # As root, who is in no other group; a umask is only for copies as cp(1) makes them.
        payload += struct.pack(">IIIBH", 0, 1, 0, mode, 0)
        self._ask(_SNAPSHOT, payload, _SNAPSHOT_DONE)

    def _ask(self, command: int, payload: bytes, wanted: int) -> bytes:
        """The answer to a request. Raises `OSError` when it is a refusal."""
        self._send(command, _MESSAGE.pack(0) + payload)
        answer = self._receive(wanted)[_MESSAGE.size :]
        if len(answer) == 1:
            _check(answer[0])
        return answer

    def _send(self, command: int, payload: bytes) -> None:
        self._line.sendall(_HEADER.pack(command, len(payload)) + payload)

    def _receive(self, wanted: int) -> bytes:
        command, length = _HEADER.unpack(_exactly(self._line, _HEADER.size))
        if command != wanted or not 0 < length <= _LONGEST:
            raise StorageError(f"the master of the MooseFS gave answer {command} where {wanted} was due")
        return _exactly(self._line, length)


def version_at(host: str, port: int, *, seconds: float = 3.0) -> str:
    """The version that a server of MooseFS tells to whoever asks; empty where there is none."""
    try:
        with socket.create_connection((host, port), seconds) as line:
            line.settimeout(seconds)
            line.sendall(_HEADER.pack(_GET_VERSION, 0))
            command, length = _HEADER.unpack(_exactly(line, _HEADER.size))
            if command != _VERSION or not 4 < length < 256:
                return ""
            return _exactly(line, length)[4:].decode("ascii", "replace")
    except OSError:
        return ""


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        data += piece
    return data


def _check(status: int) -> None:
    if status:
        number = _ERRORS.get(status, errno.EIO)
        raise OSError(number, f"{os.strerror(number)} (MooseFS: status {status})")


def _quota(answer: bytes) -> Quota:
    # A grace period follows the first byte since 3.0.9.
    at = 5 if len(answer) == 1 + 4 + 3 * _NUMBERS.size else 1
    if len(answer) != at + 3 * _NUMBERS.size:
        raise StorageError(f"the master of the MooseFS told a quota in {len(answer)} bytes")
    hard = _NUMBERS.unpack_from(answer, at + _NUMBERS.size)
    used = _NUMBERS.unpack_from(answer, at + 2 * _NUMBERS.size)
    return Quota(
        limits=Limit(answer[0]), max_inodes=hard[0], max_length=hard[1], inodes=used[0], length=used[1]
    )
