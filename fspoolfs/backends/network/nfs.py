"""Exports of NFS, mounted by the kernel's own client: versions 3, 4.0, 4.1 and 4.2.

Locks hold between hosts, and options that would keep them to this one are refused. What a server does
not answer waits for ever when it is mounted `hard`, which is the default, and fails after a while when it
is mounted `soft`; both are let go by force.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection
from typing import ClassVar

from fspoolfs.backends.network import exports, programs
from fspoolfs.errors import InvalidError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

_PORT = 2049
_VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
#: One attempt: what has to be repeated is seen to elsewhere. A file system of the pool's own: the kernel
#: takes all exports of one server's disk for one otherwise, and does not tell which mount shows what.
_ALWAYS = "nosuid,nodev,retry=0,nosharecache"

_MISSING = r"No such file or directory|does not exist"
_FORBIDDEN = r"access denied|Operation not permitted|Permission denied"
_UNREACHABLE = (
    r"Connection (refused|timed out|reset)|No route to host|Network is unreachable|"
    r"(Failed|Unable) to (resolve|find)|Host is down|RPC|timed out|portmap|mount system call failed"
)

#: RFC 5531, 7530: a call of procedure 0, which does nothing, with nobody's credentials.
_CALL, _REPLY = 0, 1
_RPC, _NFS, _MODERN, _OLD = 2, 100003, 4, 3
_LAST_FRAGMENT = 1 << 31


class Nfs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "nfs"
    fs_types: ClassVar[Collection[str]] = ("nfs", "nfs4")
    options: ClassVar[Collection[str]] = (
        *("vers=", "nfsvers=", "proto=", "hard", "soft", "softerr", "timeo=", "retrans=", "rsize=", "wsize="),
        *("ro", "noexec", "noatime", "nodiratime", "sec=", "ac", "noac", "actimeo=", "acregmin="),
        *("acregmax=", "acdirmin=", "acdirmax=", "lookupcache=", "nconnect=", "max_connect=", "resvport"),
        *("noresvport", "rdirplus", "nordirplus", "mountport=", "mountproto=", "mountvers=", "clientaddr="),
        *("fsc", "acl", "noacl", "trunkdiscovery", "notrunkdiscovery"),
    )
    single_host: ClassVar[str] = ""
    fences: ClassVar[bool] = False
    patience: ClassVar[float] = 20.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        if command.find("mount.nfs") is None:
            return "mount.nfs is not installed; install the package nfs-common"
        return programs.why_not_in_kernel("nfs")

    def check(self, definition: PoolDefinition) -> None:
        exports.check_single_host(definition, "an NFS export")
        if definition.source.auth is not None:
            raise InvalidError(
                f"pool {definition.name}: NFS knows this host by its address or, with the option sec=krb5p, "
                "by its key table; leave <auth> out"
            )
        exports.check_version(definition, ("vers", "nfsvers"), _VERSIONS, "NFS")

    def identity(self, definition: PoolDefinition) -> str:
        host = exports.bracketed(exports.host(definition))
        return f"nfs:{host}:{_port(definition)}:{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        options = [_ALWAYS, *exports.options(definition)]
        if definition.source.hosts[0].port is not None:
            options.append(f"port={_port(definition)}")
        words = ["mount.nfs", _source(definition), place, "-o", ",".join(options)]
        said = programs.complaint(definition, words, patience=self.patience, progress=progress)
        if said is not None:
            raise programs.refusal(
                definition,
                said,
                missing=_MISSING,
                forbidden=_FORBIDDEN,
                unreachable=_UNREACHABLE,
                advice="see to the line for this host in the server's exports(5)",
            )

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        return mount.source == _source(definition)

    def answers(self, definition: PoolDefinition) -> bool:
        address = (exports.host(definition), _port(definition))
        return any(_answers_to(address, version) for version in (_MODERN, _OLD))


def _port(definition: PoolDefinition) -> int:
    return definition.source.hosts[0].port or _PORT


def _source(definition: PoolDefinition) -> str:
    """As mount.nfs takes it, and as mountinfo shows it afterwards."""
    return f"{exports.bracketed(exports.host(definition))}:{exports.directory(definition)}"


def _answers_to(address: tuple[str, int], version: int, *, seconds: float = 3.0) -> bool:
    """Whether a server takes calls of a version of NFS."""
    number = os.urandom(4)
    call = number + struct.pack(">5I4I", _CALL, _RPC, _NFS, version, 0, 0, 0, 0, 0)
    try:
        with socket.create_connection(address, seconds) as line:
            line.settimeout(seconds)
            line.sendall(struct.pack(">I", _LAST_FRAGMENT | len(call)) + call)
            answer = line.recv(64)
    except OSError:
        return False
    # The record's length, then the number, a reply, accepted, a verifier of no length, done.
    return answer[4:] == number + struct.pack(">5I", _REPLY, 0, 0, 0, 0)
