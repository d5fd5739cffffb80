"""The command `fspoolfs`: parses the command line, runs a command and turns its error into a status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from fspoolfs.cli.program import PROGRAM, Interactive, command_line
from fspoolfs.errors import CancelledError, FspoolError

#: What a shell expects of a program that was ended by SIGINT: 128 and the signal's number.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 with a sentence on stderr, or 2 for a wrong command line."""
    try:
        status = command_line.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        if isinstance(status, Interactive):
            from fspoolfs.cli import shell

            return shell.run(command_line, main, status.before)
        if sys.stdout is not None:  # it is, where the caller has closed it
            # What is still in the buffer must not fail unseen while Python ends.
            sys.stdout.flush()
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        complain(error.format_message())
        return 2
    except click.ClickException as error:
        complain(error.format_message())
        return 1
    except FspoolError as error:
        complain(str(error))
        return _INTERRUPTED if isinstance(error, CancelledError) else 1
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except OSError as error:
        # Everything else that fails so has become a sentence where it is known what was being done.
        if not isinstance(error, BrokenPipeError):
            complain(f"standard output: {error.strerror}")
        # `fspoolfs fspool-list | head`: the reader has what it wanted, and nothing is written at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return status if isinstance(status, int) else 0


def complain(sentence: str) -> None:
    """One sentence on stderr."""
    click.echo(f"{PROGRAM}: {sentence}", err=True)
