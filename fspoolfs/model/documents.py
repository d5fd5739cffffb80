"""Reading: the bytes of an <fspool> or <fs> document become a definition, or are refused.

The grammar is `fspool.rng`: nothing is accepted that does not follow it. Reading goes first only
because it finds better words for a fault, and adds what a schema cannot say. Never writes
documents and never fills in what was left out.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from lxml import etree

from fspoolfs.errors import DocumentError, TooLargeError
from fspoolfs.model import idmaps, sizes, sources, values
from fspoolfs.model.definitions import (
    ItemDefinition,
    ItemOrigin,
    Permissions,
    PoolDefinition,
    TrashPolicy,
)
from fspoolfs.model.elements import (
    MAX_DEPTH,
    MAX_DOCUMENT,
    WHITE,
    Element,
    attribute,
    attributes,
    children,
    converted,
    empty,
    is_element,
    load,
    optional,
    refuse,
    reworded,
    shown,
    text_of,
    value,
)
from fspoolfs.model.formatting import format_item, format_pool
from fspoolfs.model.limits import LIMITS
from fspoolfs.model.limits import check as check_limit
from fspoolfs.names import check_item_path, check_name, check_target_path, quote
from fspoolfs.units import parse_duration

__all__ = ["MAX_DOCUMENT", "MAX_METADATA", "parse", "parse_item", "parse_pool"]

#: Bytes of a <metadata> element as it is printed. With all else at its longest, a definition is
#: still printed in less than `MAX_DOCUMENT`: what was accepted once can always be read again.
MAX_METADATA: Final = 768 * 1024

_T = TypeVar("_T")
_ITEM_ROOTS = frozenset({"fs", "item", "fsitem"})
_COMMON_PARTS = frozenset(
    {
        *("name", "uuid", "capacity", "allocation", "available"),
        *("source", "target", "permissions", "metadata"),
    }
)
_ITEM_PARTS = _COMMON_PARTS | {"files", "idmap"}
_POOL_PARTS = _COMMON_PARTS | {"defaults", "quota", "trash"}
_TARGET_PARTS = frozenset({"path", "permissions"})
_OWNERSHIP = frozenset({"mode", "owner", "group"})
_OWNERSHIP_AND_LIMITS = _OWNERSHIP | {"cgroups"}


def parse(data: bytes) -> PoolDefinition | ItemDefinition:
    """The definition that a document holds, told apart by the name of its root.

    Raises `DocumentError` for what is malformed or does not follow the grammar, `TooLargeError`
    above 1 MiB, of which <metadata> may take three quarters.
    """
    root = load(data)
    if root.tag in _ITEM_ROOTS:
        return _validated(data, root, _item, format_item)
    if root.tag == "fspool":
        return _validated(data, root, _pool, format_pool)
    refuse(root, f"unexpected element {shown(root)}; a document is an <fspool> or an <fs>")


def parse_pool(data: bytes) -> PoolDefinition:
    """The pool that an <fspool> document defines; raises as `parse` does."""
    root = load(data)
    if root.tag != "fspool":
        refuse(root, f"unexpected element {shown(root)}; an <fspool> document belongs here")
    return _validated(data, root, _pool, format_pool)


def parse_item(data: bytes) -> ItemDefinition:
    """The item that an <fs>, <item> or <fsitem> document defines; raises as `parse` does."""
    root = load(data)
    if root.tag not in _ITEM_ROOTS:
        refuse(root, f"unexpected element {shown(root)}; an <fs> document belongs here")
    return _validated(data, root, _item, format_item)


class _Schema:
    """The compiled schema. Validations take turns: they share one log of errors."""

    def __init__(self) -> None:
        grammar = resources.files("fspoolfs.model").joinpath("fspool.rng").read_bytes()
        self._grammar = etree.RelaxNG(etree.fromstring(grammar))
        self._turn = threading.Lock()

    def check(self, root: Element) -> None:
        with self._turn:
            if self._grammar.validate(root):
                return
            fault = self._grammar.error_log[0]
        sentence = f"the document does not follow its schema: {reworded(fault.message)}"
        raise DocumentError(sentence, line=max(fault.line, 1))


_schema = functools.cache(_Schema)


def _validated(
    data: bytes, root: Element, interpret: Callable[[Element], _T], printed: Callable[[_T], bytes]
) -> _T:
    """What `interpret` makes of a document that the schema accepts."""
    definition = interpret(root)
    # All that is printed follows the schema. Asking it costs more than reading and printing, which
    # counts when a pool with very many items starts.
    if printed(definition) != data:
        _schema().check(root)
    return definition


# Parts of both kinds of document


class _Common(NamedTuple):
    name: str
    uuid: UUID | None
    metadata: str | None


def _common(root: Element, parts: Mapping[str, Element]) -> _Common:
    if "name" not in parts:
        refuse(root, f"{shown(root)} lacks its <name>")
    for report in ("allocation", "available"):
        if report in parts:
            attributes(parts[report], "unit")
            text_of(parts[report])
    return _Common(
        name=value(parts["name"], check_name),
        uuid=optional(parts, "uuid", values.uuid),
        metadata=_metadata(parts),
    )


def _metadata(parts: Mapping[str, Element]) -> str | None:
    """The element as it stands, with the namespaces that it uses; it is left empty in the tree."""
    element = parts.get("metadata")
    if element is None:
        return None
    depth = 1
    for event, inner in etree.iterwalk(element, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAX_DEPTH:
            refuse(inner, f"elements stand in each other more than {MAX_DEPTH} deep")
    text = etree.tostring(element, encoding="unicode", with_tail=False)
    if len(text.encode()) > MAX_METADATA:
        raise TooLargeError(f"<metadata> is larger than the {MAX_METADATA} bytes that are accepted")
    # The schema allows anything here, but takes time for it that grows with the square of its size.
    element.clear(keep_tail=True)
    return text


class _Place(NamedTuple):
    path: str | None
    permissions: Mapping[str, Element]


def _place(parts: Mapping[str, Element], check: Callable[[str], str], allowed: frozenset[str]) -> _Place:
    """The target's path and the parts of the permissions, which stand inside it or beside it."""
    path, permissions = None, parts.get("permissions")
    if "target" in parts:
        attributes(parts["target"])
        inner = children(parts["target"], _TARGET_PARTS)
        path = optional(inner, "path", check)
        inside = inner.get("permissions")
        if inside is not None and permissions is not None:
            refuse(inside, "<permissions> stands both inside <target> and beside it")
        permissions = permissions if inside is None else inside
    if permissions is None:
        return _Place(path, {})
    attributes(permissions)
    return _Place(path, children(permissions, allowed))


def _permissions(parts: Mapping[str, Element]) -> Permissions:
    return Permissions(
        mode=optional(parts, "mode", values.mode),
        owner=optional(parts, "owner", values.owner),
        group=optional(parts, "group", values.owner),
    )


# Pools


def _pool(root: Element) -> PoolDefinition:
    kind = attribute(root, attributes(root, "type"), "type", values.pool_type)
    parts = children(root, _POOL_PARTS, repeated="quota")
    common = _common(root, parts)
    place = _place(parts, check_target_path, _OWNERSHIP)
    return PoolDefinition(
        name=common.name,
        type=kind,
        uuid=common.uuid,
        capacity=sizes.capacity(parts),
        source=sources.pool_source(root, parts.get("source"), kind),
        target=place.path,
        permissions=_permissions(place.permissions),
        defaults=sizes.defaults(parts.get("defaults")),
        quotas=sizes.quotas(root),
        trash=_trash(parts.get("trash")),
        metadata=common.metadata,
    )


def _trash(element: Element | None) -> TrashPolicy:
    if element is None:
        return TrashPolicy()
    return TrashPolicy(retention=attribute(element, empty(element, "retention"), "retention", parse_duration))


# Items


def _item(root: Element) -> ItemDefinition:
    attributes(root)
    parts = children(root, _ITEM_PARTS)
    common = _common(root, parts)
    place = _place(parts, check_item_path, _OWNERSHIP_AND_LIMITS)
    pool, origin = _item_source(parts.get("source"))
    given = sizes.sizes(parts)
    return ItemDefinition(
        name=common.name,
        uuid=common.uuid,
        pool=pool,
        capacity=given.capacity,
        soft=given.soft,
        files=given.files,
        path=place.path,
        permissions=_permissions(place.permissions),
        limits=_limits(place.permissions.get("cgroups")),
        idmap=idmaps.idmap(parts.get("idmap")),
        origin=origin,
        metadata=common.metadata,
    )


def _item_source(element: Element | None) -> tuple[str | None, ItemOrigin | None]:
    """The pool, and what the item is a clone of."""
    if element is None:
        return None, None
    given = attributes(element, "fspool", "fs", "snapshot")
    text = text_of(element).strip(WHITE)
    if text:
        if given:
            refuse(element, f"unexpected text {quote(text)} in <source>, which has attributes")
        return converted(element, text, values.pool_in_text), None
    pool = attribute(element, given, "fspool", check_name) if "fspool" in given else None
    if "fs" not in given:
        if "snapshot" in given:
            refuse(element, "<source> names a snapshot but lacks its attribute 'fs', whose snapshot it is")
        return pool, None
    origin = ItemOrigin(
        fs=attribute(element, given, "fs", check_name),
        snapshot=attribute(element, given, "snapshot", check_name) if "snapshot" in given else None,
    )
    return pool, origin


def _limits(element: Element | None) -> tuple[tuple[str, str], ...]:
    """The limits in document order; text alone, without an element, is a remark."""
    if element is None:
        return ()
    attributes(element)
    if not any(is_element(child) for child in element):
        return ()
    parts = children(element, frozenset(LIMITS), where=f"<cgroups>, which holds {', '.join(LIMITS)}")
    return tuple((name, value(limit, partial(_limit, name))) for name, limit in parts.items())


def _limit(name: str, text: str) -> str:
    return check_limit(name, values.limit(text))
