"""What a start makes of the journal's last records, beyond what crashes at every change show."""

from __future__ import annotations

import logging
from uuid import UUID

import pytest

from fspoolfs.backends import layout
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.errors import UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service import identity, recovery
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.journal import Record

WEB, DB = UUID(int=1), UUID(int=2)


class Choosy(GenericFileSystem):
    """Refuses the limits of one item."""

    def update(self, path: str, old: ItemDefinition, new: ItemDefinition) -> None:
        if new.name == "web":
            raise UnsupportedError("item web: its directory cannot be limited")
        super().update(path, old, new)


@pytest.fixture
def root() -> MemoryRoot:
    made = MemoryRoot(MemoryTree(), "/root")
    identity.claim(made, identity.Identity(uuid=UUID(int=9), name="tank"))
    return made


def placed(uuid: UUID, name: str) -> bytes:
    return Intent(
        outcome=Outcome.PLACED, uuid=uuid, definition=ItemDefinition(name=name, uuid=uuid), fresh=True
    ).encode()


def test_an_item_whose_limits_are_refused_is_told_of_and_keeps_none_of_the_others(
    root: MemoryRoot, caplog: pytest.LogCaptureFixture
) -> None:
    root.make_directory("web", mode=0o755)
    root.make_directory("db", mode=0o755)
    records = [Record(1, placed(WEB, "web")), Record(2, placed(DB, "db"))]
    with caplog.at_level(logging.ERROR):
        troubles = recovery.recover(root, Choosy(root), records)
    assert {uuid: str(error) for uuid, error in troubles.items()} == {
        WEB: "item web: its directory cannot be limited"
    }
    assert sorted(root.names(layout.ITEMS)) == ["db.xml", "web.xml"]
    assert "item web" in caplog.text


def test_what_a_rollback_restored_is_found_wherever_a_crash_left_it(root: MemoryRoot) -> None:
    """Exchanged or not, kept or not: the identity tells the directories apart, their names do not."""
    filesystem = GenericFileSystem(root)
    kept = layout.snapshot(WEB, "1.before-rollback")
    for found_at, old_at in (
        (layout.rollback(WEB), "web"),
        ("web", layout.rollback(WEB)),
        ("web", kept),
        (layout.rollback(WEB), kept),
    ):
        root.make_directory(layout.snapshots(WEB), mode=layout.PASSABLE)
        for place, content in ((found_at, "restored"), (old_at, "old")):
            root.make_directory(place, mode=0o755)
            root.write(f"{place}/{content}", b"", replace=False, durable=False)
        intent = Intent(
            outcome=Outcome.PLACED,
            uuid=WEB,
            definition=ItemDefinition(name="web", uuid=WEB),
            restored=filesystem.identify(found_at),
            kept=kept,
        )
        for _ in range(2):
            recovery.recover(root, filesystem, [Record(1, intent.encode())])
            assert root.names("web") == ["restored"]
            assert root.names(kept) == ["old"]
            assert root.names(layout.STAGING) == []
        for name in root.names(layout.PURGE):
            root.remove_directory(f"{layout.PURGE}/{name}")
        for place, content in (("web", "restored"), (kept, "old")):
            root.remove_file(f"{place}/{content}")
            root.remove_directory(place)
        root.remove_directory(layout.snapshots(WEB))
        root.remove_file(layout.definition("web"))
