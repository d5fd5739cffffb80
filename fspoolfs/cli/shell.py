"""The interactive shell: `fspoolfs` without a command on a terminal, as virsh has one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import click
from click.shell_completion import ShellComplete, split_arg_string
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

_PROMPT: Final = "fspoolfs # " if os.geteuid() == 0 else "fspoolfs > "
#: What the shell knows besides the commands.
_OWN: Final = ("help", "quit", "exit")
#: What makes no sense in here.
_UNFIT: Final = frozenset(("mount", "completion"))


def run(program: click.Group, execute: Callable[[Sequence[str]], int], before: Sequence[str]) -> int:
    """Read commands until the end; the status of the last one.

    `execute` carries out a command line; `before` are options that stand before every command.
    """
    session: PromptSession[str] = PromptSession(
        history=_history(), completer=_Completer(program, before), complete_while_typing=False
    )
    click.echo("Welcome to fspoolfs.\n\nType 'help' for the commands, 'quit' to leave.\n")
    status = 0
    while True:
        try:
            line = session.prompt(_PROMPT)
            arguments = shlex.split(line, comments=True)
        except KeyboardInterrupt:
            continue  # the line is given up
        except EOFError:
            return status
        except ValueError as error:
            click.echo(f"fspoolfs: {error}", err=True)
            continue
        if not arguments:
            continue
        if arguments[0] in ("quit", "exit"):
            return status
        if arguments[0] == "help":
            arguments = [*arguments[1:2], "--help"]
        status = execute([*before, *arguments])


def _history() -> History:
    """What was typed before, where this user's programs keep their state; else only what is typed now."""
    base = os.environ.get("XDG_STATE_HOME", "")
    directory = (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "fspoolfs"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = directory / "history"
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


class _Completer(Completer):
    """Completes what the commands complete in other shells."""

    def __init__(self, program: click.Group, before: Sequence[str]) -> None:
        self._program = program
        self._before = before

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        words = split_arg_string(document.text_before_cursor)
        begun = document.text_before_cursor
        incomplete = words.pop() if words and not begun[-1:].isspace() else ""
        if words[:1] == ["help"]:
            words = words[1:]
        found = ShellComplete(self._program, {}, "fspoolfs", "").get_completions(
            [*self._before, *words], incomplete
        )
        names = [item.value for item in found if item.type == "plain"]
        if not words:
            names = [name for name in names if name not in _UNFIT]
            names += [name for name in _OWN if name.startswith(incomplete)]
        for name in names:
            yield Completion(shlex.quote(name), start_position=-len(incomplete), display=name)
