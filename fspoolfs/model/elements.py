"""A document as a tree: loaded without trust, and taken apart with refusals in a person's words.

Knows XML and how libxml2 words its errors, but not what a pool or an item is. Whatever is not
asked for is refused with its line: an element, an attribute or a text that nobody expects.

A document type is refused; entities, network, XInclude and huge trees are off. All work is linear
in the document's size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeAlias, TypeVar

from lxml import etree

from fspoolfs.errors import DocumentError, InvalidError, TooLargeError
from fspoolfs.names import quote

#: Bytes of a document.
MAX_DOCUMENT: Final = 1024 * 1024
#: Elements inside each other. Below libxml2's own limit of 256, so that a document still fits where
#: another one holds it.
MAX_DEPTH: Final = 200
#: What XML calls white space (production 3).
WHITE: Final = " \t\r\n"

#: An element of a document's tree.
Element: TypeAlias = etree._Element

_T = TypeVar("_T")
# What may stand before a document type. Possessive, or many comments would take exponential time.
_DOCTYPE = re.compile(
    rb"(?:\xef\xbb\xbf)?+(?:[ \t\r\n]++|(?><\?.*?\?>)|(?><!--.*?-->))*+<!DOCTYPE", re.DOTALL
)

# Comments and instructions stay in the tree, since <metadata> keeps its own; reading skips them.
_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
)


def load(data: bytes) -> Element:
    """The root element of a well-formed document.

    Raises `DocumentError` for malformed text and document types, `TooLargeError` above 1 MiB.
    """
    if len(data) > MAX_DOCUMENT:
        raise TooLargeError(f"the document has {len(data)} bytes; at most {MAX_DOCUMENT} are accepted")
    doctype = _DOCTYPE.match(data)
    if doctype is not None:
        raise doctype_error(1 + data.count(b"\n", 0, doctype.end()))
    try:
        root = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        raise _malformed(error) from None
    # Only encodings that do not resemble ASCII come this far; nothing of the DTD was used or fetched.
    if root.getroottree().docinfo.doctype:
        raise doctype_error(1)
    return root


def doctype_error(line: int) -> DocumentError:
    """Why no document type is accepted: it is what defines entities."""
    return DocumentError("a document type is not accepted; remove the <!DOCTYPE>", line=line)


def foreign_error(line: int) -> DocumentError:
    """What is wrong with text that is no XML at all."""
    return DocumentError("this is no XML document; it does not begin with an element", line=line)


def _malformed(error: etree.XMLSyntaxError) -> DocumentError:
    line = max(error.lineno or 1, 1)
    if error.code == etree.ErrorTypes.ERR_DOCUMENT_EMPTY:
        return foreign_error(line)
    if error.code == etree.ErrorTypes.ERR_INVALID_ENCODING:
        return DocumentError("the bytes are not in the encoding of the document; write UTF-8", line=line)
    # libxml2 ends its message with the place, which the error carries already.
    return DocumentError(f"malformed XML: {reworded((error.msg or '').partition(', line ')[0])}", line=line)


def reworded(message: str) -> str:
    """A message of libxml2, which may quote the document, as a part of a one-line sentence."""
    line = _printable(message.strip(), 200)
    return f"{line[:1].lower()}{line[1:]}"


def _printable(text: str, length: int) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def refuse(element: Element, sentence: str) -> NoReturn:
    """Raise `DocumentError` with the line of `element`."""
    raise DocumentError(sentence, line=element.sourceline)


def shown(element: Element) -> str:
    """An element's name for a sentence."""
    name = etree.QName(element)
    space = f" of the namespace {quote(name.namespace)}" if name.namespace else ""
    return f"<{_printable(name.localname, 60)}>{space}"


def attributes(element: Element, *allowed: str) -> dict[str, str]:
    """All attributes; another one than the `allowed` is refused."""
    given = dict(element.items())
    for name in given:
        if name not in allowed:
            refuse(element, f"unexpected attribute {quote(name)} of {shown(element)}")
    return given


def children(
    element: Element,
    allowed: frozenset[str],
    *,
    remarks: bool = False,
    repeated: str = "",
    where: str = "",
) -> dict[str, Element]:
    """The child elements by name, in document order; one that is not `allowed` or doubled is refused.

    Of `repeated` there may be many, and the first is returned. With `remarks`, text between the
    elements is ignored. `where` names the element in a refusal.
    """
    found: dict[str, Element] = {}
    texts = [element.text]
    for child in element:
        tag = child.tag
        if tag in found and tag != repeated:
            refuse(child, f"{shown(child)} stands twice in {shown(element)}")
        if tag in allowed:
            found.setdefault(tag, child)
        elif is_element(child):
            refuse(child, f"unexpected element {shown(child)} in {where or shown(element)}")
        texts.append(child.tail)
    if not remarks:
        for text in texts:
            if text and (stray := text.strip(WHITE)):
                refuse(element, f"unexpected text {quote(stray)} in {shown(element)}")
    return found


def is_element(node: Element) -> bool:
    """Whether a child is an element; comments and processing instructions are children too."""
    # The tag of those is the function that makes them.
    return isinstance(node.tag, str)


def text_of(element: Element) -> str:
    """All text of an element; another element in it is refused."""
    if len(element) == 0:
        return element.text or ""
    pieces = [element.text or ""]
    for child in element:
        if is_element(child):
            refuse(child, f"unexpected element {shown(child)} in {shown(element)}")
        pieces.append(child.tail or "")
    return "".join(pieces)


def converted(element: Element, text: str, convert: Callable[[str], _T], *, name: str = "") -> _T:
    """What `convert` makes of `text`, which is the element's or that of its attribute `name`.

    An `InvalidError` becomes a `DocumentError` that says where.
    """
    try:
        return convert(text)
    except InvalidError as error:
        place = f"{name!r} of {shown(element)}" if name else shown(element)
        refuse(element, f"{place}: {error.sentence}")


def value(element: Element, convert: Callable[[str], _T]) -> _T:
    """What `convert` makes of the text of an element that has no attributes."""
    attributes(element)
    return converted(element, text_of(element), convert)


def optional(parts: Mapping[str, Element], name: str, convert: Callable[[str], _T]) -> _T | None:
    """The `value` of the part of that name, `None` without one."""
    element = parts.get(name)
    return None if element is None else value(element, convert)


def empty(element: Element, *allowed: str) -> dict[str, str]:
    """The attributes of an element that holds nothing."""
    given = attributes(element, *allowed)
    children(element, frozenset())
    return given


def attribute(element: Element, given: Mapping[str, str], name: str, convert: Callable[[str], _T]) -> _T:
    """What `convert` makes of an attribute that must be among the `given`."""
    text = given.get(name)
    if text is None:
        refuse(element, f"{shown(element)} lacks its attribute {name!r}")
    return converted(element, text, convert, name=name)
