"""Random sequences of requests, restarts and kills against a model of the tree."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mount.control import refused, request, value
from support.daemon import Daemon, MakeDaemon
from support.needs import needs_fuse, needs_root
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

POOLS = st.integers(0, 1)
NAMES = st.sampled_from(["a", "b", "c-d", "\N{GREEK SMALL LETTER OMEGA}"])
#: Beginning is more likely than ending, so that pools are active most of the time.
LIFE = st.sampled_from(
    ["start", "start", "start", "define", "define", "undefine", "stop", "destroy", "delete", "refresh"]
)
#: Five requests of six name something that is there.
EXISTS = st.sampled_from([True] * 5 + [False])
MODES = st.sampled_from([0o700, 0o755, 0o2750, 0o1777])
#: How many sequences are tried, and how long they are.
SEQUENCES, STEPS = 20, 40
#: Restarts take longer than all the rest.
RESTARTS = 2
_numbers = count(1)


@dataclass(frozen=True)
class Item:
    """What must be seen of an item; `marker` is the content of a file in it."""

    mode: int
    marker: str
    uuid: str = ""


@dataclass
class Pool:
    """What must be seen of a pool. Its items are kept while it is inactive, and when it is undefined."""

    name: str
    defined: bool = False
    active: bool = False
    built: bool = False
    items: dict[str, Item] = field(default_factory=dict)
    trash: dict[str, Item] = field(default_factory=dict)

    def why_not(self) -> int:
        """With which errno everything about its items is refused; 0 when nothing is."""
        if not self.defined:
            return errno.ENOENT
        return 0 if self.active else errno.ENOMEDIUM


class ControlTreeMachine(RuleBasedStateMachine):
    """One sequence; its pools have names that no other sequence has."""

    daemon: ClassVar[Daemon]
    #: Whether there is real storage, which outlives the daemon and can be written to.
    real: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        number = next(_numbers)
        self.pools = [Pool(f"p{number}x{index}") for index in range(2)]
        self.restarts = 0

    # -- help -------------------------------------------------------------------------------------

    def path(self, pool: Pool, *inside: str) -> Path:
        return self.daemon.mount.joinpath("pools", pool.name, *inside)

    def expect(self, number: int, act: Callable[[], object]) -> bool:
        """Do it; it must fail with errno `number`, or succeed when that is 0. Whether it succeeded."""
        if number:
            with refused(number):
                act()
        else:
            act()
        return number == 0

    def appears(self, pool: Pool, name: str, item: Item) -> None:
        """A new item: leave a marker in it, and learn its uuid."""
        uuid = value(self.path(pool, "items", name, "uuid"))
        assert uuid not in {one.uuid for one in [*pool.items.values(), *pool.trash.values()]}
        if self.real:
            self.path(pool, "items", name, "data", "marker").write_text(item.marker)
        pool.items[name] = replace(item, uuid=uuid)

    # -- pools ------------------------------------------------------------------------------------

    @initialize()
    def start_all(self) -> None:
        """Most of what can happen happens in active pools."""
        for index in range(2):
            self.define_pool(index)
            self.start(index)

    @rule(index=POOLS, verb=LIFE)
    def live(self, index: int, verb: str) -> None:
        acts: dict[str, Callable[[int], None]] = {
            "define": self.define_pool,
            "undefine": self.undefine_pool,
            "start": self.start,
            "refresh": self.refresh,
            "delete": self.delete,
        }
        if verb in acts:
            acts[verb](index)
        else:
            self.stop(index, verb)

    def define_pool(self, index: int) -> None:
        pool = self.pools[index]
        if self.expect(errno.EEXIST if pool.defined else 0, self.path(pool).mkdir):
            pool.defined = True

    def undefine_pool(self, index: int) -> None:
        pool = self.pools[index]
        refusal = errno.ENOENT if not pool.defined else errno.EBUSY if pool.active else 0
        if self.expect(refusal, self.path(pool).rmdir):
            pool.defined = False

    def start(self, index: int) -> None:
        pool = self.pools[index]
        refusal = errno.ENOENT if not pool.defined else errno.EBUSY if pool.active else 0
        if self.expect(refusal, lambda: request(self.path(pool, "status"), "start build")):
            pool.active = pool.built = True

    def stop(self, index: int, verb: str) -> None:
        pool = self.pools[index]
        if self.expect(pool.why_not(), lambda: request(self.path(pool, "status"), verb)):
            pool.active = False

    def refresh(self, index: int) -> None:
        pool = self.pools[index]
        self.expect(pool.why_not(), lambda: request(self.path(pool, "status"), "refresh"))

    def delete(self, index: int) -> None:
        """Only a pool that holds nothing can be deleted."""
        pool = self.pools[index]
        holds = bool(pool.items or pool.trash)
        refusal = (
            errno.ENOENT
            if not pool.defined
            else errno.EBUSY
            if pool.active
            else errno.ENOTEMPTY
            if holds
            else 0
        )
        if self.expect(refusal, lambda: request(self.path(pool, "status"), "delete")):
            pool.built = False

    # -- items ------------------------------------------------------------------------------------

    @rule(index=POOLS, name=NAMES, mode=MODES)
    def create(self, index: int, name: str, mode: int) -> None:
        pool = self.pools[index]
        refusal = pool.why_not() or (errno.EEXIST if name in pool.items else 0)
        # mkdir(2) takes no other bits than these, and what the mask leaves.
        if self.expect(refusal, lambda: self.path(pool, "items", name).mkdir(mode & 0o1777)):
            self.appears(pool, name, Item(mode & 0o1777 & ~_mask(), f"{pool.name} {next(_numbers)}"))

    @rule(index=POOLS, name=NAMES, mode=MODES)
    def define_item(self, index: int, name: str, mode: int) -> None:
        """Creates it, or changes the one of that name."""
        pool = self.pools[index]
        document = (
            f"<fs><name>{name}</name><source fspool='{pool.name}'/>"
            f"<permissions><mode>{mode:04o}</mode></permissions></fs>"
        )
        if self.expect(pool.why_not(), lambda: request(self.daemon.mount / "define", document)):
            if name in pool.items:
                pool.items[name] = replace(pool.items[name], mode=mode)
            else:
                self.appears(pool, name, Item(mode, f"{pool.name} {next(_numbers)}"))

    def pick(self, pool: Pool, data: st.DataObject) -> str:
        """The name of an item, and now and then one that there is not."""
        is_there = bool(pool.items) and data.draw(EXISTS)
        return data.draw(st.sampled_from(sorted(pool.items)) if is_there else NAMES)

    def missing(self, pool: Pool, name: str) -> int:
        return errno.ENOENT if pool.why_not() or name not in pool.items else 0

    @rule(index=POOLS, mode=MODES, data=st.data())
    def chmod(self, index: int, mode: int, data: st.DataObject) -> None:
        pool = self.pools[index]
        name = self.pick(pool, data)
        if self.expect(self.missing(pool, name), lambda: self.path(pool, "items", name).chmod(mode)):
            pool.items[name] = replace(pool.items[name], mode=mode)

    @rule(index=POOLS, data=st.data())
    def remove(self, index: int, data: st.DataObject) -> None:
        pool = self.pools[index]
        name = self.pick(pool, data)
        if not self.expect(self.missing(pool, name), self.path(pool, "items", name).rmdir):
            return
        item = pool.items.pop(name)
        new = set(os.listdir(self.path(pool, "trash"))) - set(pool.trash)
        assert len(new) == 1
        trash_name = new.pop()
        pattern = re.escape(name) + ("" if name not in pool.trash else r"@\d{8}-\d{6}(-\d+)?")
        assert re.fullmatch(pattern, trash_name)
        pool.trash[trash_name] = item

    @rule(index=POOLS, new=NAMES, data=st.data())
    def rename(self, index: int, new: str, data: st.DataObject) -> None:
        pool = self.pools[index]
        name = self.pick(pool, data)
        refusal = self.missing(pool, name) or (errno.EEXIST if new in pool.items and new != name else 0)
        source, target = self.path(pool, "items", name), self.path(pool, "items", new)
        if self.expect(refusal, lambda: source.rename(target)):
            pool.items[new] = pool.items.pop(name)

    @rule(index=POOLS, new=NAMES, data=st.data())
    def clone(self, index: int, new: str, data: st.DataObject) -> None:
        pool = self.pools[index]
        name = self.pick(pool, data)
        refusal = self.missing(pool, name) or (errno.EEXIST if new in pool.items else 0)
        if self.expect(refusal, lambda: request(self.path(pool, "items", name, "status"), f"clone {new}")):
            item = pool.items[name]
            self.appears(pool, new, replace(item, marker=f"{pool.name} {next(_numbers)}"))

    @rule(index=POOLS, data=st.data())
    def move_to_the_other_pool(self, index: int, data: st.DataObject) -> None:
        pool, other = self.pools[index], self.pools[1 - index]
        name = self.pick(pool, data)
        if self.missing(pool, name) or not other.defined:
            return
        target = self.path(other, "items", name)
        self.expect(errno.EPERM, lambda: self.path(pool, "items", name).rename(target))

    # -- trash ------------------------------------------------------------------------------------

    @rule(index=POOLS, new=NAMES, data=st.data())
    @precondition(lambda self: any(pool.active and pool.trash for pool in self.pools))
    def undelete(self, index: int, new: str, data: st.DataObject) -> None:
        pool = self.pools[index]
        if not (pool.active and pool.trash):
            pool = self.pools[1 - index]
        name = data.draw(st.sampled_from(sorted(pool.trash)))
        refusal = errno.EEXIST if new in pool.items else 0
        source, target = self.path(pool, "trash", name), self.path(pool, "items", new)
        if self.expect(refusal, lambda: source.rename(target)):
            pool.items[new] = pool.trash.pop(name)

    @rule(index=POOLS, data=st.data())
    @precondition(lambda self: any(pool.active and pool.trash for pool in self.pools))
    def purge(self, index: int, data: st.DataObject) -> None:
        pool = self.pools[index]
        if not (pool.active and pool.trash):
            pool = self.pools[1 - index]
        name = data.draw(st.sampled_from(sorted(pool.trash)))
        self.expect(0, self.path(pool, "trash", name).rmdir)
        del pool.trash[name]

    # -- the daemon -------------------------------------------------------------------------------

    @rule(kill=st.booleans())
    @precondition(lambda self: self.real and self.restarts < RESTARTS)
    def restart(self, kill: bool) -> None:
        self.restarts += 1
        if kill:
            self.daemon.kill(unmount=False)
        self.daemon.restart()
        for pool in self.pools:
            if pool.defined and pool.active:
                status = self.path(pool, "status")
                eventually(lambda: state(status) == "active", what=f"{status} is active")  # noqa: B023

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def the_tree_shows_what_the_model_has(self) -> None:
        defined = {pool.name for pool in self.pools if pool.defined}
        shown = {name for name in os.listdir(self.daemon.mount / "pools") if name in self._names()}
        assert shown == defined
        for pool in self.pools:
            if not pool.defined:
                continue
            assert state(self.path(pool, "status")) == ("active" if pool.active else "inactive")
            items = pool.items if pool.active else {}
            assert set(os.listdir(self.path(pool, "items"))) == set(items)
            for name, item in items.items():
                self.check_item(pool, name, item)
            trash = pool.trash if pool.active else {}
            assert set(os.listdir(self.path(pool, "trash"))) == set(trash)
            for name, item in trash.items():
                assert value(self.path(pool, "trash", name, "uuid")) == item.uuid

    def check_item(self, pool: Pool, name: str, item: Item) -> None:
        directory = self.path(pool, "items", name)
        assert value(directory / "uuid") == item.uuid
        assert value(directory / "status") == "ready"
        assert stat.S_IMODE(directory.stat().st_mode) == item.mode
        if self.real:
            assert stat.S_IMODE((directory / "data").stat().st_mode) == item.mode
            assert (directory / "data" / "marker").read_text() == item.marker

    def _names(self) -> set[str]:
        return {pool.name for pool in self.pools}

    @invariant()
    def the_storage_holds_what_the_model_has(self) -> None:
        if not self.real:
            return
        for pool in self.pools:
            root = self.daemon.storage / "pools" / pool.name
            if pool.built and root.exists() and (root / ".fspool").exists():
                assert set(os.listdir(root)) == set(pool.items) | {".fspool"}
                definitions = os.listdir(root / ".fspool" / "items")
                assert {name.removesuffix(".xml") for name in definitions} == set(pool.items)

    def teardown(self) -> None:
        """Leave nothing that the next sequence's restarts would have to start."""
        for pool in self.pools:
            with suppress(OSError):
                request(self.path(pool, "status"), "stop")
            with suppress(FileNotFoundError):
                self.path(pool).rmdir()


def state(status: Path) -> str:
    """The first word of a status; what is purged in the background may stand behind it."""
    return value(status).split()[0]


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture(params=["real", "simulated"])
def machine(request: pytest.FixtureRequest, make_daemon: MakeDaemon) -> type[ControlTreeMachine]:
    real = request.param == "real"

    class Machine(ControlTreeMachine):
        pass

    Machine.daemon = make_daemon(*([] if real else ["--sim"]))
    Machine.real = real
    return Machine


def test_every_sequence_of_requests_leaves_the_tree_that_the_model_predicts(
    machine: type[ControlTreeMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # A failing sequence is shown as it was found: shrinking it takes too long.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
