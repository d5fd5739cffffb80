"""Intents: what is about to become of an item, as the journal keeps it.

An intent does not describe steps but the outcome: where the item is going to be, by what name and
with which definition. Recovery can therefore fold the intents of one item into the last of them and
make that one true, whatever part of the steps had been done.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from uuid import UUID
from xml.sax.saxutils import quoteattr

from lxml import etree

from fspoolfs.errors import CorruptError, FspoolError
from fspoolfs.model import documents, formatting
from fspoolfs.model.definitions import ItemDefinition


class Outcome(enum.StrEnum):
    """What an item will be when the operation is done."""

    #: In its place, with this definition: create, adopt, update, rename, undelete, clone.
    PLACED = "placed"
    #: In the trash.
    TRASHED = "trashed"
    #: Gone.
    PURGED = "purged"
    #: Never there: a creation that failed after it was journalled.
    ABORTED = "aborted"
    #: As it was: its snapshots are others, which the hosts that share the pool are to hear of.
    NOTED = "noted"


_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One record of the journal.

    `definition` is the item's definition afterwards (or the last one it had). `was_name` and
    `was_path` tell where it was before, empty when it was nowhere. `fresh` marks a creation: its
    empty directory may be made again. `adopted` marks a directory that existed before and is never
    removed by an undo. `record` is the file that holds the definition while the item is in the
    trash: where it will be, or was until now. `restored` identifies the directory that is to be in
    the item's place, of those that may be there around a rollback; `kept` is where the other goes.
    `mends` marks a definition that takes the place of one that cannot be read: that is not this
    change's, and stays where the change is undone.
    """

    outcome: Outcome
    uuid: UUID
    definition: ItemDefinition
    was_name: str = ""
    was_path: str = ""
    fresh: bool = False
    adopted: bool = False
    record: str = ""
    restored: str = ""
    kept: str = ""
    mends: bool = False

    def encode(self, document: bytes | None = None) -> bytes:
        """The record's payload; `document` is the formatted definition where the caller has it."""
        if document is None:
            document = formatting.format_item(self.definition)
        flags = ' fresh="yes"' if self.fresh else ' adopted="yes"' if self.adopted else ""
        flags += ' mends="yes"' if self.mends else ""
        was = (
            f" was-name={quoteattr(self.was_name)} was-path={quoteattr(self.was_path)}"
            if self.was_name or self.was_path
            else ""
        )
        rest = "".join(
            f" {name}={quoteattr(value)}"
            for name, value in (("record", self.record), ("restored", self.restored), ("kept", self.kept))
            if value
        )
        head = f'<intent outcome="{self.outcome.value}" uuid="{self.uuid}"{was}{flags}{rest}>\n'
        return head.encode() + document + b"</intent>\n"

    @classmethod
    def decode(cls, payload: bytes) -> Intent:
        """Raises `CorruptError` for what `encode` did not write."""
        try:
            element = etree.fromstring(payload, _PARSER)
            if element.tag != "intent" or len(element) != 1:
                raise CorruptError("an intent holds one definition")
            definition = etree.tostring(element[0], encoding="utf-8", with_tail=False)
            return cls(
                outcome=Outcome(element.get("outcome", "")),
                uuid=UUID(element.get("uuid", "")),
                definition=documents.parse_item(definition),
                was_name=element.get("was-name", ""),
                was_path=element.get("was-path", ""),
                fresh=element.get("fresh") == "yes",
                adopted=element.get("adopted") == "yes",
                record=element.get("record", ""),
                restored=element.get("restored", ""),
                kept=element.get("kept", ""),
                mends=element.get("mends") == "yes",
            )
        except (ValueError, etree.XMLSyntaxError, FspoolError) as error:
            raise CorruptError(f"an intent that cannot be understood: {error}") from error
