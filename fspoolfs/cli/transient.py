"""Transient pools: the control tree knows none, so a mark in a pool's <metadata> tells the commands."""

from __future__ import annotations

from typing import Final

#: The mark is an element of this namespace, which is nobody else's.
NAMESPACE: Final = "urn:fspoolfs:transient"
_MARK: Final = f"{{{NAMESPACE}}}transient"


def marked(data: bytes) -> bytes:
    """The document of a pool with the mark. Raises `DocumentError`."""
    from lxml import etree

    from fspoolfs.model.elements import load

    root = load(data)
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    if metadata.find(_MARK) is None:
        etree.SubElement(metadata, _MARK, nsmap={"fspoolfs": NAMESPACE})
    return etree.tostring(root, encoding="utf-8")


def is_marked(document: str) -> bool:
    """Whether a pool's document has the mark."""
    # Most have not, and need not be parsed to be known.
    if NAMESPACE not in document:
        return False
    from fspoolfs.model.elements import load

    return load(document.encode()).find(f"metadata/{_MARK}") is not None
