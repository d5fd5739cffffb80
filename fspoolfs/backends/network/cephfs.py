"""Directories of CephFS: by the kernel's own client where it has one, else by ceph-fuse.

The servers know the clients they have lost (they evict and blocklist them), locks hold between hosts,
and credentials may be confined to the pool's directory. The secret goes to the client in a file that
only root reads and that is there for as long as mounting takes; nothing else of Ceph's configuration on
this host is used, so that a pool is mounted alike on every one.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from fspoolfs.backends.network import exports
from fspoolfs.errors import (
    AccessError,
    FspoolError,
    InvalidError,
    NotFoundError,
    StorageError,
    TimeLimitError,
)
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import one_line
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

#: Where monitors listen for the second and the first version of the protocol.
_PORTS = (3300, 6789)
#: Where a pool's private configuration is while it is being mounted.
_PRIVATE = "/run/fspoolfs/ceph"
#: Seconds that a client may take that has reached a monitor: metadata servers wait for one that they have
#: lost, and that had what is asked for, for 30 at least.
_CONNECT = 40
_NAME = "admin"
_FUSE, _KERNEL = "fuse.ceph-fuse", "ceph"
_WAYS = ("fuse", "kernel")
#: What a monitor says first at the port of the second protocol; at that of the first it is "ceph v027".
_SECOND_PROTOCOL = b"ceph v2\n"
#: Options that are the mount's own, for both clients alike.
_PLAIN = ("ro", "noexec", "noatime")
#: Whom a person may call themselves in a keyring, and a file system: what needs no quotes anywhere.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_FAILED = re.compile(r"mount failed with \((\d+)\)|mount error (\d+)")
#: What the monitors' client says of a wrong name or key, before it gives up.
_NOT_KNOWN = "handle_auth_bad_method"
#: What mount.ceph says of four different things, which only the kernel's log tells apart.
_UNTOLD = "no mds server is up or the cluster is laggy"
#: The most of a client's complaint that goes into an error, in characters.
_SAID = 400
_SECRET_LIMIT = 64 << 10

#: pagecache: two hosts would see old data of each other's. syncfs: done at the place where it was mounted at
#: first, which is gone by then; who takes a snapshot does it. A client that was evicted has to be mounted
#: anew, by whoever knows that; it must not come back by itself and write what it still has.
_CONF = """\
[global]
mon host = {monitors}
keyring = {keyring}
log file =
log to stderr = false
err to stderr = true
admin socket =
pid file =
crash dir =
[client]
client mount timeout = {timeout}
client quota = true
client reconnect stale = false
client snapdir = .snap
fuse disable pagecache = true
fuse multithreaded = true
fuse syncfs on mksnap = false
"""


class Cephfs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "cephfs"
    fs_types: ClassVar[Collection[str]] = (_FUSE, _KERNEL)
    #: `fs=` names the file system of a cluster that has several, `client=` one of the two clients.
    options: ClassVar[Collection[str]] = (*_PLAIN, "fs=", "client=")
    single_host: ClassVar[str] = ""
    fences: ClassVar[bool] = True
    patience: ClassVar[float] = _CONNECT + 10.0
    #: statfs(2) is answered by monitors; recursive statistics are in no cache.
    told_by_server: ClassVar[str] = "ceph.dir.rctime"

    def unusable(self) -> str:
        if _why_no_kernel() and command.find("ceph-fuse") is None:
            return (
                f"there is no client: {_why_no_kernel()}, and ceph-fuse is not installed; install the "
                "package ceph-fuse"
            )
        return ""

    def check(self, definition: PoolDefinition) -> None:
        _way(definition)
        for what, text in (("user", _user(definition)), ("file system", _option(definition, "fs"))):
            if text and not _WORD.fullmatch(text):
                raise InvalidError(
                    f"pool {definition.name}: {text!r} is not the name of a {what} of Ceph; write it without "
                    "blanks and signs"
                )
        path = exports.directory(definition)
        if any(sign in path for sign in ",:\n"):
            raise InvalidError(
                f"pool {definition.name}: clients of CephFS cannot be given {path!r}, a directory with "
                "commas or colons in its path; name another one"
            )

    def identity(self, definition: PoolDefinition) -> str:
        hosts = ",".join(sorted(_monitor(host.name, host.port) for host in definition.source.hosts))
        file_system = _option(definition, "fs")
        return f"cephfs:{hosts}:{file_system and file_system + '='}{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        if not self.answers(definition):
            raise exports.unreachable(definition, "no monitor answers")
        with _private_files(definition) as (conf, secret):
            words = (
                _fuse_command(definition, conf, place)
                if _way(definition) == "fuse"
                else _kernel_command(definition, conf, secret, place)
            )
            try:
                ended = command.run(words, timeout=self.patience, progress=progress, allowed=range(1, 256))
            except TimeLimitError as error:
                raise _unreachable(definition) from error
            if ended.status:
                raise _refusal(definition, ended.stderr)

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        return mount.source == _source(definition)

    def answers(self, definition: PoolDefinition) -> bool:
        return any(
            exports.banner(host.name.strip("[]"), port).startswith(b"ceph v")
            for host in definition.source.hosts
            for port in ((host.port,) if host.port is not None else _PORTS)
        )


class Ceph(Cephfs):
    """The same by the name that the kernel has for it."""

    name: ClassVar[str] = "ceph"


def _option(definition: PoolDefinition, name: str) -> str:
    """The value of one of the options; empty where it is not said."""
    values = [word.partition("=")[2] for word in exports.options(definition) if word.startswith(f"{name}=")]
    return values[-1] if values else ""


def _user(definition: PoolDefinition) -> str:
    """The client's name in Ceph, "h1" for client.h1."""
    return (exports.username(definition) or _NAME).removeprefix("client.")


def _way(definition: PoolDefinition) -> str:
    """Which client is to be used. Raises `InvalidError`, `FspoolError` for one that this host lacks."""
    wanted = _option(definition, "client")
    if wanted and wanted not in _WAYS:
        raise InvalidError(
            f"pool {definition.name}: there is no client {wanted!r} of CephFS; write client=fuse or "
            "client=kernel, or leave the option out"
        )
    no_kernel = _why_no_kernel()
    if wanted == "kernel" and no_kernel:
        raise FspoolError(
            f"pool {definition.name}: the kernel's client of CephFS was asked for, but {no_kernel}; leave "
            "client=kernel out to use ceph-fuse"
        )
    return wanted or ("fuse" if no_kernel else "kernel")


def _why_no_kernel() -> str:
    """Why the kernel cannot mount CephFS here; empty where it can."""
    with open("/proc/filesystems", "rb") as known:
        loaded = b"\tceph\n" in known.read()
    module = f"/lib/modules/{os.uname().release}/kernel/fs/ceph"
    if not loaded and not os.path.isdir(module):
        return "the kernel has no client of CephFS"
    if command.find("mount.ceph") is None:
        return "mount.ceph is not installed (package ceph-common)"
    return ""


def _monitor(name: str, port: int | None) -> str:
    return exports.bracketed(name) + (f":{port}" if port is not None else "")


def _monitors(definition: PoolDefinition) -> str:
    return ",".join(_monitor(host.name, host.port) for host in definition.source.hosts)


def _source(definition: PoolDefinition) -> str:
    """As mountinfo shows it, by both clients: "10.0.0.1,10.0.0.2:/pools/tank"."""
    return f"{_monitors(definition)}:{exports.directory(definition)}"


def _fuse_command(definition: PoolDefinition, conf: str, place: str) -> list[str]:
    plain = [word for word in exports.options(definition) if word in _PLAIN]
    # The commas between monitors are no ends of options.
    source = _source(definition).replace(",", "\\,")
    options = ["nosuid", "nodev", f"fsname={source}", "subtype=ceph-fuse", *plain]
    words = ["ceph-fuse", "--conf", conf, "--id", _user(definition)]
    words += ["--client_mountpoint", exports.directory(definition)]
    if file_system := _option(definition, "fs"):
        words += ["--client_fs", file_system]
    return [*words, "-o", ",".join(options), place]


def _kernel_command(definition: PoolDefinition, conf: str, secret: str, place: str) -> list[str]:
    plain = [word for word in exports.options(definition) if word in _PLAIN]
    options = [
        "nosuid",
        "nodev",
        f"name={_user(definition)}",
        f"conf={conf}",
        f"mount_timeout={_CONNECT}",
        *plain,
    ]
    if secret:
        options.append(f"secretfile={secret}")
    if file_system := _option(definition, "fs"):
        options.append(f"fs={file_system}")
    if _speaks_second_protocol(definition):
        options.append("ms_mode=prefer-crc")
    return ["mount", "-t", "ceph", "-o", ",".join(options), _source(definition), place]


def _speaks_second_protocol(definition: PoolDefinition) -> bool:
    """Whether monitors speak it where they are asked: the kernel's client has to be told.

    Without a port it asks for the first protocol at the port that this has.
    """
    hosts = definition.source.hosts
    return all(host.port is not None for host in hosts) and any(
        exports.banner(host.name.strip("[]"), host.port).startswith(_SECOND_PROTOCOL)
        for host in hosts
        if host.port is not None
    )


@contextmanager
def _private_files(definition: PoolDefinition) -> Iterator[tuple[str, str]]:
    """The paths of a configuration and of a file with the bare secret, "" without one; gone afterwards."""
    place = f"{_PRIVATE}/{definition.uuid}"
    os.makedirs(_PRIVATE, mode=0o700, exist_ok=True)
    names = ("ceph.conf", "keyring", "secret")
    _clear(place, names)  # of one that was killed meanwhile
    os.mkdir(place, mode=0o700)
    try:
        key = _key(definition)
        if key:
            _put(f"{place}/keyring", f"[client.{_user(definition)}]\nkey = {key}\n")
            _put(f"{place}/secret", key)
        keyring = f"{place}/keyring" if key else ""
        conf = _CONF.format(monitors=_monitors(definition), keyring=keyring, timeout=_CONNECT)
        if not key:
            # A cluster that asks nobody who they are.
            conf += "auth client required = none\n"
        _put(f"{place}/ceph.conf", conf)
        yield f"{place}/ceph.conf", f"{place}/secret" if key else ""
    finally:
        _clear(place, names)


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _clear(place: str, names: Collection[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(f"{place}/{name}")
    with suppress(FileNotFoundError):
        os.rmdir(place)


def _key(definition: PoolDefinition) -> str:
    """The key in the file that <auth> names: bare, or as a keyring holds it; "" where none is named."""
    path = exports.secret(definition)
    if path is None:
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(_SECRET_LIMIT)
    section = f"client.{_user(definition)}"
    here = ""
    keys: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if line.strip().startswith("["):
            here = line.strip().strip("[]")
        elif equals and name.strip() == "key":
            keys[here] = value.strip()
    found = keys.get(section, "") if keys else text.strip()
    if not _KEY.fullmatch(found):
        raise InvalidError(
            f"pool {definition.name}: {path}, which <auth> names, holds no key of {section}; put there what "
            f"`ceph auth get-key {section}` prints"
        )
    return found


def _unreachable(definition: PoolDefinition) -> FspoolError:
    return exports.unreachable(
        definition, f"a monitor answers, but no metadata server did within {_CONNECT} seconds"
    )


def _refusal(definition: PoolDefinition, stderr: bytes) -> FspoolError:
    said = stderr.decode("utf-8", "replace")
    what, user = exports.shown(definition), f"client.{_user(definition)}"
    allow = f"`ceph fs authorize FILESYSTEM {user} {exports.directory(definition)} rwps`"
    found = _FAILED.search(said)
    number = int(found[1] or found[2]) if found else 0
    if _UNTOLD in said:
        return exports.unreachable(
            definition,
            f"the kernel's client was not let in as {user} with the secret in <auth>, or the cluster has no "
            "such file system, or no metadata server of it is up; the kernel's log (dmesg) tells which",
        )
    if number == errno.ETIMEDOUT or (not number and _NOT_KNOWN not in said):
        return _unreachable(definition)
    if number == errno.ENOENT:
        return NotFoundError(
            f"pool {definition.name}: {what} is not there; make the directory on a host that may, and see "
            "that the file system is the right one (<options>fs=NAME</options>)"
        )
    if number in (0, errno.EPERM, errno.EACCES):
        return AccessError(
            f"pool {definition.name}: Ceph does not let {user} into {what}; look at the name and the secret "
            f"in <auth>, and allow it with {allow}"
        )
    lines = [line.strip() for line in said.splitlines() if "fail" in line or "error" in line]
    return StorageError(
        f"pool {definition.name}: {what} cannot be mounted: {one_line('; '.join(lines)[:_SAID])}"
    )
