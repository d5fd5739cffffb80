"""What every measurement is given: the place, the counts, the program, and ways to start things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer import LimitedStore, Lister, Starter, VolumeStore
from benchmarks.scratch import Scratch
from benchmarks.storage import BareStorage
from benchmarks.table import Row
from benchmarks.trees import ControlTree, Installation, start_null


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is done: `*_turns` count how often things take turns, the rest how much a turn does."""

    item_turns: int
    client_turns: int
    items_per_client: int
    status_turns: int
    list_turns: int
    list_items: int
    scale_items: int
    data_turns: int
    data_milliseconds: int
    hang_turns: int
    hang_calls: int
    capacity_turns: int
    snapshot_turns: int
    limited_peer_turns: int
    reflink_turns: int
    copy_turns: int
    usage_turns: int
    usage_items: int
    delete_turns: int
    purge_rounds: int
    purge_files: int
    volume_turns: int
    volume_pools: int
    growth_pools: tuple[int, ...]
    growth_items: tuple[int, ...]
    growth_shared: tuple[int, ...]
    growth_seconds: float
    network_turns: int
    network_items: int
    network_lists: int
    stall_rounds: int
    stall_calls: int


FULL = Effort(
    item_turns=300,
    client_turns=7,
    items_per_client=50,
    status_turns=2000,
    list_turns=7,
    list_items=10_000,
    scale_items=100_000,
    data_turns=21,
    data_milliseconds=300,
    hang_turns=30,
    hang_calls=40,
    capacity_turns=300,
    snapshot_turns=150,
    limited_peer_turns=50,
    reflink_turns=15,
    copy_turns=5,
    usage_turns=3,
    usage_items=10_000,
    delete_turns=100,
    purge_rounds=3,
    purge_files=100_000,
    volume_turns=40,
    volume_pools=100,
    growth_pools=(10, 100, 1000),
    growth_items=(1000, 10_000, 100_000),
    growth_shared=(10, 100, 300),
    growth_seconds=20.0,
    network_turns=40,
    network_items=10_000,
    network_lists=3,
    stall_rounds=3,
    stall_calls=300,
)

QUICK = Effort(
    item_turns=60,
    client_turns=3,
    items_per_client=25,
    status_turns=300,
    list_turns=3,
    list_items=10_000,
    scale_items=10_000,
    data_turns=7,
    data_milliseconds=300,
    hang_turns=12,
    hang_calls=30,
    capacity_turns=60,
    snapshot_turns=40,
    limited_peer_turns=15,
    reflink_turns=5,
    copy_turns=2,
    usage_turns=2,
    usage_items=10_000,
    delete_turns=30,
    purge_rounds=1,
    purge_files=100_000,
    volume_turns=10,
    volume_pools=30,
    growth_pools=(10, 100),
    growth_items=(1000, 10_000),
    growth_shared=(10, 100),
    growth_seconds=15.0,
    network_turns=12,
    network_items=2000,
    network_lists=3,
    stall_rounds=2,
    stall_calls=300,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the benchmark.

    `stores`, `listers` and `limited` are the peers, none by default; `program` is another fspoolfs
    than this checkout's.
    """

    scratch: Scratch
    effort: Effort
    program: Path | None = None
    stores: Sequence[Starter[VolumeStore]] = ()
    listers: Sequence[Starter[Lister]] = ()
    limited: Sequence[Starter[LimitedStore]] = ()

    def install(self) -> Installation:
        return Installation(self.program, self.scratch)

    @contextmanager
    def subject(self, *, root: Path | None = None, more: str = "") -> Iterator[ControlTree]:
        """fspoolfs, fresh, with one active pool: in its default place, or at `root` with `more` defined."""
        tree = self.install().start()
        with tree.server:
            tree.wait_until_mounted()
            if root is None:
                tree.add_pool()
            else:
                tree.define_pool(root, more=more)
            yield tree

    @contextmanager
    def floor(self, *, items: int = 0) -> Iterator[ControlTree]:
        """The null tree, with `items` items in its one pool."""
        tree = start_null(self.scratch, items=items)
        with tree.server:
            tree.wait_until_active()
            yield tree

    def storage(self) -> BareStorage:
        return BareStorage(self.scratch.directory("bare"))


#: Measures one thing; yields a row as soon as it is known.
Measurement = Callable[[Run], Iterable[Row]]
