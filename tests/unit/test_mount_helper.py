"""How the mount helper understands what mount(8) calls it with."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspoolfs import config
from fspoolfs.cli.mount_helper import parse
from fspoolfs.errors import InvalidError


def test_options_become_settings(tmp_path: Path) -> None:
    file = tmp_path / "fspoolfs.toml"
    file.write_text('state-dir = "/from/file"\nlog-level = "error"\n')
    options = f"rw,config={file},log-level=debug,storage_dir=/srv/x,grace=2.5,no_allow_other"
    request = parse(["fspoolfs", "/mnt/tree", "-n", "-o", options, "-v"])
    assert request.config.mountpoint == Path("/mnt/tree")
    assert request.config.state_dir == Path("/from/file")
    assert request.config.storage_dir == Path("/srv/x")
    assert request.config.log_level == "debug"
    assert request.config.grace == 2.5
    assert not request.config.allow_other
    assert (request.pretended, request.verbose) == (False, True)


def test_options_for_others_are_left_to_them() -> None:
    options = (
        "defaults,nofail,_netdev,noauto,nosuid,x-systemd.automount,x-systemd.before=docker.service,comment=x"
    )
    request = parse(["none", "/mnt", "-o", options, "-t", "fuse.fspoolfs"])
    assert request.config == config.apply(config.defaults(), {"mountpoint": "/mnt"}, "here")


def test_what_stands_in_quotes_may_hold_commas() -> None:
    assert parse(["none", "/mnt", "-o", 'state-dir="/a,b",allow_other']).config.state_dir == Path("/a,b")


def test_allowing_others_and_simulating_take_no_value() -> None:
    assert parse(["none", "/m", "-o", "allow_other,sim"]).config.sim
    for option in ("allow_other=no", "sim=1"):
        with pytest.raises(InvalidError, match="no option"):
            parse(["none", "/m", "-o", option])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["fspoolfs"], "usage: "),
        (["fspoolfs", "/m", "/n"], "usage: "),
        (["/dev/sda1", "/m"], "write fspoolfs instead of '/dev/sda1'"),
        (["fspoolfs", "/m", "-x"], "usage: "),
        (["fspoolfs", "/m", "-N", "1"], "enter the namespace"),
        (["fspoolfs", "/m", "-t", "ext4"], "type 'ext4'"),
        (["fspoolfs", "/m", "-o", "ro"], "option ro: requests are writes"),
        (["fspoolfs", "/m", "-o", "rw,remount"], "unmount it and mount it again"),
        (["fspoolfs", "/m", "-o", "user=joe"], "a daemon of his own"),
        (["fspoolfs", "/m", "-o", "colour"], "there is no option 'colour'"),
        (["fspoolfs", "/m", "-o", "mountpoint=/x"], "there is no option"),
        (["fspoolfs", "/m", "-o", "state-dir="], "there is no option"),
        (["fspoolfs", "/m", "-o", "grace=soon"], "no number of seconds"),
        (["fspoolfs", "/m", "-o", "grace=-1"], "no value for grace"),
        (["fspoolfs", "/m", "-o", "log-level=loud"], "no value for log-level"),
        (["fspoolfs", "/m", "-o", "config=/no/such/file"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(arguments: list[str], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        parse(arguments)


def test_a_sloppy_mount_ignores_what_nobody_knows_and_still_refuses_what_cannot_be() -> None:
    assert parse(["fspoolfs", "/m", "-s", "-o", "colour"])
    with pytest.raises(InvalidError):
        parse(["fspoolfs", "/m", "-s", "-o", "ro"])
