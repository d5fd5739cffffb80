"""The screen of `top`: pools above, items below, as many as there is room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fspoolfs.cli import output, sampling
from fspoolfs.cli.sampling import Detail, ItemSample, Key, Rates, Sample
from fspoolfs.names import one_line

#: Lines that are no rows: the title, two heads, the line between.
_FRAME: Final = 5
_BAR: Final = 16
#: Parts of a capacity from which a bar is yellow, and red.
_FULL, _ALMOST = 0.95, 0.8
_COLOURS: Final[Mapping[str, str]] = {
    "active": "green",
    "ready": "green",
    "failed": "red",
    "missing": "red",
    "stalled": "yellow",
    "inactive": "dim",
}


def room(console: Console, pools: int) -> int:
    """How many items fit below so many pools."""
    return max(console.height - pools - _FRAME, 1)


def render(
    where: str,
    now: Sample,
    change: Rates,
    items: Sequence[ItemSample],
    known: Mapping[Key, Detail],
    order: str,
) -> RenderableType:
    """All of it; `items` are those that are shown."""
    title = Text(
        f"{one_line(where)}: {len(now.pools)} pools, {len(now.items)} items by {sampling.ORDERS[order]}"
    )
    keys = "  ".join(f"{key} {name}" for key, name in sampling.ORDERS.items())
    title.append(f"   {keys}  q quit", style="dim")
    title.no_wrap = True
    return Group(title, _pools(now, change), Text(""), _items(change, items, known))


def _table(*titles: str, right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in titles:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table


def _pools(now: Sample, change: Rates) -> Table:
    numbers = ("Used", "Size", "Growth", "Read", "Written", "Items")
    table = _table("Pool", "State", "Full", *numbers, "Job", right=numbers)
    for pool in now.pools.values():
        table.add_row(
            Text(one_line(pool.name)),
            _state(pool.state),
            _bar(sampling.part(pool.allocation, pool.capacity)),
            output.size(pool.allocation),
            output.size(pool.capacity),
            speed(change.pools.get(pool.name)),
            speed(change.reading.get(pool.name)),
            speed(change.writing.get(pool.name)),
            str(pool.items),
            Text(pool.job),
        )
    return table


def _items(change: Rates, items: Sequence[ItemSample], known: Mapping[Key, Detail]) -> Table:
    numbers = ("Used", "Capacity", "Growth", "Users")
    table = _table("Item", "State", "Full", *numbers, "Job", right=numbers)
    for item in items:
        detail = known.get(item.key, Detail())
        table.add_row(
            Text(one_line(f"{item.pool}/{item.name}")),
            _state(detail.state),
            _bar(sampling.part(item.allocation, item.capacity)),
            output.size(item.allocation),
            output.size(item.capacity),
            speed(change.items.get(item.key)),
            "-" if detail.users is None else str(detail.users),
            Text(detail.job),
        )
    return table


def _state(state: str) -> Text:
    return Text(state or "-", style=_COLOURS.get(state, ""))


def _bar(part: float | None) -> RenderableType:
    if part is None:
        return Text("-")
    style = "red" if part >= _FULL else "yellow" if part >= _ALMOST else "green"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=1.0, completed=part, width=_BAR, complete_style=style, finished_style=style),
        f"{int(part * 100):3}%",
    )
    return bar


def speed(rate: float | None) -> str:
    """Bytes per second, with a sign where something has become less."""
    if rate is None:
        return "-"
    sign = "-" if rate <= -1 else ""
    return f"{sign}{output.size(abs(int(rate)))}/s"
