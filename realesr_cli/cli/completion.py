"""`realesr completion`: the script that teaches a shell our commands, options and model names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: realesr completion bash > ~/.local/share/bash-completion/completions/realesr
    zsh:  realesr completion zsh > ~/.zfunc/_realesr     (a folder on $fpath)
    fish: realesr completion fish > ~/.config/fish/completions/realesr.fish
    """
    # The group is needed only for its commands when completing, not to write the script.
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(click.Group(), {}, "realesr", "_REALESR_COMPLETE").source())
