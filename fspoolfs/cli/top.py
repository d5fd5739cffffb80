"""The command `top`: pools and items as they are, again and again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from fspoolfs.cli import output, sampling
from fspoolfs.cli.client import Tree
from fspoolfs.cli.params import json_option, tree
from fspoolfs.cli.sampling import ItemSample, Rates, Sample
from fspoolfs.cli.style import Command


@click.command("top", cls=Command)
@click.option(
    "--delay", "-d", type=click.FloatRange(min=0.1), default=2.0, metavar="SECONDS", help="Between looks: 2."
)
@click.option(
    "--sort", type=click.Choice(list(sampling.ORDERS.values())), default="used", help="The order of items."
)
@click.option("--batch", "-b", is_flag=True, help="Print one look after the other, for programs.")
@click.option("--count", "-n", type=click.IntRange(min=1), metavar="NUMBER", help="End after so many looks.")
@click.option("--once", is_flag=True, help="Print one look: --batch -n 1.")
@click.option(
    "--lines", "-l", type=click.IntRange(min=0), metavar="NUMBER", help="Show so many items at most."
)
@json_option
def top(
    *, delay: float, sort: str, batch: bool, count: int | None, once: bool, lines: int | None, as_json: bool
) -> None:
    """Show pools and items: how full they are, what they grow by, what their disks do, users and jobs.

    Keys: n, u, g, p sort the items by name, by what they hold, by growth, by part of the capacity; q ends.
    With --json, each look is one line.
    """
    if once and count is not None:
        raise click.UsageError("--once and --count exclude each other")
    order = next(key for key, name in sampling.ORDERS.items() if name == sort)
    found = tree()
    try:
        if once or batch or as_json:
            _print(found, order, delay, 1 if once else count, lines, as_json=as_json)
        elif sys.stdout.isatty():
            _live(found, order, delay, count, lines)
        else:
            raise click.UsageError("a live screen needs a terminal; use --batch or --once")
    except KeyboardInterrupt:
        # This is how it is meant to end.
        return


def _print(
    found: Tree, order: str, delay: float, count: int | None, lines: int | None, *, as_json: bool
) -> None:
    before: Sample | None = None
    looks = 0
    while count is None or looks < count:
        if looks:
            time.sleep(delay)
        now = sampling.take(found)
        change = sampling.rates(before, now)
        items = sampling.ordered(now, change, order)[:lines]
        if as_json:
            click.echo(json.dumps(_document(found, now, change, items), ensure_ascii=False))
        else:
            if looks:
                click.echo()
            _show(found, now, change, items)
        sys.stdout.flush()
        before, looks = now, looks + 1


def _live(found: Tree, order: str, delay: float, count: int | None, lines: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from fspoolfs.cli import screen
    from fspoolfs.cli.keyboard import keyboard

    console = Console()
    before: Sample | None = None
    looks = 0
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while count is None or looks < count:
            now = sampling.take(found)
            change = sampling.rates(before, now)
            before, looks, until = now, looks + 1, time.monotonic() + delay
            while True:
                fit = screen.room(console, len(now.pools))
                items = sampling.ordered(now, change, order)[: fit if lines is None else min(fit, lines)]
                known = sampling.details(found, (item.key for item in items))
                live.update(screen.render(str(found.path), now, change, items, known, order), refresh=True)
                key = keys.wait(max(until - time.monotonic(), 0))
                if key == "q":
                    return
                if key in sampling.ORDERS:
                    order = key
                elif not key:
                    break


def _document(found: Tree, now: Sample, change: Rates, items: Sequence[ItemSample]) -> dict[str, Any]:
    known = sampling.details(found, (item.key for item in items))
    return {
        "time": time.time(),
        "pools": [
            {
                "name": pool.name,
                "state": pool.state,
                "job": pool.job or None,
                "items": pool.items,
                "capacity": pool.capacity,
                "allocation": pool.allocation,
                "growth": change.pools.get(pool.name),
                "device": pool.device,
                "read": change.reading.get(pool.name),
                "written": change.writing.get(pool.name),
            }
            for pool in now.pools.values()
        ],
        "items": [
            {
                "pool": item.pool,
                "name": item.name,
                "state": known[item.key].state or None,
                "job": known[item.key].job or None,
                "capacity": item.capacity,
                "allocation": item.allocation,
                "growth": change.items.get(item.key),
                "users": known[item.key].users,
            }
            for item in items
        ],
    }


_POOL_NUMBERS = ("Full", "Used", "Size", "Growth", "Read", "Written", "Items")
_ITEM_NUMBERS = ("Full", "Used", "Capacity", "Growth", "Users")


def _show(found: Tree, now: Sample, change: Rates, items: Sequence[ItemSample]) -> None:
    """As the screen, in plain lines."""
    from fspoolfs.cli.screen import speed

    rows = [
        (
            *(pool.name, pool.state, _percent(pool.allocation, pool.capacity)),
            *(output.size(pool.allocation), output.size(pool.capacity), speed(change.pools.get(pool.name))),
            *(speed(change.reading.get(pool.name)), speed(change.writing.get(pool.name))),
            *(str(pool.items), pool.job),
        )
        for pool in now.pools.values()
    ]
    output.show_table(("Pool", "State", *_POOL_NUMBERS, "Job"), rows, right=_POOL_NUMBERS)
    click.echo()
    known = sampling.details(found, (item.key for item in items))
    rows_of_items = [
        (
            *(f"{item.pool}/{item.name}", known[item.key].state, _percent(item.allocation, item.capacity)),
            *(output.size(item.allocation), output.size(item.capacity), speed(change.items.get(item.key))),
            *("-" if known[item.key].users is None else str(known[item.key].users), known[item.key].job),
        )
        for item in items
    ]
    output.show_table(("Item", "State", *_ITEM_NUMBERS, "Job"), rows_of_items, right=_ITEM_NUMBERS)


def _percent(allocation: int | None, capacity: int | None) -> str:
    part = sampling.part(allocation, capacity)
    return "-" if part is None else f"{int(part * 100)}%"
