"""Exports of any host with sshd, mounted by sshfs: the cheapest network pool, for one host at a time.

No locks between hosts, no limits, no extended attributes, times in whole seconds. `reconnect` always:
without it the mount vanishes with the server. Host keys are always checked; nobody is ever asked anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

from fspoolfs.backends.network import exports
from fspoolfs.errors import AccessError, InvalidError, NotFoundError, TimeLimitError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import one_line
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

_PORT = 22
#: Seconds that a connection may take, each time that one is made anew.
_CONNECT = 8
#: What is always so. dir_cache: other programs may write on the server. The configuration of the machine
#: and of its root could lead elsewhere; an agent holds keys of somebody else.
_SSHFS = (
    "reconnect,dir_cache=no,allow_other,default_permissions,"
    "ServerAliveInterval=5,ServerAliveCountMax=2,StrictHostKeyChecking=yes,"
    f"BatchMode=yes,ConnectTimeout={_CONNECT},PasswordAuthentication=no,KbdInteractiveAuthentication=no,"
    "ssh_command=ssh -oIdentityAgent=none -oControlPath=none -oClearAllForwardings=yes"
)
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

    def unusable(self) -> str:
        for program, package in (("sshfs", "sshfs"), ("ssh", "openssh-client")):
            if command.find(program) is None:
                return f"{program} is not installed; install the package {package}"
        return ""

    def check(self, definition: PoolDefinition) -> None:
        if len(definition.source.hosts) > 1:
            raise InvalidError(
                f"pool {definition.name}: sshfs mounts from one host, and {len(definition.source.hosts)} are "
                "named; name one"
            )
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
        _, _, port = _split(definition)
        words = ["sshfs", "-F", "/dev/null", "-p", str(port), "-o", _SSHFS]
        if given := exports.options(definition):
            words += ["-o", ",".join(given)]
        if (secret := exports.secret(definition)) is not None:
            words += ["-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={_for_ssh(secret)}"]
        if (hosts := exports.known_hosts(definition)) is not None:
            words += ["-o", f"UserKnownHostsFile={_for_ssh(hosts)}", "-o", "GlobalKnownHostsFile=/dev/null"]
        words += ["-o", "nosuid,nodev", "--", _source(definition), place]
        try:
            ended = command.run(words, timeout=self.patience, progress=progress, allowed=range(1, 256))
        except TimeLimitError as error:
            raise exports.unreachable(definition, f"no answer within {self.patience:g} seconds") from error
        if ended.status:
            raise _refusal(definition, ended.stderr)

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


def _for_ssh(path: str) -> str:
    """A path within sshfs' list of options, which ssh reads as a line of its configuration."""
    quoted = '"' + path.replace("%", "%%") + '"'
    return quoted.replace("\\", "\\\\").replace(",", "\\,")


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
