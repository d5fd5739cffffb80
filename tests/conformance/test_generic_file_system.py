"""What is peculiar to the generic file system: the calls that it makes, and what it promises."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager, nullcontext

import pytest

from conformance.cases import item
from fspoolfs.backends import generic
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.memory import MemoryRoot, MemoryTree


class Witness:
    """Notes each call on a root, and the mode of `watched` at each."""

    def __init__(self, tree: MemoryTree, watched: str) -> None:
        self._tree = tree
        self._watched = watched
        self.calls: list[str] = []
        self.modes: list[int] = []

    def enter(self, operation: str, path: str) -> None:
        self.calls.append(operation)
        if self._watched in self._tree.names(""):
            self.modes.append(stat.S_IMODE(self._tree.info(self._watched).mode))

    def change(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def witness() -> Witness:
    return Witness(MemoryTree(), "web")


@pytest.fixture
def filesystem(witness: Witness) -> GenericFileSystem:
    return generic.probe(MemoryRoot(witness._tree, "/simulated", interceptor=witness))


class ReflinkRoot(MemoryRoot):
    def supports_reflink(self) -> bool:
        return True


def test_item_for_somebody_else_is_closed_until_it_is_his(
    filesystem: GenericFileSystem, witness: Witness
) -> None:
    filesystem.create("web", item(0o777, owner=4711, group=4711))
    assert witness.calls == ["make_directory", "set_attributes"]
    assert witness.modes == [0o700]


def test_item_of_the_daemons_user_takes_one_call(filesystem: GenericFileSystem, witness: Witness) -> None:
    filesystem.create("web", item(0o750))
    assert witness.calls == ["make_directory"]


def test_item_that_names_the_daemons_user_is_looked_at(
    filesystem: GenericFileSystem, witness: Witness
) -> None:
    filesystem.create("web", item(0o750, os.geteuid(), os.getegid()))
    assert witness.calls == ["make_directory", "stat"]


def test_item_without_permissions_lets_others_pass(filesystem: GenericFileSystem) -> None:
    filesystem.create("web", item())
    assert stat.S_IMODE(filesystem.root.stat("web").mode) == generic.DEFAULT_MODE


def test_moving_takes_one_call(filesystem: GenericFileSystem, witness: Witness) -> None:
    filesystem.create("web", item())
    witness.calls.clear()
    filesystem.move("web", "db")
    assert witness.calls == ["rename"]


def test_reflink_is_what_the_root_says() -> None:
    def reflink(root: MemoryRoot) -> str:
        return {feature.name: feature.reason for feature in generic.probe(root).features()}["reflink"]

    assert "does not tell" in reflink(MemoryRoot(MemoryTree(), "/simulated"))
    assert reflink(ReflinkRoot(MemoryTree(), "/simulated")) == ""


def test_only_copies_are_offered_without_reflink(filesystem: GenericFileSystem) -> None:
    offered = {feature.name: feature.note for feature in filesystem.features() if feature.usable}
    assert offered == dict.fromkeys(("snapshot", "clone"), "copies the whole item")
