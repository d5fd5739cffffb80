"""Names and paths that people give: what is accepted, in which spelling, and why not.

Pure checks of text. Nothing here looks at a disk, so a checked path may still lead nowhere or
through a symbolic link; resolving it safely is the work of `fspoolfs.system`.
"""

from __future__ import annotations

import re
from typing import Final

from fspoolfs.errors import InvalidError

#: Bytes of a name in UTF-8. NAME_MAX (linux/limits.h) is 255; the rest is left for suffixes such as ".xml".
MAX_NAME: Final = 200
#: Bytes of one component of a path, NAME_MAX in linux/limits.h.
MAX_COMPONENT: Final = 255
#: Bytes of a path: below PATH_MAX (4096, linux/limits.h), which counts what stands before it too.
MAX_PATH: Final = 4000
#: The directory in a pool's root that belongs to fspoolfs itself.
RESERVED: Final = ".fspool"

# U+2028 and U+2029 end a line for many readers of logs; U+FFFE and U+FFFF are in no XML document
# (production 2, Char); a lone surrogate is what os.fsdecode makes of a byte that is not UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_SLASHES = re.compile("//+")
_QUOTED = 60


def quote(text: str) -> str:
    """`text` in quotation marks, fit for one line of a sentence: escaped, and cut when it is long."""
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def one_line(text: str) -> str:
    """`text` with everything escaped that no name may hold: a line of a log, a value of one line."""
    return _UNFIT.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def check_characters(text: str, what: str) -> str:
    """`text` itself, when no character of it is unfit for a name, a log line or a document.

    Raises `InvalidError` for control characters (C0, DEL, C1), U+2028, U+2029, U+FFFE, U+FFFF
    and lone surrogates; `what` says in the sentence what `text` is.
    """
    unfit = _UNFIT.search(text)
    if unfit is None:
        return text
    code = ord(unfit.group())
    if 0xD800 <= code <= 0xDFFF:
        raise InvalidError(f"{what} {quote(text)} is not UTF-8")
    fault = "a control character"
    if code >= 0x2028:
        fault = "which no document can hold" if code >= 0xFFFE else "a line break"
    raise InvalidError(f"{what} {quote(text)} holds U+{code:04X}, {fault}")


def check_name(name: str | bytes, what: str = "name") -> str:
    """The name of a pool, an item or a snapshot, as a string.

    1 to 200 bytes of UTF-8 without a slash, a control character, or '.' or '-' in front.
    Raises `InvalidError` with a sentence that begins with `what`.
    """
    if isinstance(name, bytes):
        name = name.decode(errors="surrogateescape")
    if not name:
        raise InvalidError(f"{what} is empty")
    check_characters(name, what)
    if "/" in name:
        raise InvalidError(f"{what} {quote(name)} holds a slash")
    if name[0] in ".-":
        raise InvalidError(f"{what} {quote(name)} begins with {name[0]!r}; no name begins with '.' or '-'")
    size = len(name.encode())
    if size > MAX_NAME:
        raise InvalidError(f"{what} {quote(name)} is {size} bytes long; at most {MAX_NAME} are accepted")
    return name


def check_path(path: str, what: str) -> str:
    """A path, absolute or not, with duplicate and trailing slashes squeezed.

    Raises `InvalidError` for an empty path, '.' and '..', control characters, a component of more
    than 255 bytes and a whole of more than 4000.
    """
    if not path:
        raise InvalidError(f"{what} is empty")
    check_characters(path, what)
    squeezed = _SLASHES.sub("/", path)
    if len(squeezed) > 1:
        squeezed = squeezed.rstrip("/")
    for component in squeezed.split("/"):
        if component in {".", ".."}:
            raise InvalidError(f"{what} {quote(path)} holds {component!r}; write the path without it")
        if len(component.encode()) > MAX_COMPONENT:
            raise InvalidError(
                f"{what} {quote(path)} has a component of more than {MAX_COMPONENT} bytes: {quote(component)}"
            )
    if len(squeezed.encode()) > MAX_PATH:
        raise InvalidError(f"{what} {quote(path)} is longer than {MAX_PATH} bytes")
    return squeezed


def check_target_path(path: str, what: str = "target path") -> str:
    """The canonical spelling of an absolute path on this host; "/" itself is refused.

    Raises `InvalidError`, with a sentence that begins with `what`.
    """
    squeezed = check_path(path, what)
    if squeezed[0] != "/":
        raise InvalidError(f"{what} {quote(path)} is not absolute; begin it with a slash")
    if squeezed == "/":
        raise InvalidError(f"{what} is the root directory of the host; name one below it")
    return squeezed


def check_item_path(path: str, what: str = "item path") -> str:
    """The canonical spelling of an item's path: absolute, counted from the pool's root.

    Raises `InvalidError`, also for the root itself and for what lies in fspoolfs' own directory.
    """
    squeezed = check_path(path, what)
    if squeezed[0] != "/":
        raise InvalidError(
            f"{what} {quote(path)} is not absolute; it counts from the pool's root, as /{path}"
        )
    if squeezed == "/":
        raise InvalidError(f"{what} is the pool's root, which no item can take; name a directory below it")
    if squeezed.split("/", 2)[1] == RESERVED:
        raise InvalidError(f"{what} {quote(path)} lies in {RESERVED}, which belongs to fspoolfs")
    return squeezed
