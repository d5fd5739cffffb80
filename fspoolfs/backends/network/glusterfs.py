"""Volumes of GlusterFS, mounted by its own client: as many servers as are named, the first that answers.

Two hosts that make one directory at the same moment can leave it in a state that only an administrator
ends (a split brain): one host at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import PurePosixPath
from typing import ClassVar

from fspoolfs.backends.network import exports, programs
from fspoolfs.errors import InvalidError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import one_line
from fspoolfs.progress import Progress
from fspoolfs.system import bounded, command, mounts
from fspoolfs.system.mounts import Mount

_PORT = 24007
#: Options of mount(8) that are arguments of the client.
_ARGUMENTS = {
    "attribute-timeout": "--attribute-timeout",
    "entry-timeout": "--entry-timeout",
    "negative-timeout": "--negative-timeout",
    "direct-io-mode": "--direct-io-mode",
    "use-readdirp": "--use-readdirp",
    "log-level": "--log-level",
    "volfile-server-transport": "--volfile-server-transport",
}
_WORDS = {"ro": "--read-only", "acl": "--acl"}


_MISSING = "subdirectory for mount .* is not found|failed to get the .volume file|volume file from server"
#: The inode that the root of every mount has.
_ROOT = 1
#: How much of a log is read, and told, in bytes.
_LONGEST, _SAID = 1 << 20, 400


class GlusterFs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "glusterfs"
    fs_types: ClassVar[Collection[str]] = ("fuse.glusterfs",)
    options: ClassVar[Collection[str]] = (*_WORDS, *(f"{name}=" for name in _ARGUMENTS))
    single_host: ClassVar[str] = "two hosts that make one directory at once can split a GlusterFS volume"
    fences: ClassVar[bool] = False
    patience: ClassVar[float] = 20.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        if command.find("glusterfs") is None:
            return "glusterfs is not installed; install the package glusterfs-client"
        return ""

    def check(self, definition: PoolDefinition) -> None:
        if not _volume(definition):
            raise InvalidError(
                f"pool {definition.name}: no volume is named; name it, and a directory in it if you like, as "
                "<dir path='/volume/fspool'/>"
            )
        ports = {host.port for host in definition.source.hosts}
        if len(ports) > 1:
            raise InvalidError(
                f"pool {definition.name}: all servers of a GlusterFS are asked at one port; name the same"
            )
        if definition.source.auth is not None:
            raise InvalidError(
                f"pool {definition.name}: GlusterFS knows this host by its address or by the certificates of "
                "glusterd; leave <auth> out"
            )

    def identity(self, definition: PoolDefinition) -> str:
        # Any of a cluster's servers may be named: what two pools share is the volume, as far as is known.
        names = ",".join(sorted({exports.bracketed(one.name) for one in definition.source.hosts}))
        return f"glusterfs:{names}:{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        log = f"/var/log/glusterfs/fspoolfs-{definition.uuid}.log"
        words = ["glusterfs", "--process-name", "fuse", f"--log-file={log}"]
        words += [f"--volfile-server={one.name.strip('[]')}" for one in definition.source.hosts]
        words += [f"--volfile-server-port={definition.source.hosts[0].port or _PORT}"]
        words += [f"--volfile-id=/{_volume(definition)}"]
        if inside := _inside(definition):
            words += [f"--subdir-mount={inside}"]
        for word in exports.options(definition):
            name, _, text = word.partition("=")
            words.append(f"{_ARGUMENTS[name]}={text}" if text else _WORDS[name])
        words += ["--fuse-mountopts=nosuid,nodev", place]
        before = _size(log)
        said = programs.complaint(definition, words, patience=self.patience, progress=progress)
        # The client goes to the background early, and tells its log alone why it does not come up.
        if said is None and self._comes_up(definition, place):
            return
        raise programs.refusal(
            definition,
            said or _reason(log, before),
            missing=_MISSING,
            forbidden="authentication failed|permission denied",
            unreachable="",
            advice="see to auth.allow of the volume",
        )

    def _comes_up(self, definition: PoolDefinition, place: str) -> bool:
        """Whether what is mounted there is the volume, as its servers show it."""
        if mounts.mount_at(place) is None:
            return False
        try:
            found = bounded.call(
                lambda: os.stat(place),
                seconds=self.patience,
                what=f"pool {definition.name}: mounting {exports.shown(definition)}",
            )
        except OSError:  # its client has ended
            return False
        return found.st_ino == _ROOT

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        paths = (f"/{_volume(definition)}", exports.directory(definition))
        hosts = [exports.bracketed(one.name) for one in definition.source.hosts]
        return mount.source in [f"{host}:{path}" for host in hosts for path in paths]

    def answers(self, definition: PoolDefinition) -> bool:
        # Its servers say nothing to whoever does not know the volume's name.
        return False


def _size(log: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(log).st_size
    return 0


def _reason(log: str, before: int) -> str:
    """The last error that a client has written into its log since that had `before` bytes."""
    try:
        with open(log, "rb") as file:
            file.seek(before)
            lines = file.read(_LONGEST).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        lines = []
    errors = [line for line in lines if "] E [" in line]
    telling = [line for line in errors if re.search(_MISSING, line)] or errors
    return one_line(telling[-1].partition("] E [")[2][-_SAID:]) if telling else f"see {log}"


def _volume(definition: PoolDefinition) -> str:
    parts = PurePosixPath(exports.directory(definition)).parts
    return parts[1] if len(parts) > 1 else ""


def _inside(definition: PoolDefinition) -> str:
    """The directory in the volume, absolute there; empty for all of it."""
    parts = PurePosixPath(exports.directory(definition)).parts[2:]
    return "/" + "/".join(parts) if parts else ""
