"""What a root says about whose pool it carries: `.fspool/pool.xml`, and the directories beside it."""

from __future__ import annotations

import errno
import stat
from contextlib import closing
from dataclasses import dataclass
from uuid import UUID
from xml.sax.saxutils import escape

from lxml import etree

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import Recognising, Source
from fspoolfs.errors import CorruptError, ExistsError, FspoolError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.progress import Progress

#: The layout of `.fspool/` that this version reads and writes.
FORMAT = 1
_LIMIT = 64 << 10
#: What opening a directory answers where there is none, or something else.
_NO_DIRECTORY = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose pool a root carries."""

    uuid: UUID
    name: str


def read(root: RootDirectory) -> Identity | None:
    """The identity at `root`, or `None` where there is none.

    Raises `CorruptError` for one that cannot be understood, `UnsupportedError` for a later format.
    """
    try:
        data = root.read(layout.IDENTITY, limit=_LIMIT)
    except FileNotFoundError:
        return None
    return _decode(data, root.location(layout.IDENTITY))


def peek(source: Source, definition: PoolDefinition) -> UUID | None:
    """The uuid that the storage of `definition` carries for a pool of this name, if it can be told.

    Nothing is attached for it but what is there anyway: the directory of a pool of type dir.
    """
    if isinstance(source, Recognising):
        return source.carried(definition)
    if definition.type is not PoolType.DIR:
        return None
    try:
        with closing(source.attach(definition, Progress())) as root:
            found = read(root)
    except (OSError, FspoolError):
        return None  # a start will say what is wrong with it
    return found.uuid if found is not None and found.name == definition.name else None


def _decode(data: bytes, where: str) -> Identity:
    try:
        element = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
        version = int(element.get("format", ""))
        identity = Identity(uuid=UUID(element.findtext("uuid", "")), name=element.findtext("name", ""))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise CorruptError(
            f"{where} cannot be understood ({error}); restore it, or remove it if the "
            "root belongs to no other pool"
        ) from error
    if version > FORMAT:
        raise UnsupportedError(f"{where} has format {version}; this version of fspoolfs knows {FORMAT}")
    return identity


def claim(root: RootDirectory, wanted: Identity, *, known: bool = False) -> None:
    """Make `root` the pool's own, or check that it is.

    Raises `ExistsError` when it carries another pool, `NotFoundError` when it carries none although
    the pool is `known` to have been there: what is seen then is most likely the empty directory on
    which the pool's file system was not mounted, and no item may come to lie in that.
    """
    found = read(root)
    if found is None and known:
        raise NotFoundError(
            f"{root.path} does not carry pool {wanted.name} any more; mount what belongs there and start "
            "the pool again, or begin with an empty pool by `build overwrite`"
        )
    if found is not None and found.uuid != wanted.uuid:
        raise ExistsError(
            f"{root.path} carries pool {found.name} with uuid {found.uuid}, not {wanted.name} with uuid "
            f"{wanted.uuid}; define the pool with that uuid, or give it another target"
        )
    _make_directories(root)
    if found != wanted:
        root.write(layout.IDENTITY, _encode(wanted), replace=True, durable=True)


def _encode(identity: Identity) -> bytes:
    return (
        f'<pool format="{FORMAT}">\n  <name>{escape(identity.name)}</name>\n'
        f"  <uuid>{identity.uuid}</uuid>\n</pool>\n"
    ).encode()


def _make_directories(root: RootDirectory) -> None:
    try:
        _trust_directories(root)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY:
            raise
    else:
        return
    made = False
    for path in (layout.OWN, *layout.DIRECTORIES):
        try:
            info = root.stat(path)
        except FileNotFoundError:
            root.make_directory(path, mode=layout.PASSABLE if path == layout.SNAPSHOTS else 0o700)
            made = True
        else:
            if not stat.S_ISDIR(info.mode):
                raise FspoolError(
                    f"{root.location(path)} is not a directory: fspoolfs keeps its own files there",
                    errno=errno.ENOTDIR,
                )
    if made:
        root.sync()
    _trust_directories(root)


def _trust_directories(root: RootDirectory) -> None:
    for path in layout.DIRECTORIES:
        root.trust(path)
