"""A document that arrives in pieces: checked for being well formed while it is written.

So the write that makes it malformed is the one that fails, and the write that closes the root
element is the one that can commit. Knows nothing of what a document means; `documents` does.
"""

from __future__ import annotations

import codecs
from typing import Final
from xml.parsers import expat

from fspoolfs.errors import DocumentError, FspoolError, TooLargeError
from fspoolfs.model.elements import MAX_DEPTH, MAX_DOCUMENT, doctype_error, foreign_error
from fspoolfs.model.tokens import DOCTYPE, Tokens

# Between the namespace and the local part of a name; a character that no document can hold.
_SEPARATOR: Final = "\x01"
_WHITE: Final = b" \t\r\n"
# What may stand before the first "<" in UTF-8 and UTF-16: byte order marks, halves of characters.
_BEFORE_MARKUP: Final = _WHITE + b"\xef\xbb\xbf\xfe\xff\0"
# How documents in UTF-16 begin, with a byte order mark or without.
_WIDE: Final = {
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}


class DocumentFeed:
    """Collects the pieces of one document and tells when it is whole."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._started = False
        self._complete = False
        self._markup = False
        self._error: FspoolError | None = None
        # The open elements, outermost first: name and line.
        self._open: list[tuple[str, int]] = []
        self._tokens = Tokens()
        self._wide: codecs.IncrementalDecoder | None = None
        self._parser = self._make_parser(None)

    def _make_parser(self, encoding: str | None) -> expat.XMLParserType:
        parser = expat.ParserCreate(encoding, namespace_separator=_SEPARATOR)
        # From expat 2.6.0 on a piece may otherwise be left unparsed until more has come.
        if hasattr(parser, "SetReparseDeferralEnabled"):
            parser.SetReparseDeferralEnabled(False)
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CommentHandler = self._on_comment
        parser.ProcessingInstructionHandler = self._on_instruction
        return parser

    @property
    def started(self) -> bool:
        """Whether anything but white space was fed."""
        return self._started

    @property
    def complete(self) -> bool:
        """Whether the root element is closed."""
        return self._complete

    def data(self) -> bytes:
        """All that was fed."""
        return bytes(self._data)

    def feed(self, data: bytes) -> bool:
        """Take the next piece; true once the root element is closed.

        After that, only white space may follow. Raises `DocumentError` for malformed text and
        document types, `TooLargeError` above 1 MiB; after an error, every call raises it again.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        try:
            self._take(data)
        except FspoolError as error:
            self._error = error
            raise
        return self._complete

    def unfinished(self) -> DocumentError:
        """What is wrong with a document that ends here, before it is complete."""
        line = self._parser.CurrentLineNumber
        if not self._open:
            return DocumentError("the document ends before its first element", line=line)
        name, opened = self._open[-1]
        return DocumentError(f"the document ends inside <{name}>, which line {opened} begins", line=line)

    def _take(self, data: bytes) -> None:
        if len(self._data) + len(data) > MAX_DOCUMENT:
            raise TooLargeError(f"the document is larger than the {MAX_DOCUMENT} bytes that are accepted")
        self._data += data
        self._started = self._started or bool(data.strip(_WHITE))
        if not self._markup:
            self._find_markup(data)
        whole = self._tokens.take(self._in_ascii(data))
        try:
            self._parser.Parse(whole, False)
        except expat.ExpatError as error:
            raise self._malformed(error) from None
        except (LookupError, ValueError) as error:
            # pyexpat looks up the encodings that expat does not know among Python's.
            raise DocumentError(f"the encoding cannot be read: {error}", line=1) from None
        if self._tokens.holds(DOCTYPE):
            raise doctype_error(self._parser.CurrentLineNumber)

    def _in_ascii(self, data: bytes) -> bytes:
        """`data` in an encoding that extends ASCII: UTF-16 becomes UTF-8, all else stays as it is."""
        if len(self._data) - len(data) < 2 <= len(self._data):
            encoding = _WIDE.get(bytes(self._data[:2]))
            if encoding is not None:
                self._wide = codecs.getincrementaldecoder(encoding)()
                self._parser = self._make_parser("utf-8")
            data = bytes(self._data)
        elif len(self._data) < 2:
            return b""
        if self._wide is None:
            return data
        try:
            return self._wide.decode(data).encode()
        except UnicodeDecodeError as error:
            line = self._parser.CurrentLineNumber
            raise DocumentError(f"malformed XML: {error.reason}", line=line) from None

    def _find_markup(self, data: bytes) -> None:
        """Refuse text that begins as no document does; expat would wait for the end of its first word."""
        begun = data.lstrip(_BEFORE_MARKUP)
        self._markup = bool(begun)
        if begun and not begun.startswith(b"<"):
            raise foreign_error(1 + self._data.count(b"\n", 0, len(self._data) - len(begun)))

    def _malformed(self, error: expat.ExpatError) -> DocumentError:
        if self._complete:
            return self._trailing(error.lineno)
        fault = expat.ErrorString(error.code) or "not well-formed"
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_TAG_MISMATCH] and self._open:
            name, opened = self._open[-1]
            fault = f"{fault}; <{name}>, which line {opened} begins, is still open"
        return DocumentError(f"malformed XML: {fault}", line=error.lineno)

    @staticmethod
    def _trailing(line: int) -> DocumentError:
        return DocumentError("only white space may follow the end of the document", line=line)

    def _on_start(self, name: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        self._open.append((name.rpartition(_SEPARATOR)[2][:60], line))
        if len(self._open) > MAX_DEPTH:
            raise DocumentError(f"elements stand in each other more than {MAX_DEPTH} deep", line=line)

    def _on_end(self, name: str) -> None:
        self._open.pop()
        self._complete = not self._open

    def _on_comment(self, text: str) -> None:
        if self._complete:
            raise self._trailing(self._parser.CurrentLineNumber)

    def _on_instruction(self, target: str, text: str) -> None:
        if self._complete:
            raise self._trailing(self._parser.CurrentLineNumber)
