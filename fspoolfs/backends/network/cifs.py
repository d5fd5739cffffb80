"""Shares of SMB (Windows, Samba), mounted by the kernel's own client.

What items' owners and modes are there is for the server and the options to say. Locks and renames are
not those of POSIX: one host at a time.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from typing import ClassVar

from fspoolfs.backends.network import exports, programs
from fspoolfs.errors import InvalidError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import quote
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

_PORT = 445
#: As in the option `vers`.
_VERSIONS = ("2.1", "3", "3.0", "3.02", "3.1.1", "3.11")
_MISSING = r"error\(2\)|No such file or directory"
_FORBIDDEN = r"error\((1|13|126)\)|Permission denied|Operation not permitted|Required key"
_UNREACHABLE = r"error\((101|110|111|112|113|115)\)|could not resolve|Unable to find"

#: MS-SMB2 2.2.3: the first word that both sides say to each other.
_MAGIC = b"\xfeSMB"


class Cifs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "cifs"
    fs_types: ClassVar[Collection[str]] = ("cifs", "smb3")
    options: ClassVar[Collection[str]] = (
        *("vers=", "sec=", "seal", "ro", "noexec", "noatime", "uid=", "gid=", "forceuid", "forcegid"),
        *("noforceuid", "noforcegid", "file_mode=", "dir_mode=", "noperm", "cifsacl", "modefromsid"),
        *("idsfromsid", "posix", "unix", "nounix", "mfsymlinks", "serverino", "noserverino", "iocharset="),
        *("mapposix", "mapchars", "nocase", "cache=", "actimeo=", "hard", "soft", "echo_interval="),
        *("rsize=", "wsize=", "domain=", "multichannel", "max_channels=", "resilienthandles"),
    )
    single_host: ClassVar[str] = "renames and locks of SMB are not those of POSIX between hosts"
    fences: ClassVar[bool] = False
    patience: ClassVar[float] = 20.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        if command.find("mount.cifs") is None:
            return "mount.cifs is not installed; install the package cifs-utils"
        return programs.why_not_in_kernel("cifs")

    def check(self, definition: PoolDefinition) -> None:
        exports.check_single_host(definition, "a share")
        if exports.directory(definition).strip("/") == "":
            raise InvalidError(
                f"pool {definition.name}: no share is named; name it, and a directory in it, as "
                "<dir path='/share/fspool'/>"
            )
        auth = definition.source.auth
        if auth is not None and (auth.hosts or auth.config):
            raise InvalidError(
                f"pool {definition.name}: SMB takes a username and a file of credentials; leave the rest "
                "out of <auth>"
            )
        for text in (
            exports.directory(definition),
            *(filter(None, (auth.username, auth.secret)) if auth else ()),
        ):
            if "," in text:
                raise InvalidError(
                    f"pool {definition.name}: mount.cifs takes no comma in {quote(text)}; use another name"
                )
        exports.check_version(definition, ("vers",), _VERSIONS, "SMB")

    def identity(self, definition: PoolDefinition) -> str:
        host = exports.bracketed(exports.host(definition))
        return f"cifs:{host}:{_port(definition)}:{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        options = ["nosuid", "nodev", f"port={_port(definition)}", *exports.options(definition)]
        # The file is read by mount.cifs itself: lines "username=", "password=" and "domain=".
        if (secret := exports.secret(definition)) is not None:
            options.append(f"credentials={secret}")
        else:
            options.append("guest")
        if (username := exports.username(definition)) is not None:
            options.append(f"username={username}")
        words = ["mount.cifs", _source(definition), place, "-o", ",".join(options)]
        said = programs.complaint(definition, words, patience=self.patience, progress=progress)
        if said is not None:
            raise programs.refusal(
                definition,
                said,
                missing=_MISSING,
                forbidden=_FORBIDDEN,
                unreachable=_UNREACHABLE,
                advice="see to the share on the server, and to the file of credentials that <auth> names",
            )

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        return mount.source == _source(definition)

    def answers(self, definition: PoolDefinition) -> bool:
        return _answers((exports.host(definition), _port(definition)))


def _port(definition: PoolDefinition) -> int:
    return definition.source.hosts[0].port or _PORT


def _source(definition: PoolDefinition) -> str:
    """As mount.cifs takes it, and as mountinfo shows it afterwards."""
    return f"//{exports.host(definition)}{exports.directory(definition)}"


def _answers(address: tuple[str, int], *, seconds: float = 3.0) -> bool:
    """Whether a server answers an offer of SMB 2.1 (MS-SMB2 2.2.1, 2.2.3)."""
    header = _MAGIC + struct.pack("<HHIHHIIQIIQ", 64, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + bytes(16)
    offer = header + struct.pack("<HHHHI", 36, 1, 1, 0, 0) + bytes(16) + struct.pack("<QH", 0, 0x0210)
    try:
        with socket.create_connection(address, seconds) as line:
            line.settimeout(seconds)
            line.sendall(struct.pack(">I", len(offer)) + offer)
            return line.recv(8)[4:] == _MAGIC
    except OSError:
        return False
