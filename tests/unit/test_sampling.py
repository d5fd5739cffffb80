"""What `top` makes of two looks, and what the kernel counts of the devices below."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fspoolfs.cli import devices, sampling
from fspoolfs.cli.devices import Traffic
from fspoolfs.cli.sampling import ItemSample, PoolSample, Sample
from fspoolfs.cli.screen import speed


def pool(allocation: int | None, device: str | None = None, read: int = 0, written: int = 0) -> PoolSample:
    return PoolSample(
        name="tank", state="active", job="", items=0, capacity=1000, allocation=allocation, device=device,
        traffic=None if device is None else Traffic(read, written),
    )  # fmt: skip


def item(name: str, capacity: int | None, allocation: int | None) -> ItemSample:
    return ItemSample(pool="tank", name=name, capacity=capacity, allocation=allocation)


def sample(moment: float, tank: PoolSample, *items: ItemSample) -> Sample:
    return Sample(moment, {"tank": tank}, {one.key: one for one in items})


def test_what_changes_has_a_rate() -> None:
    before = sample(10.0, pool(500, "7:0", 100, 0), item("web", 100, 60))
    now = sample(12.0, pool(300, "7:0", 300, 50), item("web", 100, 80), item("new", None, 5))
    change = sampling.rates(before, now)
    assert change.pools == {"tank": -100.0}
    assert change.items == {("tank", "web"): 10.0}
    assert (change.reading, change.writing) == ({"tank": 100.0}, {"tank": 25.0})


def test_the_first_look_and_another_device_tell_no_rate() -> None:
    now = sample(12.0, pool(None, "7:1", 300), item("web", None, None))
    assert sampling.rates(None, now).pools == {}
    change = sampling.rates(sample(10.0, pool(1, "7:0", 100), item("web", None, 1)), now)
    assert (change.pools, change.items, change.reading, change.writing) == ({}, {}, {}, {})


@pytest.mark.parametrize(("order", "names"), [("n", "abcd"), ("u", "cbad"), ("p", "bcad"), ("g", "abcd")])
def test_items_in_order(order: str, names: str) -> None:
    items = (item("c", 100, 60), item("a", None, 10), item("d", 5, None), item("b", 50, 50))
    before = sample(1.0, pool(1), item("c", 100, 60), item("a", None, 1), item("b", 50, 45))
    now = sample(2.0, pool(1), *items)
    found = sampling.ordered(now, sampling.rates(before, now), order)
    assert "".join(one.name for one in found) == names


def test_how_fast_in_words() -> None:
    assert speed(None) == "-"
    assert speed(0.2) == "0 B/s"
    assert speed(2048.0) == "2.00 KiB/s"
    assert speed(-1536.5) == "-1.50 KiB/s"


def test_the_device_below_a_directory_is_the_one_that_stat_tells(tmp_path: Path) -> None:
    number = os.stat("/").st_dev
    link = tmp_path / "link"
    link.symlink_to("/")
    expected = f"{os.major(number)}:{os.minor(number)}"
    if os.major(number) == 0:
        pytest.skip("the root is on no device of its own")
    assert devices.device_below("/") == expected
    assert devices.device_below(f"{link}/no-such-directory") == expected


def test_what_is_on_no_device_has_none() -> None:
    assert devices.device_below("/proc/self") is None
    assert devices.traffic("0:0") is None


def test_a_device_counts() -> None:
    found = next(iter(sorted(Path("/sys/dev/block").iterdir())), None)
    if found is None:
        pytest.skip("needs a block device")
    counted = devices.traffic(found.name)
    assert counted is not None
    assert min(counted.read, counted.written) >= 0
