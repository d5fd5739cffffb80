"""One volume for one pool: the second definition over it is refused, under whichever name it comes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import last_error, refused, request
from root.volume_pools import MARKS, SIZE, define, image_of
from support.daemon import Daemon
from support.shell import run

pytestmark = MARKS


@pytest.fixture
def image(daemon: Daemon) -> Path:
    """Of pool "tank", which is active."""
    request(define(daemon, "tank", "ext4") / "status", "start build")
    return image_of(daemon, "tank")


def is_refused(daemon: Daemon, source: str) -> None:
    with refused(errno.EEXIST):
        define(daemon, "twin", "ext4", size=None, source=source)
    assert "its source is pool tank's already" in last_error(daemon.mount)
    assert not (daemon.mount / "pools" / "twin").exists()


@pytest.fixture
def loops(image: Path) -> Iterator[tuple[str, str]]:
    """Loop devices of the image, made by hand: of all of it, and of its second half."""
    made = []
    try:
        for offset in (0, SIZE // 2):
            made.append(run("losetup", "--find", "--show", "--offset", str(offset), image).stdout.strip())
        yield made[0], made[1]
    finally:
        for device in made:
            run("losetup", "--detach", device)


def test_a_loop_device_of_an_image_is_the_image(
    daemon: Daemon, loops: tuple[str, str], tmp_path: Path
) -> None:
    whole, part = loops
    link = tmp_path / "by-id"
    link.symlink_to(whole)
    for path in (whole, link):
        is_refused(daemon, f"<device path='{path}'/>")
    define(daemon, "part", "ext4", size=None, source=f"<device path='{part}'/>")


def test_a_second_name_of_an_image_is_the_image(daemon: Daemon, image: Path) -> None:
    os.link(image, image.with_name("other.img"))
    # What was seen of the first one is as old as its definition.
    daemon.restart()
    is_refused(daemon, "<pool name='images'/><volume name='other'/>")
    image.parent.with_name("linked").symlink_to(image.parent)
    is_refused(daemon, "<pool name='linked'/><volume name='tank'/>")


def test_a_name_that_an_image_gets_later_leads_to_a_refused_start(daemon: Daemon, image: Path) -> None:
    os.link(image, image.with_name("twin.img"))
    twin = define(daemon, "twin", "ext4", size=None)
    for verb in ("build", "start", "delete"):
        with refused(errno.EEXIST, errno.EBUSY):
            request(twin / "status", verb)
    with refused(errno.EBUSY):
        request(twin / "status", "build overwrite")


def test_a_definition_that_is_changed_to_anothers_volume_is_refused(daemon: Daemon, image: Path) -> None:
    pool = define(daemon, "twin", "ext4")
    document = (pool / "config.xml").read_text()
    assert "<volume name='twin'/>" in document
    with refused(errno.EEXIST):
        request(pool / "config.xml", document.replace("<volume name='twin'/>", "<volume name='tank'/>"))
    assert "its source is pool tank's already" in last_error(pool)
