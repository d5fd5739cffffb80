"""Exports of any host with sshd, mounted by sshfs: the cheapest network pool, for one host at a time.

No locks between hosts, no limits, no extended attributes, times in whole seconds. `reconnect` always:
without it the mount vanishes with the server. Host keys are always checked; nobody is ever asked anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import ClassVar

from fspoolfs.backends.network import exports
from fspoolfs.errors import AccessError, FspoolError, InvalidError, NotFoundError, TimeLimitError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import one_line
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

_PORT = 22
#: Seconds that a connection may take, each time that one is made anew.
_CONNECT = 8
#: What is always so. dir_cache: other programs may write on the server.
_SSHFS = "reconnect,dir_cache=no,allow_other,default_permissions,nosuid,nodev"
#: The same for ssh. An agent holds keys of somebody else, and nobody can be asked anything.
_SSH = (
    *("ServerAliveInterval=5", "ServerAliveCountMax=2", f"ConnectTimeout={_CONNECT}"),
    *("StrictHostKeyChecking=yes", "BatchMode=yes", "PasswordAuthentication=no"),
    "KbdInteractiveAuthentication=no",
)
#: What sshfs knows no option for. The configuration of the machine and of its root could lead elsewhere.
_SSH_ALONE = ("-oIdentityAgent=none", "-oControlPath=none", "-oClearAllForwardings=yes")
#: The most of its complaints that goes into an error, in characters.
_SAID = 400
_NO_DIRECTORY = re.compile("No such file or directory|not a directory", re.IGNORECASE)
_REFUSED = re.compile("permission denied|host key verification failed|too many auth", re.IGNORECASE)


class Sshfs:
    """Keeps `fspoolfs.backends.network.engine.Engine`."""

    name: ClassVar[str] = "sshfs"
    fs_types: ClassVar[Collection[str]] = ("fuse.sshfs",)
    options: ClassVar[Collection[str]] = (
        *("ro", "noexec", "noatime", "compression=", "max_conns=", "Ciphers=", "AddressFamily="),
        *("max_read=", "max_write=", "no_readahead"),
    )
    single_host: ClassVar[str] = "sshfs has no locks between hosts"
    fences: ClassVar[bool] = False
    patience: ClassVar[float] = 20.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        for program, package in (("sshfs", "sshfs"), ("ssh", "openssh-client")):
            if command.find(program) is None:
                return f"{program} is not installed; install the package {package}"
        return ""

    def check(self, definition: PoolDefinition) -> None:
        exports.check_single_host(definition, "a directory by sshfs")
        if exports.directory(definition) == "/":
            raise InvalidError(
                f"pool {definition.name}: the root of a server cannot be a pool's; name a directory of the "
                "pool's own, as <dir path='/srv/fspool'/>"
            )
        auth = definition.source.auth
        if auth is not None and auth.config is not None:
            raise InvalidError(
                f"pool {definition.name}: configurations of ssh can run programs, and are not read; "
                "take <config> "
                "out of <auth>"
            )
        user, _, _ = _split(definition)
        if user and exports.username(definition) not in (None, user):
            raise InvalidError(
                f"pool {definition.name}: the host names user {user!r} and <auth> another one; name one"
            )

    def identity(self, definition: PoolDefinition) -> str:
        _, name, port = _split(definition)
        return f"sshfs:{exports.bracketed(name)}:{port}:{exports.directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        begun = time.monotonic()
        words = ["sshfs", "-F", "/dev/null", "-o", _SSHFS, "-o", f"ssh_command=ssh {' '.join(_SSH_ALONE)}"]
        if given := exports.options(definition):
            words += ["-o", ",".join(given)]
        for option in _ssh_options(definition):
            words += ["-o", _escaped(option)]
        words += ["--", _source(definition), place]
        try:
            ended = command.run(words, timeout=self.patience, progress=progress, allowed=range(1, 256))
        except TimeLimitError as error:
            raise exports.unreachable(definition, f"no answer within {self.patience:g} seconds") from error
        if ended.status:
            quick = time.monotonic() - begun < _CONNECT
            raise _refusal(definition, (_told_by_ssh(definition) if quick else b"") or ended.stderr)

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        return mount.source == _source(definition)

    def answers(self, definition: PoolDefinition) -> bool:
        _, name, port = _split(definition)
        return exports.banner(name, port).startswith(b"SSH-")


def _split(definition: PoolDefinition) -> tuple[str, str, int]:
    """The user that stands before the host's name, the name, the port."""
    host = definition.source.hosts[0]
    user, _, name = host.name.rpartition("@")
    return user, name.strip("[]"), host.port or _PORT


def _source(definition: PoolDefinition) -> str:
    """As sshfs takes it, and as mountinfo shows it afterwards."""
    user, name, _ = _split(definition)
    user = exports.username(definition) or user
    prefix = f"{user}@" if user else ""
    return f"{prefix}{exports.bracketed(name)}:{exports.directory(definition)}"


def _ssh_options(definition: PoolDefinition) -> list[str]:
    _, _, port = _split(definition)
    options = [*_SSH, f"Port={port}"]
    if (secret := exports.secret(definition)) is not None:
        options += ["IdentitiesOnly=yes", f"IdentityFile={_quoted(secret)}"]
    if (hosts := exports.known_hosts(definition)) is not None:
        options += [f"UserKnownHostsFile={_quoted(hosts)}", "GlobalKnownHostsFile=/dev/null"]
    return options


def _quoted(path: str) -> str:
    """A path as a line of ssh's configuration has it."""
    return '"' + path.replace("%", "%%") + '"'


def _escaped(option: str) -> str:
    """An option within sshfs' list of them."""
    return option.replace("\\", "\\\\").replace(",", "\\,")


def _told_by_ssh(definition: PoolDefinition) -> bytes:
    """Why ssh does not get in, which sshfs keeps to itself: it only tells that the connection was closed."""
    user, name, _ = _split(definition)
    user = exports.username(definition) or user or "root"
    words = ["ssh", "-F", "/dev/null", *_SSH_ALONE, *(f"-o{option}" for option in _ssh_options(definition))]
    try:
        return command.run(
            [*words, "-s", "--", f"{user}@{name}", "sftp"], timeout=_CONNECT, allowed=range(1, 256)
        ).stderr
    except FspoolError:
        return b""


def _refusal(definition: PoolDefinition, stderr: bytes) -> Exception:
    # The first lines are ssh's, and say more than the last one of sshfs: "read: Connection reset by peer".
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    said = one_line("; ".join(lines)[:_SAID])
    what = exports.shown(definition)
    if _NO_DIRECTORY.search(said) and "identity file" not in said.lower():
        return NotFoundError(
            f"pool {definition.name}: {what} is not there; build the pool, or make the directory on the "
            "server"
        )
    if _REFUSED.search(said):
        return AccessError(
            f"pool {definition.name}: {what} does not let us in ({said}); see to the key and the known "
            "hosts that "
            "<auth> names"
        )
    return exports.unreachable(definition, said or "sshfs did not say why")
