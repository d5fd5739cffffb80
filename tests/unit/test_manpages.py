"""The manual pages tell of every command, option, file and element, and groff finds nothing to warn of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from lxml import etree

from fspoolfs.backends import layout
from fspoolfs.cli.program import command_line as program
from fspoolfs.model.states import PoolVerb
from fspoolfs.tree.node import Directory
from manuals import commands, documents, tree
from manuals.roff import Page, escape
from support.needs import needs_program
from support.shell import run

PAGES = {"commands": commands.page, "tree": tree.page, "documents": documents.page}


def all_commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(program)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        yield name, command


def kinds() -> list[type[Directory]]:
    """Every kind of directory that has files."""
    return [kind for kind in Directory.__subclasses__() if kind.table]


def test_every_command_and_option_is_told_of() -> None:
    text = commands.page().text()
    for name, command in all_commands():
        assert f'.SS "{escape(name)}' in text
        assert command.help, f"{name} does not say what it does"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(escape(option) in text for option in parameter.opts), parameter.opts
                assert parameter.help, f"{name} {parameter.opts} is not explained"


def test_every_file_of_every_directory_is_told_of() -> None:
    text = tree.page().text()
    assert set(kinds()) == set(tree.KINDS)
    for kind in kinds():
        for name in kind.table:
            assert f"\\fB{escape(name)} (" in text
    verbs = set(PoolVerb) - {PoolVerb.DEFINE, PoolVerb.UNDEFINE}
    assert set(tree.VERBS) == verbs
    assert layout.OWN not in text


def test_every_element_of_the_grammar_is_told_of() -> None:
    text = documents.page().text()
    names = {one.get("name") for one in documents.grammar().iter("{*}element", "{*}attribute")} - {None}
    assert {name for name in names if escape(str(name)) not in text} == set()


def test_a_row_without_a_sentence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_COMMON", {})
    with pytest.raises(LookupError, match="no sentence tells what "):
        tree.page()
    grammar = etree.tostring(documents.grammar()).replace(b'name="device"', b'name="colour"')
    monkeypatch.setattr(documents, "grammar", lambda: etree.fromstring(grammar))
    with pytest.raises(LookupError, match="fspool/source/colour"):
        documents.page()


@needs_program("groff")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_warn_of(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(PAGES[name]().text())
    formatted = run("groff", "-man", "-Tutf8", "-P-cbou", "-wall", "-rLL=100n", file)
    assert formatted.stderr == ""
    assert "NAME" in formatted.stdout


@needs_program("groff")
def test_what_looks_like_a_request_is_text(tmp_path: Path) -> None:
    page = Page("x", 1, "y")
    page.verbatim(".TH is no heading\n'tis \\fBnot\\fR bold -- ~ ^ ` é")
    (tmp_path / "x").write_text(page.text())
    shown = run("groff", "-man", "-Tutf8", "-P-cbou", "-wall", tmp_path / "x").stdout
    assert ".TH is no heading" in shown
    assert "'tis \\fBnot\\fR bold -- ~ ^ ` é" in shown
