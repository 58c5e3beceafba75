"""Where the images of an evaluation are kept, checked before any of them is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.errors import ConfigError, ImageWriteError
from realesr_cli.evaluate.images import Pixels
from realesr_cli.image.types import Image

_UNSAFE = '<>:"/\\|?*'


@dataclass(frozen=True)
class OutputWriter:
    """Writes what the methods of a table make into a folder for each."""

    folder: Path
    methods: tuple[str, ...]

    def prepare(
        self, names: Sequence[str], inputs: Sequence[Path], *, overwrite: bool = False
    ) -> None:
        """Create the folders.

        Raises ConfigError where two methods would share a folder, a folder is one of `inputs`, or
        files would be replaced unasked, and ImageWriteError where a folder cannot be created.
        """
        folders = {method: self._folder(method) for method in self.methods}
        if len(set(folders.values())) < len(folders):
            raise ConfigError(f"{self.folder}: two rows of the table would share a folder there")
        given = {path.resolve(): path for path in inputs}
        for folder in folders.values():
            if folder.resolve() in given:
                raise ConfigError(f"{folder} is a folder of the images judged: save elsewhere")
            there = (path for name in names if (path := folder / f"{name}.png").exists())
            found = None if overwrite else next(there, None)
            if found is not None:
                raise ConfigError(f"{found} is there already: --overwrite replaces it")
        for folder in folders.values():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise ImageWriteError(f"{folder} cannot be created: {reason}") from error

    def keep(self, method: str, name: str, pixels: Pixels) -> None:
        """Write one image, if it is of a method kept here; raises ImageWriteError."""
        if method in self.methods:
            Image(pixels).save(self._folder(method) / f"{name}.png")

    def _folder(self, method: str) -> Path:
        # A row may be called by a path, which must not lead out of the folder.
        safe = "".join("_" if letter in _UNSAFE else letter for letter in method).strip(". ")
        return self.folder / (safe or "_")
