"""Fonts to draw with: where systems keep them, and which letters each can draw."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.train.dataset.drawing.dice import Rng, chance, pick

Font = ImageFont.FreeTypeFont

SUFFIXES = (".ttf", ".otf", ".ttc")

SAMPLES = {
    "latin": "ABCXYZabcghkqxyz0123456789.,:-()",
    "accents": "äöüéèçñøåßčžłőÉÄÖŠ",
    "greek": "αβγδεζηθλμπρστφχψωΑΒΓΔΩ",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщыэюяБГДЖФЯ",
    "kana": "あいうえおかきくけこさしすせそなにぬねのはひふへほまみむめもらりるれろをん",
    "han": "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年",
}
"""Letters that a font must draw to be used for a script."""

_NOWHERE = "\uffff"
"""Never a character, so that a font draws what it has in place of missing ones."""


@dataclass(frozen=True)
class Face:
    """One font file, or Pillow's own font (no path)."""

    path: Path | None
    family: str
    scripts: frozenset[str]
    mono: bool


@dataclass(frozen=True)
class Library:
    """The faces of one picture, by family, so that a family of many files counts once."""

    faces: tuple[Face, ...]

    def face(self, rng: Rng, script: str = "latin", *, mono: bool = False) -> Face:
        """A face that draws the script; of even pitch if `mono` and there is one."""
        able = [face for face in self.faces if script in face.scripts]
        even = [face for face in able if face.mono]
        if mono and even:
            able = even
        family = pick(rng, list(dict.fromkeys(face.family for face in able)))
        return pick(rng, [face for face in able if face.family == family])

    def relative(self, rng: Rng, face: Face, script: str = "latin") -> Face:
        """Another face of the family (bold, italic), or now and then of another family."""
        if chance(rng, 0.25):
            return self.face(rng, script)
        same = [one for one in self.faces if one.family == face.family and script in one.scripts]
        return pick(rng, same)

    def scripts(self) -> frozenset[str]:
        """All scripts that some face draws."""
        return frozenset().union(*(face.scripts for face in self.faces))


def folders_of_system() -> tuple[Path, ...]:
    """Where this kind of system keeps fonts, of all users and of this one."""
    home = Path.home()
    if sys.platform == "win32":
        windows = Path(os.environ.get("WINDIR", r"C:\Windows"))
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        return windows / "Fonts", local / "Microsoft" / "Windows" / "Fonts"
    if sys.platform == "darwin":
        return Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return (
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        data / "fonts",
        home / ".fonts",
    )


def find_fonts(folders: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Font files that draw Latin letters, sorted by name; by default those of the system.

    Of files of the same name in several folders the first is taken, and files that cannot be read
    or lack letters (symbols, emoji) are passed over. Empty, with a RealesrWarning, if the system
    has none. Raises ConfigError if a folder was named that does not exist or has no such font.
    """
    found: dict[str, Path] = {}
    for folder in folders_of_system() if folders is None else folders:
        here = _fonts_below(folder)
        if folders is not None and not here:
            why = "has no TrueType font with Latin letters" if folder.is_dir() else "no such folder"
            raise ConfigError(f"{folder}: {why}: name a folder with .ttf or .otf files")
        for path in here:
            found.setdefault(path.name.lower(), path)
    if not found:
        warnings.warn(
            "no TrueType font was found: text is drawn in Pillow's own one only; --fonts names a "
            "folder of fonts",
            RealesrWarning,
            stacklevel=2,
        )
    return tuple(found[name] for name in sorted(found))


def _fonts_below(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [path for path in paths if (face := _probe(path)) and "latin" in face.scripts]


@lru_cache(maxsize=32)
def library(fonts: tuple[Path, ...]) -> Library:
    """The faces of font files, or Pillow's own scalable font if there are none.

    Raises ConfigError if a file is no font or lacks Latin letters.
    """
    if not fonts:
        return Library((_own(),))
    faces = []
    for path in fonts:
        face = _probe(path)
        if face is None or "latin" not in face.scripts:
            raise ConfigError(f"{path}: no scalable font with Latin letters: leave it out")
        faces.append(face)
    return Library(tuple(faces))


@lru_cache(maxsize=4096)
def _probe(path: Path) -> Face | None:
    """What a font file can draw; None if it cannot be read as a scalable font."""
    try:
        return _look(path, ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def _own() -> Face:
    return _look(None, load(None, 24))


def _look(path: Path | None, font: Font) -> Face:
    missing = bytes(font.getmask(_NOWHERE))
    scripts = {
        script
        for script, letters in SAMPLES.items()
        if all(_drawn(font, letter, missing) for letter in letters)
    }
    family = font.getname()[0] or (path.stem if path else "")
    mono = font.getlength("i") == font.getlength("m")
    return Face(path, family, frozenset(scripts), mono)


def _drawn(font: Font, letter: str, missing: bytes) -> bool:
    shape = bytes(font.getmask(letter))
    return any(shape) and shape != missing


@lru_cache(maxsize=256)
def load(path: Path | None, size: int) -> Font:
    """A font at a size in pixels; letters are placed by Pillow itself, alike on every system."""
    if path is None:
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise ConfigError("Pillow lacks FreeType here, and draws no text: install it from PyPI")
        return font
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
