"""Commands as a person at a terminal meets them: the shell, completion, colours, long work and Ctrl-C."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from mount.commands import PROGRAM, Commands
from mount.control import ControlTree, value
from support.daemon import MakeDaemon
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.terminal import Terminal, on_terminal
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

#: The terminal of the tests does not tell where its cursor is.
PLAIN = {"PROMPT_TOOLKIT_NO_CPR": "1"}
PROMPT = "fspoolfs #"
CTRL_C, UP = "\x03", "\x1b[A"


@pytest.fixture
def commands(tree: ControlTree) -> Commands:
    return Commands(tree.mount)


def terminal(commands: Commands, *arguments: str, env: Mapping[str, str] | None = None) -> Terminal:
    return Terminal([*PROGRAM, *arguments], env={**commands.environment, **PLAIN, **(env or {})})


# -- the shell ------------------------------------------------------------------------------------


def test_the_shell_completes_runs_and_remembers(item: Path, commands: Commands, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    pool = item.parents[1].name
    with terminal(commands, env=state) as shell:
        shell.wait_for(PROMPT)
        shell.type("fspool-li\t")
        shell.wait_for("st\x1b")
        shell.type(" --det\t")
        shell.wait_for("ails")
        shell.type("\r")
        shell.wait_for("Autostart")
        shell.wait_for(PROMPT)
        shell.type(f"fs-path {pool}/{item.name[:-1]}\t")
        shell.wait_for(f"{item.name[-1]}\x1b")
        shell.type("\r")
        shell.wait_for(os.readlink(item / "data"))
        shell.wait_for(PROMPT)
        shell.type("fs-info nowhere/nothing\r")
        shell.wait_for("fspoolfs: there is no pool nowhere")
        shell.wait_for(PROMPT)
        shell.type("help fs-resize\r")
        shell.wait_for("usage: fspoolfs fs-resize")
        shell.wait_for(PROMPT)
        shell.type("echo 'open\r")
        shell.wait_for("No closing quotation")
        shell.wait_for(PROMPT)
        shell.type(f"given up{CTRL_C}")
        shell.wait_for(PROMPT)
        shell.type("fspool-info nowhere\r")
        shell.wait_for("there is no pool nowhere")
        shell.wait_for(PROMPT)
        shell.type("quit\r")
        assert shell.end() == 1, "the status of the last command"
    assert (tmp_path / "fspoolfs/history").stat().st_mode & 0o077 == 0
    with terminal(commands, env=state) as shell:
        shell.wait_for(PROMPT)
        shell.type(f"{UP}{UP}\r")
        shell.wait_for("there is no pool nowhere")
        shell.wait_for(PROMPT)
        shell.type("\x04")
        assert shell.end() == 1


def test_the_shell_works_on_the_tree_that_was_chosen(
    commands: Commands, tree: ControlTree, pool: Path
) -> None:
    elsewhere = {"FSPOOLFS_MOUNT": "/nowhere"}
    with terminal(commands, "--mount", str(tree.mount), env=elsewhere) as shell:
        shell.wait_for(PROMPT)
        shell.type(f"fspool-path {pool.name}\r")
        shell.wait_for(os.readlink(pool / "root"))
        shell.wait_for(PROMPT)
        shell.type("exit\r")
        assert shell.end() == 0


def test_without_a_terminal_there_is_no_shell(commands: Commands) -> None:
    assert "name a command" in commands.refusal(status=2)


# -- completion -----------------------------------------------------------------------------------


def completed(commands: Commands, *words: str, shell: str = "bash") -> list[str]:
    """What the program tells a shell about the last one of `words`."""
    line = shlex.join(["fspoolfs", *words[:-1]]) + f" {words[-1]}"
    env = {
        "_FSPOOLFS_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    # "plain,NAME", and fish has the help as well: "plain,NAME<tab>HELP".
    return [entry.partition(",")[2].partition("\t")[0] for entry in commands(env=env).split("\n") if entry]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_pools_and_items_are_completed(shell: str, commands: Commands, item: Path) -> None:
    pool = item.parents[1].name
    (item / "snapshots/monday").mkdir()
    assert pool in completed(commands, "fspool-info", pool[:-1], shell=shell)
    assert f"{pool}/" in completed(commands, "fs-info", pool[:-1], shell=shell)
    assert f"{pool}/{item.name}" in completed(commands, "fs-info", f"{pool}/", shell=shell)
    assert completed(commands, "fs-info", "--pool", pool, item.name, shell=shell) == [item.name]
    assert completed(commands, "fs-rollback", f"{pool}/{item.name}", "mo", shell=shell) == ["monday"]
    assert completed(commands, "fspool-st", shell=shell) == ["fspool-start", "fspool-stop"]
    assert "--json" in completed(commands, "fs-info", "--j", shell=shell)
    assert completed(commands, "--mount", "/nowhere", "fspool-info", "x", shell=shell) == []


def test_bash_takes_the_completion(commands: Commands, item: Path, tmp_path: Path) -> None:
    pool = item.parents[1].name
    program = tmp_path / "fspoolfs"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(fspoolfs completion bash)"\n'
        f"COMP_WORDS=(fspoolfs fs-path {pool}/{item.name[:-1]}); COMP_CWORD=2\n"
        '_fspoolfs_completion fspoolfs "" ""\necho "${COMPREPLY[*]}"'
    )
    result = run(
        "bash", "-c", script, env={**commands.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    assert f"{pool}/{item.name}" in result.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_completion(shell: str, commands: Commands) -> None:
    assert f"_FSPOOLFS_COMPLETE={shell}_complete" in commands("completion", shell)
    assert "is not one of" in commands.refusal("completion", "tcsh", status=2)


# -- what a terminal shows ------------------------------------------------------------------------


def test_colours_are_for_terminals(pool: Path, commands: Commands) -> None:
    argv = [*PROGRAM, "fspool-list"]
    status, shown = on_terminal(argv, env=commands.environment)
    assert status == 0
    assert "\x1b[32mactive\x1b[0m" in shown
    assert "\x1b" not in on_terminal(argv, env={**commands.environment, "NO_COLOR": "1"})[1]
    assert "\x1b" not in commands("fspool-list")
    assert pool.name in shown


def test_a_faulty_document_can_be_edited_again(pool: Path, commands: Commands, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    # The first time it breaks the document, the second time it mends that.
    editor.write_text(
        '#!/bin/sh\nif grep -q colour "$1"; then sed -i "s|<colour/>|<trash retention=\'3h\'/>|" "$1"\n'
        'else sed -i "s|</name>|</name><colour/>|" "$1"; fi\n'
    )
    editor.chmod(0o755)
    with terminal(commands, "fspool-edit", pool.name, env={"EDITOR": str(editor), "VISUAL": ""}) as edited:
        edited.wait_for("unexpected element <colour>")
        edited.wait_for("Edit it again?")
        edited.type("y\r")
        edited.wait_for("edited")
        assert edited.end() == 0
    assert "retention='3h'" in (pool / "config.xml").read_text()


def test_events_are_followed_until_ctrl_c(pool: Path, commands: Commands) -> None:
    with terminal(commands, "events", "--lines", "0") as following:
        # The reader may not be there yet: something happens until it sees it.
        def seen() -> bool:
            (pool / "items/web").mkdir()
            (pool / "items/web").rmdir()
            return f"{pool.name}/web" in following.read_on(0.2)

        eventually(seen, what="an event is shown")
        following.type(CTRL_C)
        assert following.end() == 0


# -- long work ------------------------------------------------------------------------------------


@pytest.fixture
def hasty(make_daemon: MakeDaemon) -> Commands:
    """Commands for a daemon whose verbs hardly wait, with pool `tank` and item `web` of many files."""
    commands = Commands(make_daemon("--grace", "0.05").mount)
    commands("fspool-define-as", "tank")
    commands("fspool-start", "tank", "--build")
    commands("fs-create-as", "tank", "web")
    data = Path(commands("fs-path", "tank/web").rstrip("\n"))
    for number in range(20_000):
        (data / f"file{number}").touch()
    return commands


def test_long_work_is_waited_for(hasty: Commands) -> None:
    items = hasty.mount / "pools/tank/items"
    assert hasty("fs-clone", "tank/web", "copy") == "Item copy cloned from web\n"
    assert value(items / "copy/status") == "ready"
    assert len(os.listdir(items / "copy/data")) == 20_000
    hasty("fs-snapshot-create", "tank/web", "monday")
    (row,) = hasty.json("fs-snapshot-list", "tank/web")
    assert len(os.listdir(row["path"])) == 20_000
    hasty("fs-measure", "tank/web")
    assert hasty.json("fs-list", "tank")[1]["inodes"] == 20_001


def test_ctrl_c_cancels_long_work(hasty: Commands) -> None:
    items = hasty.mount / "pools/tank/items"
    with terminal(hasty, "fs-clone", "tank/web", "copy") as cloning:
        cloning.wait_for("clone item web of pool tank")
        cloning.type(CTRL_C)
        cloning.wait_for("was cancelled")
        assert cloning.end() == 130
    eventually(lambda: os.listdir(items) == ["web"], what="the cancelled clone is gone")
    assert value(items / "web/status") == "ready"


def test_a_failed_job_is_told_by_its_own_sentence(hasty: Commands) -> None:
    items = hasty.mount / "pools/tank/items"
    with terminal(hasty, "fs-clone", "tank/web", "copy") as cloning:
        cloning.wait_for("clone item web of pool tank")
        # Somebody else cancels it.
        (items / "copy/job").write_text("cancel\n")
        cloning.wait_for("was cancelled")
        assert cloning.end() == 1
