"""The metrics of single items. There can be very many, so their text is put together by hand.

Reads what was seen last and asks no storage. An item that is gone has no series any more, and where
the storage does not count there are none of what items hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fspoolfs.service.objects import Item, Pool

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _above(item: Item) -> int | None:
    return None if item.above_soft is None else int(item.above_soft)


#: Name, explanation, and the value for an item that has one.
_FAMILIES: tuple[tuple[str, str, Callable[[Item], int | None]], ...] = (
    (
        "fspoolfs_item_capacity_bytes",
        "The most that the item may hold.",
        lambda item: item.definition.capacity,
    ),
    (
        "fspoolfs_item_allocation_bytes",
        "What the item holds, as the storage counts it.",
        lambda item: None if item.counted is None else item.counted.allocation,
    ),
    (
        "fspoolfs_item_soft_limit_bytes",
        "The usage at which an event tells of it.",
        lambda item: item.definition.soft_bytes,
    ),
    (
        "fspoolfs_item_above_soft_limit",
        "1 while the item holds as much as its soft limit or more.",
        _above,
    ),
)


def text(pools: Iterable[Pool]) -> bytes:
    """All families in the exposition format, version 0.0.4; those without a sample as well."""
    labelled = [(_labels(pool, item), item) for pool in pools for item in pool.items.values()]
    pieces: list[str] = []
    for name, explanation, value_of in _FAMILIES:
        pieces.append(f"# HELP {name} {explanation}\n# TYPE {name} gauge\n")
        for labels, item in labelled:
            value = value_of(item)
            if value is not None:
                pieces.append(f"{name}{labels} {value}\n")
    return "".join(pieces).encode()


def _labels(pool: Pool, item: Item) -> str:
    return f'{{pool="{pool.name.translate(_ESCAPES)}",item="{item.name.translate(_ESCAPES)}"}}'
