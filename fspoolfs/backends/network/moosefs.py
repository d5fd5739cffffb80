"""Directories of a MooseFS, mounted by mfsmount: many hosts at once, with locks that hold between them.

The master is the only server that is named; it tells where the others are. A host that the master has
lost keeps its locks for a long time, and nothing keeps it from writing once it is back.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import quote

from fspoolfs.backends import place as places
from fspoolfs.backends.network import exports, programs
from fspoolfs.errors import FspoolError, InvalidError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import command, moosefs
from fspoolfs.system.mounts import Mount

_PORT = 9421
#: What mfsmount takes for a name or an address; it knows none of IPv6.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*\Z")
#: What is always so. The machine's own mfsmount.cfg is left out, since what is mounted is to be what the
#: definition says.
_ALWAYS = "allow_other,nosuid,nodev,subtype=mfs"
#: Lines that mfsmount prints in any case.
_CHATTER = r"(can't set )?open file limit |mfsmaster accepted connection |see: mfsmount "
#: The longest password that is read, in bytes; mfsmount reads no longer one.
_LONGEST = 1023

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class MooseFs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "moosefs"
    fs_types: ClassVar[Collection[str]] = ("fuse.mfs",)
    #: Nothing that would keep names for long which another host has changed, or locks to this host.
    options: ClassVar[Collection[str]] = (
        *("ro", "noexec", "noatime", "mfsbind=", "mfspreflabels=", "mfsioretries=", "mfstimeout="),
        *("mfserroronlostchunk", "mfserroronnospace", "mfslogretry=", "mfswritecachesize="),
        *("mfsreadaheadsize=", "mfsreadaheadleng=", "mfsreadaheadtrigger=", "mfsrlimitnofile=", "mfsnice="),
        *("mfsmemlock", "mfslimitarenas=", "mfsallowoomkiller", "mfsmkdircopysgid=", "mfssugidclearmode="),
    )
    single_host: ClassVar[str] = ""
    fences: ClassVar[bool] = False
    patience: ClassVar[float] = 20.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        if command.find("mfsmount") is None:
            return "mfsmount is not installed; install the package moosefs-client"
        return ""

    def check(self, definition: PoolDefinition) -> None:
        hosts = definition.source.hosts
        if len(hosts) != 1:
            raise InvalidError(
                f"pool {definition.name}: a MooseFS is named by its master, and {len(hosts)} hosts are "
                "named; name the master alone"
            )
        if not _HOST.match(hosts[0].name):
            raise InvalidError(
                f"pool {definition.name}: mfsmount takes no {hosts[0].name!r} for the master, but a name or "
                "an address of IPv4"
            )
        auth = definition.source.auth
        if auth is not None and (auth.username or auth.hosts or auth.config):
            raise InvalidError(
                f"pool {definition.name}: MooseFS asks for a password alone; leave all but <secret> out "
                "of <auth>"
            )

    def identity(self, definition: PoolDefinition) -> str:
        host, port = _master(definition)
        return f"moosefs:{host}:{port}:{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        host, port = _master(definition)
        what = f"{host}:{port}:{exports.directory(definition)}"
        with _configuration(definition) as config:
            options = [
                *(_ALWAYS, f"mfscfgfile=/proc/self/fd/{config}", f"fsname={_source(definition)}"),
                *exports.options(definition),
            ]
            # In this order: what names the master is taken for it only right after the options.
            words = ["mfsmount", "-o", ",".join(options), what, "-n", place]
            said = programs.complaint(
                definition,
                words,
                patience=self.patience,
                progress=progress,
                inherited=[config],
                chatter=_CHATTER,
            )
        if said is not None:
            raise _refusal(definition, said)

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        return mount.source == _source(definition)

    def answers(self, definition: PoolDefinition) -> bool:
        return bool(moosefs.version_at(*_master(definition)))


@contextmanager
def _configuration(definition: PoolDefinition) -> Iterator[int]:
    """A file in memory for mfsmount: what it has to know of the password, if there is one.

    Not by the file that holds it: mfsmount 3 leaves out the last letter of what it reads there.
    """
    fd = os.memfd_create("mfsmount", os.MFD_CLOEXEC)
    try:
        secret = exports.secret(definition)
        if secret is not None:
            os.write(fd, f"mfsmd5pass={_digest(definition, secret)}\n".encode("ascii"))
            os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _digest(definition: PoolDefinition, path: str) -> str:
    """What the master is told instead of the password; whoever has it can come in."""
    fd = os.open(path, _FILE)
    try:
        line = os.read(fd, _LONGEST + 1).splitlines()[:1]
    finally:
        os.close(fd)
    if not line or not line[0]:
        raise InvalidError(
            f"pool {definition.name}: {path}, which <auth> names, holds no password in its first line"
        )
    return hashlib.md5(line[0], usedforsecurity=False).hexdigest()


def _master(definition: PoolDefinition) -> tuple[str, int]:
    return exports.host(definition), definition.source.hosts[0].port or _PORT


def _source(definition: PoolDefinition) -> str:
    """As mountinfo shows it: mfsmount is told, since its own word for it leaves the directory out."""
    host, port = _master(definition)
    return f"mfs#{host}:{port}{quote(exports.directory(definition))}"


def _refusal(definition: PoolDefinition, said: str) -> FspoolError:
    if "register error: Not a directory" in said:
        return places.not_a_directory(definition, exports.shown(definition))
    return programs.refusal(
        definition,
        said,
        missing="register error: No such file",
        forbidden="register error: (Permission denied|Password|Incorrect password|Operation not)",
        unreachable="mfsmaster|resolve",
        advice="see to the line for this host in the mfsexports.cfg of the master, and to the password in "
        "the file that <auth> names",
    )
