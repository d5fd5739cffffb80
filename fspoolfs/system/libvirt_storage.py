"""Volumes of libvirt's storage pools, by libvirt's own API; the Python module `libvirt` is optional.

Every call runs in a thread of its own and is waited for no longer than a set time, since libvirt
itself waits for its daemon for ever. After one that was not answered the connection is given up, and the
next call makes another, as it does after libvirt's daemon was restarted. Failures are `FspoolError` in
libvirt's words.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from lxml import etree

from fspoolfs.errors import FspoolError, NotFoundError, StorageError, TimeLimitError, UnsupportedError

T = TypeVar("T")

#: Seconds that libvirt has for an answer. Making a volume writes no more than its metadata.
PATIENCE = 30.0

#: Where libvirt's daemons listen by default: the one for everything, and the one for storage alone.
_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtstoraged-sock")

#: Of libvirt's enumerations (libvirt-storage.h, virterror.h), which the module has as constants, too.
_TYPE_FILE, _TYPE_BLOCK = 0, 1
_RESIZE_SHRINK = 4
_ERR_NO_SUPPORT, _ERR_INVALID_ARG, _ERR_OPERATION_UNSUPPORTED = 3, 8, 84
_ERR_NO_POOL, _ERR_NO_VOLUME = 49, 50
_UNSUPPORTED = frozenset((_ERR_NO_SUPPORT, _ERR_OPERATION_UNSUPPORTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePool:
    """One of libvirt's pools: its type ("dir", "logical"), whether it is active, where its volumes are."""

    name: str
    type: str
    active: bool
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageVolume:
    """One volume, sizes in bytes. `key` is what libvirt tells it from all others by.

    `kind` is "file", "block" or another of libvirt's, `format` that of its content ("raw", "qcow2").
    """

    key: str
    path: str
    kind: str
    format: str
    capacity: int
    allocation: int


def unusable(uri: str) -> str:
    """Why libvirt cannot be asked on this host; empty where it can, as far as that is seen without asking."""
    if importlib.util.find_spec("libvirt") is None:
        return "the Python module libvirt is not installed; install fspoolfs with the extra libvirt"
    parts = urlsplit(uri)
    if parts.netloc or "+" in parts.scheme.removesuffix("+unix"):
        return f"the volumes of {uri} are another host's; libvirt-uri has to name a daemon of this one"
    if parts.scheme == "test":  # libvirt's own simulation
        return ""
    sockets = parse_qs(parts.query).get("socket", list(_SOCKETS))
    if any(Path(socket).is_socket() for socket in sockets):
        return ""
    return f"no daemon of libvirt listens at {' or '.join(sockets)}; start it, or name it by libvirt-uri"


class Storage:
    """The storage pools at one URI (libvirt.org/uri.html). Any thread may use it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None

    def pool(self, name: str) -> StoragePool | None:
        return self._ask(f"look for pool {name}", lambda connection: _pool(connection, name))

    def volume(self, pool: str, name: str) -> StorageVolume | None:
        """`None` where the pool has no such volume, or there is no such pool."""
        return self._ask(f"look for volume {name} of pool {pool}", lambda there: _volume(there, pool, name))

    def create(self, pool: str, name: str, capacity: int, *, sparse: bool) -> None:
        """Make a raw volume; a sparse one takes no more than it must. Raises `StorageError` where it exists.

        Of a logical volume libvirt makes a snapshot that breaks when it is full, if it is to be sparse.
        """
        allocation = 0 if sparse else capacity
        document = (
            f"<volume><name>{escape(name)}</name><capacity>{capacity}</capacity>"
            f"<allocation>{allocation}</allocation>"
            "<target><format type='raw'/><permissions><mode>0600</mode></permissions></target></volume>"
        )
        self._ask(
            f"make volume {name} in pool {pool}",
            lambda there: there.storagePoolLookupByName(pool).createXML(document, 0) and None,
        )

    def resize(self, pool: str, name: str, capacity: int, *, shrink: bool = False) -> None:
        """Raises `UnsupportedError` where volumes of this kind keep their size."""
        flags = _RESIZE_SHRINK if shrink else 0
        self._ask(
            f"resize volume {name} of pool {pool}",
            lambda there: _lookup(there, pool, name).resize(capacity, flags) and None,
        )

    def delete(self, pool: str, name: str) -> None:
        self._ask(
            f"delete volume {name} of pool {pool}",
            lambda there: _lookup(there, pool, name).delete(0) and None,
        )

    def _ask(self, what: str, question: Callable[[Any], T]) -> T:
        """The answer to `question`, which gets the connection.

        Raises `TimeLimitError`, and what `_refusal` makes of libvirt's errors.
        """
        reason = unusable(self._uri)
        if reason:
            raise UnsupportedError(f"libvirt: {what}: {reason}")
        answer: list[Callable[[], T]] = []

        def ask() -> None:
            try:
                found = question(self._connected())
            except BaseException as error:
                raised = error

                def fail() -> T:
                    raise raised

                answer.append(fail)
            else:
                answer.append(lambda: found)

        thread = threading.Thread(target=ask, name="libvirt", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if not answer:
            self._give_up()
            raise TimeLimitError(
                f"libvirt: {what}: its daemon at {self._uri} has not answered within {PATIENCE:g} seconds"
            )
        try:
            return answer[0]()
        except Exception as error:
            refusal = _refusal(what, error)
            if refusal is None:
                raise
            raise refusal from error

    def _connected(self) -> Any:
        with self._lock:
            known = self._connection
        if known is not None and known.isAlive():
            return known
        made = _open(self._uri)
        with self._lock:
            self._connection = made
        return made

    def _give_up(self) -> None:
        with self._lock:
            self._connection = None


def _open(uri: str) -> Any:
    libvirt = importlib.import_module("libvirt")
    # It would write every error to stderr as well.
    libvirt.registerErrorHandler(lambda context, error: None, None)
    return libvirt.open(uri)


def _refusal(what: str, error: Exception) -> FspoolError | None:
    """libvirt's error as ours; `None` for any other."""
    libvirt = importlib.import_module("libvirt")
    if not isinstance(error, libvirt.libvirtError):
        return None
    code, said = error.get_error_code(), error.get_error_message()
    if code in _UNSUPPORTED:
        return UnsupportedError(f"libvirt: {what}: {said}")
    if code in (_ERR_NO_POOL, _ERR_NO_VOLUME):
        return NotFoundError(f"libvirt: {what}: {said}")
    full = "No space left on device" in (said or "")
    number = errno.ENOSPC if full else errno.EINVAL if code == _ERR_INVALID_ARG else errno.EIO
    return StorageError(f"libvirt: {what}: {said}", errno=number)


def _absent(error: Exception, *codes: int) -> bool:
    code = getattr(error, "get_error_code", None)
    return code is not None and code() in codes


def _pool(connection: Any, name: str) -> StoragePool | None:
    try:
        pool = connection.storagePoolLookupByName(name)
    except Exception as error:
        if _absent(error, _ERR_NO_POOL):
            return None
        raise
    document = etree.fromstring(pool.XMLDesc(0))
    return StoragePool(
        name=name,
        type=document.get("type", ""),
        active=bool(pool.isActive()),
        target=document.findtext("target/path", ""),
    )


def _lookup(connection: Any, pool: str, name: str) -> Any:
    """libvirt's object of a volume; one that others have made since is looked for anew."""
    there = connection.storagePoolLookupByName(pool)
    try:
        return there.storageVolLookupByName(name)
    except Exception as error:
        if not _absent(error, _ERR_NO_VOLUME):
            raise
    there.refresh(0)
    return there.storageVolLookupByName(name)


def _volume(connection: Any, pool: str, name: str) -> StorageVolume | None:
    try:
        volume = _lookup(connection, pool, name)
    except Exception as error:
        if _absent(error, _ERR_NO_VOLUME, _ERR_NO_POOL):
            return None
        raise
    try:
        kind, capacity, allocation = volume.info()
    except Exception as error:
        if not _absent(error, _ERR_NO_VOLUME):
            raise
        # Others have removed its file; while libvirt believes that it is there it makes no other.
        connection.storagePoolLookupByName(pool).refresh(0)
        return None
    format = etree.fromstring(volume.XMLDesc(0)).find("target/format")
    return StorageVolume(
        key=volume.key(),
        path=volume.path(),
        kind={_TYPE_FILE: "file", _TYPE_BLOCK: "block"}.get(kind, "other"),
        format=format.get("type", "raw") if format is not None else "raw",
        capacity=capacity,
        allocation=allocation,
    )
