"""Where a command may write: nothing is replaced unasked, and a bad place is told before work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from realesr_cli.errors import ConfigError


def is_folder(output: str) -> bool:
    """Whether `-o OUTPUT` names a folder: one that exists, or a name that ends in a slash."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def refuse_targets(
    targets: Sequence[Path], *, overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Raise ConfigError where one of these files must not or cannot be written.

    That is a folder, an input, a file that is there already unless `overwrite`, and a place in a
    folder that takes no file.
    """
    from realesr_cli.batch.jobs import refuse_unwritable

    for target in targets:
        if target.is_dir():
            raise ConfigError(f"{target} is a folder: name a file in it with -o")
        if any(path.exists() and target.exists() and path.samefile(target) for path in inputs):
            raise ConfigError(f"{target} is an input: write to another file with -o")
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} is there already: --overwrite replaces it")
    refuse_unwritable(targets)
