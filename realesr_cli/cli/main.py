"""The command `realesr`: its commands, loaded when used, and the one place where errors end."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from realesr_cli._version import __version__
from realesr_cli.cli.advice import message_with_advice
from realesr_cli.cli.terminal import say_error, show_warnings
from realesr_cli.errors import OutOfMemoryError, RealesrError
from realesr_cli.text import did_you_mean

INTERRUPTED = 130

# Name -> where the click command is, and its line in the help. A command's module is imported only
# when the command is used: `realesr --help` must not load torch.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "upscale": (
        "realesr_cli.cli.upscale:upscale_command",
        "Enlarge and restore images.",
    ),
    "models": (
        "realesr_cli.cli.models:models_group",
        "List, fetch, check, import and mix models.",
    ),
    "export": (
        "realesr_cli.cli.export:export_command",
        "Write a model as a file for other programs: ONNX, safetensors, pth, fp16.",
    ),
    "doctor": (
        "realesr_cli.cli.doctor:doctor_command",
        "Tell what is installed, what will be used, and what to mend.",
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
        "Judge models by numbers on a folder of images.",
    ),
    "compare": (
        "realesr_cli.cli.compare:compare_command",
        "Show photos by several models side by side.",
    ),
    "dataset": (
        "realesr_cli.cli.dataset:dataset_group",
        "Look over training images, and make training files of them.",
    ),
    "completion": (
        "realesr_cli.cli.completion:completion_command",
        "Print the completion script of a shell.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands stand in a table and are imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest known name in the error."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = did_you_mean(args[0], list(COMMANDS))
            ctx.fail(f"no such command {args[0]!r}{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's own lines, so that help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`realesr COMMAND --help` tells more about one command.",
)
@click.version_option(__version__, "-V", "--version", message="realesr-cli %(version)s")
def cli() -> None:
    """Enlarge and restore images with Real-ESRGAN and ESRGAN models, and train your own."""


def run(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    0 done, 1 some of the work failed, 2 wrong usage, 3 a model or download, 4 out of memory,
    130 interrupted. A command may return its exit code. What is no RealesrError is a bug and
    keeps its traceback.
    """
    show_warnings()
    try:
        result = cli.main(
            list(args) if args is not None else None, prog_name="realesr", standalone_mode=False
        )
        sys.stdout.flush()
    except RealesrError as error:
        say_error(message_with_advice(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        say_error("interrupted")
        sys.exit(INTERRUPTED)
    except MemoryError:
        say_error("not enough memory: close other programs, or take a smaller model")
        sys.exit(OutOfMemoryError.exit_code)
    except BrokenPipeError:
        # The reader of stdout (`| head`) has gone: nothing to tell, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)
