"""What engines read of a definition alike: the servers, the directory, mount options, and who we are.

Refuses what no engine can be given: programs and the kernel split their arguments at commas and blanks,
and take what begins with a dash for an option. Touches nothing but the files that `<auth>` names.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Collection
from pathlib import PurePosixPath

from fspoolfs.errors import AccessError, FspoolError, InvalidError, NotFoundError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import quote
from fspoolfs.system import mounting

#: Options that carry what only root may read, with or without a value.
_SECRETS = frozenset(
    {
        *("password", "pass", "passwd", "pw", "secret", "key", "keyring", "credentials", "cred"),
        *("secretfile", "keyfile", "identityfile", "password_stdin", "mfspassword", "mfsmd5pass"),
        *("askpassword", "token", "passphrase"),
    }
)
#: What else makes of a mount something other than this pool's.
_NEVER = mounting.FORBIDDEN | {"user", "users", "owner", "group", "bg", "sharecache", "fsname", "subtype"}

_FILE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_BY_OTHERS = 0o022
#: What would be another word where programs read a path in a configuration or in a list of options.
_ODD = frozenset("\"'\\$`")


def directory(definition: PoolDefinition) -> str:
    """The exported directory, absolute; one that is not counts from the server's root, "/" where none "
    "is named."""
    path = definition.source.directory or "/"
    return path if path.startswith("/") else f"/{path}"


def host(definition: PoolDefinition) -> str:
    """The first server's name, an address of IPv6 without brackets."""
    return definition.source.hosts[0].name.strip("[]")


def bracketed(name: str) -> str:
    """A host's name as it stands before a colon."""
    bare = name.strip("[]")
    return f"[{bare}]" if ":" in bare else bare


def shown(definition: PoolDefinition) -> str:
    """The servers and the directory, for a sentence: "10.0.0.7:/exports/fs"."""
    hosts = ",".join(
        bracketed(one.name) + (f":{one.port}" if one.port is not None else "")
        for one in definition.source.hosts
    )
    return f"{hosts}:{directory(definition)}"


def options(definition: PoolDefinition) -> list[str]:
    """The mount options, one a word."""
    return [word for word in (definition.source.options or "").split(",") if word]


def check_single_host(definition: PoolDefinition, what: str) -> None:
    """Raise `InvalidError` for more than one server; `what` is mounted: "an NFS export"."""
    if len(definition.source.hosts) > 1:
        raise InvalidError(
            f"pool {definition.name}: {what} is mounted from one host, and "
            f"{len(definition.source.hosts)} are named; name one"
        )


def check_version(
    definition: PoolDefinition, names: Collection[str], known: Collection[str], protocol: str
) -> None:
    """Raise `InvalidError` where one of the options `names` asks for a version that is not `known`."""
    for word in options(definition):
        name, _, version = word.partition("=")
        if name in names and version not in known:
            raise InvalidError(
                f"pool {definition.name}: {word!r} is no version of {protocol} that is mounted; write one of "
                f"{', '.join(known)}"
            )


def check_no_secrets(definition: PoolDefinition) -> None:
    """Raise `InvalidError` for an option that carries a secret, whatever the protocol."""
    for word in options(definition):
        name = word.partition("=")[0].strip()
        if name.lower() in _SECRETS:
            # Not repeated: what follows the sign may be the secret itself.
            raise InvalidError(
                f"pool {definition.name}: mount option '{name}' names a secret or where one is kept, and "
                "options are read by everyone who reads the definition or the list of processes; put it into "
                "a file that only root can read and name that in <auth>, as <secret file='…'/>"
            )


def check_options(definition: PoolDefinition, engine: str, allowed: Collection[str]) -> None:
    """Raise `InvalidError` for an option that is not `allowed`: "reconnect", or "timeo=" with a value."""
    check_no_secrets(definition)
    for word in options(definition):
        name, equals, value = word.partition("=")
        known = f"{name}{equals}" in allowed and (not equals or value != "")
        if known and name not in _NEVER and word.isprintable() and not set(word) & _ODD and " " not in word:
            continue
        usable = ", ".join(sorted(allowed)) or "none at all"
        raise InvalidError(
            f"pool {definition.name}: mount option {quote(word)} is not for pools of format '{engine}', "
            "which "
            f"take: {usable}; leave it out"
        )


def check_hosts(definition: PoolDefinition) -> None:
    """Raise `InvalidError` for a host's name that a program could take for something else."""
    for one in definition.source.hosts:
        name = one.name
        if name.startswith("-") or not name.isprintable() or set(name) & (_ODD | set(" ,/;|&<>")):
            raise InvalidError(f"pool {definition.name}: {quote(name)} is not the name or address of a host")


def username(definition: PoolDefinition) -> str | None:
    """Who a server is to take us for, if the definition says it."""
    auth = definition.source.auth
    return auth.username if auth is not None else None


def secret(definition: PoolDefinition) -> str | None:
    """The path of the file with what proves it, looked at now; `None` where none is named."""
    auth = definition.source.auth
    return None if auth is None else _looked_at(definition, auth.secret, private=True)


def known_hosts(definition: PoolDefinition) -> str | None:
    """The path of the file by which servers are recognised."""
    auth = definition.source.auth
    return None if auth is None else _looked_at(definition, auth.hosts, private=False)


def config(definition: PoolDefinition) -> str | None:
    """The path of the protocol's configuration."""
    auth = definition.source.auth
    return None if auth is None else _looked_at(definition, auth.config, private=False)


def check_auth(definition: PoolDefinition, engine: str) -> None:
    """Raise `FspoolError` for an `<auth>` of another protocol, or one whose files are not root's own.

    A file that is not there is refused at the start: it may come later.
    """
    auth = definition.source.auth
    if auth is None:
        return
    if auth.type != engine:
        raise InvalidError(
            f"pool {definition.name}: <auth> is of type '{auth.type}' and the pool of format "
            f"'{engine}'; write the same"
        )
    for path, private in ((auth.secret, True), (auth.hosts, False), (auth.config, False)):
        try:
            _looked_at(definition, path, private=private)
        except NotFoundError:
            continue


def _looked_at(definition: PoolDefinition, path: str | None, *, private: bool) -> str | None:
    """`path`, when it is a file that nobody but root can have put there, nor read where it is `private`."""
    if path is None:
        return None
    what = f"pool {definition.name}: {path}, which <auth> names,"
    if set(path) & _ODD:
        raise InvalidError(f"{what} has quotes, '$' or '\\' in its path; move the file to a plainer one")
    try:
        fd = os.open(path, _FILE)
    except FileNotFoundError:
        raise NotFoundError(f"{what} does not exist; put the file there") from None
    except OSError as error:
        raise FspoolError(f"{what} cannot be opened: {error.strerror}", errno=error.errno) from error
    try:
        info = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(info.st_mode):
        raise InvalidError(f"{what} is not a regular file; name the file itself")
    forbidden = 0o077 if private else _BY_OTHERS
    if info.st_uid != 0 or info.st_mode & forbidden:
        mode = "0600" if private else "0644"
        may = "read" if private else "written"
        raise AccessError(
            f"{what} belongs to user {info.st_uid} and has mode {stat.S_IMODE(info.st_mode):04o}: it may be "
            f"{may} by root alone; chown it to root and chmod it to {mode}"
        )
    _check_way(what, path)
    return path


def _check_way(what: str, path: str) -> None:
    """Raise `AccessError` when somebody else could put another file at `path`."""
    for above in PurePosixPath(path).parents:
        info = os.stat(above)
        replaceable = info.st_mode & _BY_OTHERS and not info.st_mode & stat.S_ISVTX
        if info.st_uid != 0 or replaceable:
            raise AccessError(
                f"{what} lies below {above}, which belongs to user {info.st_uid} and has mode "
                f"{stat.S_IMODE(info.st_mode):04o}: others could put their own file there; keep it in a "
                "directory "
                "of root's, such as /etc/fspoolfs/keys"
            )


def unreachable(definition: PoolDefinition, why: str) -> FspoolError:
    """That the servers did not answer in time."""
    return FspoolError(
        f"pool {definition.name}: {shown(definition)} cannot be reached: {why}; look at the server and "
        "the way to "
        "it, and start the pool again",
        errno=errno.ETIMEDOUT,
    )


def banner(name: str, port: int, *, seconds: float = 3.0) -> bytes:
    """What a server says first to whoever connects; empty when it says nothing, or is not there."""
    try:
        with socket.create_connection((name, port), timeout=seconds) as connection:
            connection.settimeout(seconds)
            return connection.recv(256)
    except OSError:
        return b""
