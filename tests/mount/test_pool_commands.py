"""The commands for pools, and those for the whole tree."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from fspoolfs.cli.program import COMMANDS
from mount.commands import PROGRAM, Commands
from mount.control import ControlTree, last_error, request, value
from support.daemon import PROJECT, MakeDaemon
from support.needs import needs_fuse, needs_root
from support.shell import as_user, run

pytestmark = [needs_root, needs_fuse, pytest.mark.required]


@pytest.fixture
def commands(tree: ControlTree) -> Commands:
    return Commands(tree.mount)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, commands: Commands) -> None:
    text = commands(command, "--help")
    assert text.startswith(f"usage: fspoolfs {command} ")
    # A sentence, not only the options.
    assert text.splitlines()[2].strip().endswith((".", ":", ",", ";")) or len(text.splitlines()[2]) > 30


def test_the_readme_names_every_command() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert [command for command in COMMANDS if f"`{command}`" not in readme] == []


def test_the_life_of_a_pool(tree: ControlTree, commands: Commands) -> None:
    name = tree.new_name()
    pool = tree.pools / name
    assert commands("fspool-define-as", name, "--mode", "1777") == f"Pool {name} defined\n"
    assert value(pool / "status") == "inactive"
    assert commands("fspool-build", name) == f"Pool {name} built\n"
    assert commands("fspool-start", name) == f"Pool {name} started\n"
    assert value(pool / "status") == "active"
    assert (pool / "items").stat().st_mode & 0o7777 == 0o1777
    assert commands("fspool-refresh", name) == f"Pool {name} refreshed\n"
    assert commands("fspool-path", name) == f"{os.readlink(pool / 'root')}\n"
    assert commands("fspool-dumpxml", name) == (pool / "config.xml").read_text()
    assert commands("fspool-stop", name) == f"Pool {name} stopped\n"
    assert commands("fspool-start", name, "--build") == f"Pool {name} started\n"
    assert commands("fspool-destroy", name) == f"Pool {name} destroyed\n"
    assert commands("fspool-delete", name) == f"Pool {name} deleted\n"
    assert commands("fspool-undefine", name) == f"Pool {name} has been undefined\n"
    assert not pool.exists()


def test_a_refusal_is_the_sentence_of_the_object(pool: Path, commands: Commands) -> None:
    assert commands.refusal("fspool-start", pool.name) == last_error(pool)
    assert "it is that already" in last_error(pool)
    assert commands.refusal("fspool-undefine", pool.name) == last_error(pool)
    assert commands.refusal("fspool-fence", pool.name, "nobody") == last_error(pool)


def test_what_is_not_there_is_said(commands: Commands) -> None:
    assert commands.refusal("fspool-info", "none") == "there is no pool none"
    assert commands.refusal("fspool-start", "../pools") == "pool name '../pools' holds a slash"
    assert "unexpected extra argument" in commands.refusal("fspool-list", "x", status=2)
    assert "no-such-file: No such file or directory" in commands.refusal("fspool-define", "no-such-file")


def test_a_document_is_defined_from_a_file_and_from_standard_input(
    tree: ControlTree, commands: Commands, tmp_path: Path
) -> None:
    name = tree.new_name()
    document = tmp_path / "pool.xml"
    document.write_text(f"<fspool type='dir'><name>{name}</name></fspool>")
    assert commands("fspool-define", document) == f"Pool {name} defined from {document}\n"
    wanted = f"<fspool type='dir'><name>{name}</name><trash retention='1h'/></fspool>"
    commands("fspool-define", "-", input=wanted)
    assert "retention='1h'" in (tree.pools / name / "config.xml").read_text()
    faulty = f"<fspool type='dir'><name>{name}</name>\n<colour/></fspool>"
    assert "line 2: unexpected element <colour>" in commands.refusal("fspool-define", "-", input=faulty)


def test_options_make_the_document_that_they_describe(tree: ControlTree, commands: Commands) -> None:
    printed = commands(
        *(
            "fspool-define-as",
            "remote",
            "network",
            "--source-host",
            "10.0.0.7:2049",
            "--source-host",
            "[::1]:22",
        ),
        *("--source-path", "/exports/fs", "--source-format", "nfs", "--target", "/fspool", "--print-xml"),
    )
    assert "<host name='10.0.0.7' port='2049'/>" in printed
    assert "<host name='::1' port='22'/>" in printed
    assert "<dir path='/exports/fs'/>" in printed
    assert "<format type='nfs'/>" in printed
    assert "remote" not in os.listdir(tree.pools), "what is printed is not defined"
    volume = commands(
        *("fspool-define-as", "disk", "volume", "--capacity", "10G", "--source-name", "images"),
        *("--source-volume", "vol1", "--source-format", "xfs", "--print-xml"),
    )
    assert "<capacity unit='bytes'>10737418240</capacity>" in volume
    assert "<volume name='vol1'/>" in volume
    assert "lacks its <source>" in commands.refusal("fspool-define-as", "disk", "volume", "--print-xml")


def test_lists_show_the_pools_that_are_asked_for(tree: ControlTree, commands: Commands) -> None:
    active, idle = tree.active_pool().name, tree.defined_pool().name
    listed = commands("fspool-list").splitlines()
    assert listed[0].split() == ["Name", "State", "Autostart"]
    assert [active, "active", "no"] in [line.split() for line in listed]
    assert idle not in commands("fspool-list", "--name").split()
    assert idle in commands("fspool-list", "--inactive", "--name").split()
    assert active not in commands("fspool-list", "--inactive", "--name").split()
    assert {active, idle} <= set(commands("fspool-list", "--all", "--name").split())
    assert "exclude each other" in commands.refusal("fspool-list", "--all", "--inactive", status=2)
    commands("fspool-autostart", idle)
    assert value(tree.pools / idle / "autostart") == "1"
    assert commands("fspool-list", "--all", "--autostart", "--name") == f"{idle}\n"
    commands("fspool-autostart", idle, "--disable")
    assert value(tree.pools / idle / "autostart") == "0"


def test_details_and_json_have_the_numbers_of_the_tree(pool: Path, commands: Commands) -> None:
    capacity, name = value(pool / "capacity"), pool.name
    details = [line.split() for line in commands("fspool-list", "--details", "--bytes").splitlines()]
    assert next(line for line in details if line[0] == name)[3] == capacity
    row = next(row for row in commands.json("fspool-list") if row["name"] == name)
    assert row["capacity"] == int(capacity)
    assert row["target"] == os.readlink(pool / "root")
    facts = commands.json("fspool-info", name)
    assert (facts["state"], facts["type"], facts["filesystem"]) == ("active", "dir", "generic")
    assert facts["uuid"] == value(pool / "uuid")
    assert commands("fspool-info", name) == (pool / "info").read_text()
    assert f"Capacity:       {capacity}\n" in commands("fspool-info", name, "--bytes")
    assert commands("fspool-features", name) == (pool / "features").read_text()
    assert commands.json("fspool-features", name)["filesystem"] == "generic"


def test_a_pool_may_be_named_by_its_uuid(pool: Path, commands: Commands) -> None:
    uuid = value(pool / "uuid")
    assert commands.json("fspool-info", uuid)["name"] == pool.name
    assert commands.refusal("fspool-info", uuid[::-1]) == f"there is no pool {uuid[::-1]}"


def test_a_document_is_edited_in_the_editor_of_the_user(
    pool: Path, commands: Commands, tmp_path: Path
) -> None:
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nsed -i "s|</name>|</name><trash retention=\'2h\'/>|" "$1"\n')
    script.chmod(0o755)
    editor = {"EDITOR": str(script), "VISUAL": ""}
    assert commands("fspool-edit", pool.name, env=editor) == f"pool {pool.name}: edited\n"
    assert "retention='2h'" in (pool / "config.xml").read_text()
    # A second trash is one too many; without a terminal nobody can be asked to go on.
    assert "trash" in commands.refusal("fspool-edit", pool.name, env=editor)
    assert commands("fspool-edit", pool.name, env={"EDITOR": "true", "VISUAL": ""}).endswith("not changed\n")


def test_what_waits_for_the_next_start_is_shown_and_edited(
    tree: ControlTree, pool: Path, commands: Commands, tmp_path: Path
) -> None:
    live = commands("fspool-dumpxml", pool.name)
    wanted = live.replace(os.readlink(pool / "root"), f"{tree.daemon.storage}/elsewhere")
    commands("fspool-define", "-", input=wanted)
    assert commands("fspool-dumpxml", pool.name) == live
    assert commands("fspool-dumpxml", pool.name, "--inactive") == (pool / "pending.xml").read_text()
    assert "elsewhere" in commands("fspool-dumpxml", pool.name, "--inactive")
    assert commands.json("fspool-info", pool.name)["pending"] is True


def test_a_transient_pool_is_forgotten_when_it_ends(tree: ControlTree, commands: Commands) -> None:
    name = tree.new_name()
    document = f"<fspool type='dir'><name>{name}</name><metadata><a xmlns='b'/></metadata></fspool>"
    assert "build the pool first" in commands.refusal("fspool-create", "-", input=document)
    assert name not in os.listdir(tree.pools), "one that does not start never was"
    commands("fspool-create", "-", "--build", input=document)
    assert value(tree.pools / name / "status") == "active"
    assert '<a xmlns="b"/>' in (tree.pools / name / "config.xml").read_text(), "other metadata is kept"
    assert f"there is a pool {name} already" in commands.refusal("fspool-create", "-", input=document)
    assert "undefined" in commands("fspool-destroy", name)
    assert name not in os.listdir(tree.pools)
    commands("fspool-create", "-", input=document)
    commands("fspool-define", "-", input=document)
    assert commands("fspool-stop", name) == f"Pool {name} stopped\n"
    assert value(tree.pools / name / "status") == "inactive", "defined since, it is an ordinary one"


def test_events_are_printed_for_people_and_as_they_are(pool: Path, commands: Commands) -> None:
    request(pool / "status", "refresh")
    last = commands("events", "--no-follow", "--lines", "1", "--json")
    assert json.loads(last)["pool"] == pool.name
    sentence = commands("events", "--no-follow", "-n", "1")
    assert pool.name in sentence
    assert json.loads(last)["event"] in sentence
    assert len(commands("events", "--no-follow").splitlines()) > 1
    assert commands("events", "--no-follow", "-n", "0") == ""


def test_a_reader_that_has_enough_ends_a_command_without_a_word(pool: Path, commands: Commands) -> None:
    for _ in range(5):
        request(pool / "status", "refresh")
    for command in ("events --no-follow", "fspool-list --json --all"):
        script = f"{shlex.join(PROGRAM)} {command} | true; exit ${{PIPESTATUS[0]}}"
        result = run("bash", "-c", script, check=False, env=commands.environment)
        assert result.stderr == ""
        # 0 where it was quicker than the reader's end.
        assert result.returncode in (0, 1)


def test_an_output_that_is_full_is_told(pool: Path, commands: Commands) -> None:
    for line, said in (("> /dev/full", "No space left on device"), (">&-", "")):
        result = run(
            "bash", "-c", f"{shlex.join(PROGRAM)} fspool-info {pool.name} {line}",
            check=False, env=commands.environment,
        )  # fmt: skip
        assert "Traceback" not in result.stderr
        assert said in result.stderr
        assert result.returncode == (1 if said else 0)


def test_what_the_whole_tree_tells(tree: ControlTree, commands: Commands) -> None:
    assert commands("features") == (tree.mount / "features").read_text()
    assert commands.json("features")["pool dir"] == "yes"
    assert commands.json("version")["daemon"] == value(tree.mount / "version")
    assert value(tree.mount / "version") in commands("version")


# -- which tree -----------------------------------------------------------------------------------


def test_the_tree_is_chosen_by_an_option_and_by_the_environment(
    tree: ControlTree, commands: Commands, pool: Path
) -> None:
    names = commands("fspool-list", "--all", "--name")
    assert run(*PROGRAM, "--mount", tree.mount, "fspool-list", "--all", "--name").stdout == names
    wrong = {"FSPOOLFS_MOUNT": "/nowhere"}
    assert commands("--mount", tree.mount, "fspool-list", "--all", "--name", env=wrong) == names
    assert "/nowhere: no control tree" in commands.refusal("fspool-list", env=wrong)


def test_one_of_several_trees_must_be_chosen(make_daemon: MakeDaemon, tree: ControlTree) -> None:
    other = make_daemon("--sim")
    result = run(*PROGRAM, "fspool-list", check=False, env={"FSPOOLFS_MOUNT": ""})
    assert result.returncode == 1
    assert "choose one by --mount" in result.stderr
    assert str(tree.mount) in result.stderr
    assert str(other.mount) in result.stderr


def test_a_tree_whose_daemon_was_killed_is_said_to_be_so(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.kill(unmount=False)
    assert "daemon of this control tree has ended" in Commands(daemon.mount).refusal("fspool-list")


def test_a_user_does_what_the_tree_lets_him(tree: ControlTree, pool: Path) -> None:
    user = as_user(1000)
    if run("test", "-r", PROJECT / "README.md", "-a", "-x", PROGRAM[0], user=user, check=False).returncode:
        pytest.skip("user 1000 does not get at this checkout")
    his = Commands(tree.mount, user)
    assert pool.name in his("fspool-list", "--name").split()
    assert "Permission denied" in his.refusal("fspool-stop", pool.name)
    assert "Permission denied" in his.refusal("fspool-autostart", pool.name)
    assert value(pool / "status") == "active"
    assert "may not" in his.refusal("fs-create-as", pool.name, "his")
