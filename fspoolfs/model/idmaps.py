"""Reading and writing <idmap>: whose an item's files appear to be in a user namespace.

The element is that of libvirt's containers: <uid start='0' target='100000' count='65536'/>. Never
decides who may ask for it, nor whether a storage can do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from fspoolfs.model import values
from fspoolfs.model.definitions import IdMap, IdRange
from fspoolfs.model.elements import WHITE, Element, attribute, attributes, empty, is_element, refuse, shown
from fspoolfs.names import quote

#: The ids that there are: 2^32 - 1 is none.
_IDS: Final = values.MAX_ID + 1
#: How many ranges the kernel keeps of each (UID_GID_MAP_MAX_EXTENTS, include/linux/user_namespace.h).
MAX_RANGES: Final = 340
_KINDS: Final = ("uid", "gid")


def idmap(element: Element | None) -> IdMap | None:
    """The map that an item's <idmap> describes."""
    if element is None:
        return None
    attributes(element)
    found: dict[str, list[IdRange]] = {kind: [] for kind in _KINDS}
    for child in element:
        if not is_element(child):
            continue
        if child.tag not in found:
            refuse(child, f"unexpected element {shown(child)} in <idmap>, which holds <uid> and <gid>")
        found[str(child.tag)].append(_range(child))
    _refuse_text(element)
    for kind, ranges in found.items():
        _check(element, kind, ranges)
    return IdMap(users=tuple(sorted(found["uid"])), groups=tuple(sorted(found["gid"])))


def _refuse_text(element: Element) -> None:
    for text in (element.text, *(child.tail for child in element)):
        if text and (stray := text.strip(WHITE)):
            refuse(element, f"unexpected text {quote(stray)} in <idmap>")


def _range(element: Element) -> IdRange:
    given = empty(element, "start", "target", "count")
    one = IdRange(
        start=attribute(element, given, "start", values.user),
        target=attribute(element, given, "target", values.user),
        count=attribute(element, given, "count", values.id_count),
    )
    if max(one.start, one.target) + one.count > _IDS:
        refuse(element, f"{shown(element)} goes beyond the last id, {_IDS - 1}")
    return one


def _check(element: Element, kind: str, ranges: Sequence[IdRange]) -> None:
    if not 1 <= len(ranges) <= MAX_RANGES:
        refuse(element, f"<idmap> holds from 1 to {MAX_RANGES} <{kind}> elements")
    for starts in ([(one.start, one.count) for one in ranges], [(one.target, one.count) for one in ranges]):
        if any(first + count > second for (first, count), (second, _) in pairwise(sorted(starts))):
            refuse(element, f"two <{kind}> ranges of <idmap> overlap")


def lines(idmap: IdMap, indent: str) -> Iterable[str]:
    """The element as it is printed."""
    yield f"{indent}<idmap>"
    for kind, ranges in zip(_KINDS, (idmap.users, idmap.groups), strict=True):
        for one in ranges:
            yield f"{indent}  <{kind} start='{one.start}' target='{one.target}' count='{one.count}'/>"
    yield f"{indent}</idmap>"
