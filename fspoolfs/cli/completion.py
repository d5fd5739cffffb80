"""The command that prints the completion for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fspoolfs.cli.style import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion for SHELL: bash, zsh or fish.

    \b
    bash:  eval "$(fspoolfs completion bash)"            in ~/.bashrc
    zsh:   eval "$(fspoolfs completion zsh)"             in ~/.zshrc
    fish:  fspoolfs completion fish > ~/.config/fish/completions/fspoolfs.fish
    """
    root = ctx.find_root()
    found = get_completion_class(shell)
    assert found is not None
    # Click's test of bash's version runs bash; what it needs has been there since bash 4.4, of 2016.
    complete = found(root.command, {}, "fspoolfs", "_FSPOOLFS_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())
