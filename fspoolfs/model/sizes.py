"""Reading how large things are: capacities with and without a soft limit, numbers of files, defaults, quotas.

Takes the elements of a document that `fspoolfs.model.elements` has loaded. Never decides who may
choose a size, nor whether a storage enforces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from fspoolfs.model import values
from fspoolfs.model.definitions import PoolDefaults, Quota, SoftLimit
from fspoolfs.model.elements import (
    WHITE,
    Element,
    attribute,
    attributes,
    children,
    converted,
    optional,
    refuse,
    text_of,
)
from fspoolfs.units import parse_size

#: The elements of an item, and of a pool's defaults, that say how much an item may hold.
PARTS: Final = frozenset({"capacity", "files"})


class Sizes(NamedTuple):
    """How much an item may hold; see `ItemDefinition`."""

    capacity: int | None
    soft: SoftLimit | None
    files: int | None


def capacity(parts: Mapping[str, Element]) -> int | None:
    """The capacity of a pool, in bytes; 0 is how one is printed that nobody asked for."""
    element = parts.get("capacity")
    return None if element is None else _bytes(element, attributes(element, "unit"))


def sizes(parts: Mapping[str, Element]) -> Sizes:
    """What an item's parts say; a capacity of 0 is none here too."""
    element = parts.get("capacity")
    limit, soft = None, None
    if element is not None:
        given = attributes(element, "unit", "soft")
        limit = _bytes(element, given)
        soft = attribute(element, given, "soft", values.soft_limit) if "soft" in given else None
        if soft is not None and soft.percent is not None and limit is None:
            refuse(
                element,
                f"the soft limit {soft.percent}% is a part of a capacity, and <capacity> says that there is "
                "none; write a capacity, or a size as the soft limit",
            )
    return Sizes(limit, soft, optional(parts, "files", values.files))


def defaults(element: Element | None) -> PoolDefaults:
    """What a pool gives items that do not say otherwise."""
    if element is None:
        return PoolDefaults()
    attributes(element)
    given = sizes(children(element, PARTS))
    return PoolDefaults(capacity=given.capacity, soft=given.soft, files=given.files)


def quotas(root: Element) -> tuple[Quota, ...]:
    """The quotas of a pool: its own first, then those of users and of groups, by their ids."""
    found: dict[tuple[bool, int, int], Quota] = {}
    before: Element | None = None
    for element in root.iterchildren("quota"):
        if before is not None and next(before.itersiblings("*")) is not element:
            refuse(element, "the <quota> elements of a pool stand together")
        before = element
        one = _quota(element)
        key = (one.group is not None, -1 if one.user is None else one.user, one.group or 0)
        if key in found:
            refuse(element, f"a second quota of {one.subject}; write one <quota> for each")
        found[key] = one
    return tuple(found[key] for key in sorted(found))


def _quota(element: Element) -> Quota:
    given = attributes(element, "user", "group", "items", "unit")
    if "user" in given and "group" in given:
        refuse(element, "<quota> is a user's or a group's, not both; write two")
    size = _bytes(element, given) if text_of(element).strip(WHITE) else None
    if size is None and ("items" not in given or text_of(element).strip(WHITE)):
        refuse(element, "<quota> limits nothing; write a size above 0, or a number of items, or leave it out")
    return Quota(
        user=attribute(element, given, "user", values.user) if "user" in given else None,
        group=attribute(element, given, "group", values.user) if "group" in given else None,
        size=size,
        items=attribute(element, given, "items", values.files) if "items" in given else None,
    )


def _bytes(element: Element, given: Mapping[str, str]) -> int | None:
    unit = given.get("unit")
    return converted(element, text_of(element), lambda text: parse_size(text, unit)) or None
