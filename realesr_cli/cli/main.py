"""The command `realesr`: its commands, loaded when used, and the one place where errors end."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from realesr_cli._version import __version__
from realesr_cli.cli.advice import message_with_advice
from realesr_cli.cli.terminal import (
    StandardOutputError,
    discard_stdout,
    open_standard_streams,
    say_error,
    show_warnings,
)
from realesr_cli.errors import OutOfMemoryError, RealesrError
from realesr_cli.text import did_you_mean

INTERRUPTED = 130

# Name -> where the click command is, and its line in the help. A command's module is imported only
# when the command is used: `realesr --help` must not load torch.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "upscale": (
        "realesr_cli.cli.upscale:upscale_command",
        "Upscale and restore images.",
    ),
    "video": (
        "realesr_cli.cli.video:video_command",
        "Upscale films and animations, and copy everything else of them.",
    ),
    "models": (
        "realesr_cli.cli.models:models_group",
        "List, download, check, import and interpolate models.",
    ),
    "export": (
        "realesr_cli.cli.export:export_command",
        "Export a model to ONNX, ncnn, safetensors, pth or fp16.",
    ),
    "doctor": (
        "realesr_cli.cli.doctor:doctor_command",
        "Show versions, devices, auto-selected settings, and how to fix problems.",
    ),
    "bench": (
        "realesr_cli.cli.bench:bench_command",
        "Measure every backend and precision on this machine.",
    ),
    "train": (
        "realesr_cli.cli.train:train_command",
        "Train a network on folders of images.",
    ),
    "degrade": (
        "realesr_cli.cli.degrade:degrade_command",
        "Apply the training degradation to an image.",
    ),
    "evaluate": (
        "realesr_cli.cli.evaluate:evaluate_command",
        "Compute PSNR, SSIM, NIQE and LPIPS for models or folders.",
    ),
    "compare": (
        "realesr_cli.cli.compare:compare_command",
        "Compare the results of several models side by side.",
    ),
    "dataset": (
        "realesr_cli.cli.dataset:dataset_group",
        "Check and prepare training images.",
    ),
    "completion": (
        "realesr_cli.cli.main:completion_command",
        "Print the completion script of a shell.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are listed in a table and imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, with the nearest known name in the error."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            if os.path.lexists(args[0]) or os.path.splitext(args[0])[1]:
                near = f"; did you mean `realesr upscale {shlex.quote(args[0])}`?"
            else:
                near = did_you_mean(args[0], list(COMMANDS))
            ctx.fail(f"no such command {args[0]!r}{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's own lines, so that help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run `realesr COMMAND --help` for the options of a command.",
)
@click.version_option(__version__, "-V", "--version", message="realesr-cli %(version)s")
def cli() -> None:
    """Upscale and restore images with Real-ESRGAN and ESRGAN models, and train your own."""


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


def run(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0 done, 1 some of the work failed, 2 wrong usage, 3 a model or download, 4 out of
    memory, 130 interrupted. A command may return its exit code. An exception that is not a
    RealesrError is a bug and keeps its traceback.
    """
    started = time.perf_counter()
    if args is None:
        open_standard_streams()
    show_warnings()
    try:
        code = _run(args, started)
        sys.stdout.flush()
    except StandardOutputError as error:
        discard_stdout()
        say_error(str(error))
        code = error.exit_code
    except BrokenPipeError:
        # The reader of stdout (`| head`) has seen enough: there is nothing to report.
        discard_stdout()
        code = 1
    sys.exit(code)


def _run(args: Sequence[str] | None, started: float) -> int:
    """Run the command line, print its errors, and return its exit code.

    `started`, a value of `time.perf_counter`, is what commands find in the context's `obj`.
    """
    try:
        result = cli.main(
            list(args) if args is not None else None,
            prog_name="realesr",
            standalone_mode=False,
            obj=started,
        )
    except StandardOutputError:
        raise
    except RealesrError as error:
        say_error(message_with_advice(error))
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"Try '{error.ctx.command_path} --help' for help."
            click.echo(f"{error.ctx.get_usage()}\n{hint}\n", err=True)
        text = error.format_message()
        say_error(text[:1].lower() + text[1:])
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say_error("interrupted")
        return INTERRUPTED
    except MemoryError:
        say_error("not enough memory: close other programs, or choose a smaller model")
        return OutOfMemoryError.exit_code
    return result if isinstance(result, int) else 0
