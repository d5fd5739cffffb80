"""The single values of a document, from its text: ids, modes, uuids, hosts, paths, limits.

Each function takes the text as it stands and raises `InvalidError` with a sentence that quotes it.
Sizes and durations are read by `fspoolfs.units`, names by `fspoolfs.names`.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from fspoolfs.errors import InvalidError
from fspoolfs.model.definitions import PoolType, SoftLimit
from fspoolfs.model.elements import WHITE
from fspoolfs.names import check_characters, check_name, check_path, check_target_path, quote
from fspoolfs.units import parse_size

#: The largest id of a user or group: (uid_t) -1 means "leave it" to chown(2).
MAX_ID: Final = 2**32 - 2
#: Bytes of mount options, or of a value for a cgroup's file: less than a page (mount(2)).
MAX_LINE: Final = 4095
#: The most files that an item can be limited to, as for sizes what 64 bits with a sign can count.
MAX_FILES: Final = 2**63 - 1

_DECIMAL = re.compile("-1|0*([0-9]{1,10})")
_COUNT = re.compile("0*([0-9]{1,19})")
_PERCENT = re.compile("0*([0-9]{1,3})%")
_SIZE = re.compile(r"([0-9]+)[ \t]*([A-Za-z]*)")
_OCTAL = re.compile("0*([0-7]{1,4})")
_UUID = re.compile("[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_WORD = re.compile(r"[a-z0-9][a-z0-9+._-]{0,63}")
# A name, an address of IPv4 or IPv6, with a user in front where the protocol has one. It never
# begins with '-', which a program would take for an option.
_HOST = re.compile(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%@\[\]-]{0,254}")
# Never with an option's dash in front, a comma (which ends an option) or a blank in it.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\$?")
_SOURCE_TEXT = re.compile(r"""fspool[ \t\r\n]*=[ \t\r\n]*(?:'([^']*)'|"([^"]*)")""")
_PRINTABLE = re.compile("[ -~]+")


def uuid(text: str) -> UUID:
    """A uuid, with or without dashes, in either case."""
    digits = text.strip(WHITE)
    if not _UUID.fullmatch(digits):
        raise InvalidError(
            f"{quote(digits)} is not a uuid; write 32 hexadecimal digits, with or without dashes"
        )
    return UUID(hex=digits)


def mode(text: str) -> int:
    """Permission bits in octal, 0 to 7777."""
    match = _OCTAL.fullmatch(text.strip(WHITE))
    if match is None:
        raise InvalidError(f"{quote(text)} is not a mode; write octal digits, from 0 to 7777")
    return int(match[1], 8)


def _number(text: str, low: int, high: int) -> int:
    match = _DECIMAL.fullmatch(text.strip(WHITE))
    number = None if match is None else int(match[1] or -1)
    if number is None or not low <= number <= high:
        raise InvalidError(f"{quote(text)} is not a whole number from {low} to {high}")
    return number


def owner(text: str) -> int | None:
    """The id of a user or a group; `None` for -1, which leaves it to the default."""
    number = _number(text, -1, MAX_ID)
    return None if number == -1 else number


def user(text: str) -> int:
    """The id of one user or group."""
    return _number(text, 0, MAX_ID)


def id_count(text: str) -> int:
    """How many ids a range has."""
    return _number(text, 1, MAX_ID + 1)


def port(text: str) -> int:
    """A port of TCP or UDP."""
    return _number(text, 1, 65535)


def files(text: str) -> int:
    """How many files and directories an item may hold."""
    match = _COUNT.fullmatch(text.strip(WHITE))
    number = 0 if match is None else int(match[1])
    if not 1 <= number <= MAX_FILES:
        raise InvalidError(
            f"{quote(text)} is not a number of files; write a whole number from 1 on, or leave it out"
        )
    return number


def soft_limit(text: str) -> SoftLimit:
    """A part of a capacity, such as "80%", or a size, such as "4GiB"."""
    request = text.strip(WHITE)
    percent, size = _PERCENT.fullmatch(request), _SIZE.fullmatch(request)
    if percent is not None and 1 <= int(percent[1]) <= 100:
        return SoftLimit(percent=int(percent[1]))
    limit = parse_size(size[1], size[2] or None) if size is not None else 0
    if limit == 0:
        raise InvalidError(f"{quote(text)} is not a soft limit; write 1% to 100%, or a size such as 4GiB")
    return SoftLimit(size=limit)


def pool_type(text: str) -> PoolType:
    """The type of a pool."""
    try:
        return PoolType(text)
    except ValueError:
        raise InvalidError(f"{quote(text)} is not a type of pool; write {', '.join(PoolType)}") from None


def word(text: str) -> str:
    """The name of a format or a provider, such as "ext4"."""
    if not _WORD.fullmatch(text):
        raise InvalidError(f"{quote(text)} is not a plain word of lower-case letters and digits")
    return text


def host_name(text: str) -> str:
    """The name or address of a server."""
    if not _HOST.fullmatch(text):
        raise InvalidError(f"{quote(text)} is not the name or the address of a host")
    return text


def directory(text: str) -> str:
    """A directory of a server, absolute or counted from where the protocol begins."""
    if text.startswith("-"):
        raise InvalidError(f"path {quote(text)} begins with '-', as options do")
    return check_path(text, "path")


def file(text: str) -> str:
    """The absolute path of a file on this host."""
    return check_target_path(text, "path")


def user_name(text: str) -> str:
    """Who a server is to take us for."""
    if not _USER.fullmatch(text):
        raise InvalidError(
            f"{quote(text)} is not the name of a user of a server: letters, digits, '.', '_', '-', '@', '+'"
        )
    return text


def device(text: str) -> str:
    """The absolute path of a block device."""
    return check_target_path(text, "path")


def options(text: str) -> str:
    """Mount options, as one line."""
    line = check_characters(text.strip(WHITE), "the text")
    if not line:
        raise InvalidError("it is empty; leave it out to say nothing")
    if len(line.encode()) > MAX_LINE:
        raise InvalidError(f"{quote(line)} is longer than {MAX_LINE} bytes")
    return line


def pool_in_text(text: str) -> str:
    """The pool of an item where the source says it in its text: fspool='NAME'."""
    match = _SOURCE_TEXT.fullmatch(text.strip(WHITE))
    if match is None:
        raise InvalidError(f"{quote(text)} names no pool; write <source fspool='NAME'/>")
    return check_name(match[1] or match[2] or "")


def limit(text: str) -> str:
    """A value for a cgroup's interface file, with single spaces, as the kernel splits it."""
    line = " ".join(text.split())
    if not _PRINTABLE.fullmatch(line) or len(line) > MAX_LINE:
        raise InvalidError(
            f"{quote(text)} is not a value for a cgroup; write one as the kernel's file takes it"
        )
    return line
