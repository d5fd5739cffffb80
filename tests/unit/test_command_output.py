"""What commands print, and how they understand what was typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from fspoolfs.cli import output, params, program, transient
from fspoolfs.cli.defining import _host
from fspoolfs.errors import DocumentError, InvalidError
from fspoolfs.model import documents
from fspoolfs.model.definitions import Host
from support.needs import needs_program
from support.shell import run


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 << 30, "10.00 GiB"),
        (2**63 - 1, "8.00 EiB"),
        (None, "-"),
    ],
)
def test_a_size_is_printed_for_people(count: int | None, text: str) -> None:
    assert output.size(count) == text


def test_a_size_is_printed_exactly() -> None:
    assert output.size(1536, exact=True) == "1536"
    assert output.size(None, exact=True, none="none") == "none"


def test_columns_are_as_wide_as_what_stands_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("Name", "Size"), [("web", "1"), ("a long name", "1000")], right=("Size",))
    assert capsys.readouterr().out.splitlines() == [
        " Name          Size",
        "--------------------",
        " web              1",
        " a long name   1000",
    ]


def test_wide_characters_take_two_cells(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("Name", "State"), [("日本", "ready"), ("abcd", "ready")])
    lines = capsys.readouterr().out.splitlines()
    # Two wide characters are as wide as four others.
    assert lines[2] == " 日本   ready"
    assert lines[3] == " abcd   ready"


def test_a_table_without_rows_has_titles(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("Name", "State"), [])
    assert capsys.readouterr().out.splitlines()[0] == " Name   State"


def test_states_have_colours_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.wants_colour() is False
    monkeypatch.setenv("NO_COLOR", "")
    assert output.wants_colour() is None


def test_json_keeps_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json([{"name": "zwei ☃", "capacity": None}])
    text = capsys.readouterr().out
    assert "☃" in text
    assert json.loads(text) == [{"name": "zwei ☃", "capacity": None}]


def test_an_info_file_becomes_pairs() -> None:
    text = "Name:           web\nPath:           /a: b\nTrash keeps:    24h\n"
    assert output.pairs(text) == {"name": "web", "path": "/a: b", "trash keeps": "24h"}
    sizes = {"Name": "unknown", "Path": "12"}
    assert output.with_sizes(text, sizes).splitlines()[:2] == ["Name:           web", "Path:           12"]


# -- what was typed -------------------------------------------------------------------------------


def test_an_item_is_named_with_its_pool() -> None:
    assert params.split("tank/web", None) == ("tank", "web")
    assert params.split("web", "tank") == ("tank", "web")
    assert params.split("tank/a b", None) == ("tank", "a b")


@pytest.mark.parametrize(("item", "pool"), [("web", None), ("tank/web", "tank")])
def test_an_item_without_a_pool_or_with_two_is_refused(item: str, pool: str | None) -> None:
    with pytest.raises(InvalidError, match="pool"):
        params.split(item, pool)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.0.0.7", Host(name="10.0.0.7")),
        ("server:2049", Host(name="server", port=2049)),
        ("::1", Host(name="::1")),
        ("[::1]", Host(name="::1")),
        ("[fe80::1]:22", Host(name="fe80::1", port=22)),
    ],
)
def test_a_host_may_have_a_port(text: str, host: Host) -> None:
    assert _host(text) == host


def test_every_command_has_its_place() -> None:
    context = click.Context(program.command_line)
    for name in program.COMMANDS:
        command = program.command_line.get_command(context, name)
        assert command is not None
        assert command.help, f"{name} does not say what it does"
        assert command.name == name
    assert program.command_line.get_command(context, "dismount") is None


@pytest.mark.parametrize(
    "shell",
    [
        "bash",
        pytest.param("zsh", marks=needs_program("zsh")),
        pytest.param("fish", marks=needs_program("fish")),
    ],
)
def test_shells_accept_their_completion(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(run(sys.executable, "-m", "fspoolfs", "completion", shell).stdout)
    run(shell, "-n", file)


# -- transient pools ------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "<metadata/>", "<metadata><a xmlns='b'>c</a></metadata>"])
def test_the_mark_of_a_transient_pool_keeps_all_else(inner: str) -> None:
    data = f"<fspool type='dir'><name>tank</name>{inner}</fspool>".encode()
    marked = transient.marked(data)
    assert transient.is_marked(marked.decode())
    assert transient.marked(marked) == marked
    assert documents.parse_pool(marked).name == "tank"
    assert not transient.is_marked(data.decode())
    if "<a" in inner:
        assert b">c</a>" in marked


def test_a_mention_of_the_mark_is_no_mark() -> None:
    text = f"<fspool type='dir'><name>tank</name><metadata><a>{transient.NAMESPACE}</a></metadata></fspool>"
    assert not transient.is_marked(text)


def test_what_is_no_document_cannot_be_marked() -> None:
    with pytest.raises(DocumentError):
        transient.marked(b"<fspool")


# -- how quickly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["unmount", "version", "fspool-list", "fspool-start", "fs-list", "fs-info"]
)
def test_a_simple_command_loads_nothing_that_it_does_not_need(command: str) -> None:
    """Loading takes most of a command's time."""
    script = (
        "import sys\nfrom fspoolfs.cli import program\n"
        f"import click\nprogram.command_line.get_command(click.Context(program.command_line), {command!r})\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), *sys.modules)"
    )
    loaded = set(run(sys.executable, "-c", script).stdout.split())
    assert "click" in loaded
    assert loaded & {"lxml", "rich", "prompt_toolkit", "pyfuse3", "trio", "fspoolfs.daemon"} == set()
