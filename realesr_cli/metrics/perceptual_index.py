"""The perceptual index of the PIRM challenge, from NIQE and scores of Ma et al. made elsewhere.

Source: Blau et al. 2018, "The 2018 PIRM Challenge on Perceptual Image Super-Resolution": PI =
((10 - Ma) + NIQE) / 2, both on the luma with 4 pixels of border left out, beside the root mean
square error of the luma. Ma's score comes from regression forests that may not be shipped here.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import is_image
from realesr_cli.metrics.reference import PEAK, psnr, whole_luma
from realesr_cli.text import did_you_mean

PIRM_SHAVE = 4
MA_RANGE = (0.0, 10.0)

_SHOWN = 5


def perceptual_index(ma: float, niqe: float) -> float:
    """PI, about 2 (best) to 8, of a score of Ma et al. (0 to 10, higher is better) and a NIQE.

    ValueError where `ma` is no such score.
    """
    if not MA_RANGE[0] <= ma <= MA_RANGE[1]:
        raise ValueError(f"a score of Ma et al. lies between 0 and 10, {ma:g} does not")
    return ((MA_RANGE[1] - ma) + niqe) / 2


def rmse(a: Tensor, b: Tensor, *, crop: int = PIRM_SHAVE) -> float:
    """Root mean square error on the luma of two images of equal shape, on the scale 0..255.

    a, b: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1]; the luma is rounded to 8 bits, as
    MATLAB's is. ValueError when the shapes differ or nothing is left after the crop.
    """
    decibels = psnr(whole_luma(a), whole_luma(b), crop=crop)
    return PEAK * math.pow(10, -decibels / 20)


@dataclass(frozen=True)
class MaScores:
    """Scores of Ma et al. by method and image; the method "" stands for any one."""

    path: Path
    scores: Mapping[str, Mapping[str, float]]

    def of(self, method: str) -> Mapping[str, float] | None:
        """The scores of one method by image, or None where the file has none of it."""
        return self.scores.get(method)


def read_ma_scores(path: Path) -> MaScores:
    """Scores from a CSV or JSON file.

    CSV: lines `image,score` or `method,image,score`, with or without a heading. JSON: an object
    of scores by image, or of such objects by method. Images may be named with or without their
    extension. Raises ConfigError for a file that cannot be read, what is no score, a score outside
    0 to 10, and an image named twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json_rows(text) if path.suffix.lower() == ".json" else _csv_rows(text)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}") from None
    found: dict[str, dict[str, float]] = {}
    for method, img, value in rows:
        score = _score(value, f"{path}: {img}")
        own = found.setdefault(method, {})
        name = PurePath(img).stem if is_image(img) else img
        if own.setdefault(name, score) != score:
            raise ConfigError(f"{path}: {img} has two different scores")
    if not found:
        raise ConfigError(f"{path}: no score in it: expected lines `image,score`")
    return MaScores(path, found)


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: {value!r} is no score") from None
    if not MA_RANGE[0] <= score <= MA_RANGE[1]:
        raise ConfigError(f"{where}: {score:g}: a score of Ma et al. lies between 0 and 10")
    return score


Rows = list[tuple[str, str, Any]]


def _csv_rows(text: str) -> Rows:
    lines = [line for line in csv.reader(text.splitlines()) if any(map(str.strip, line))]
    if lines and not _is_number(lines[0][-1]):
        lines = lines[1:]
    rows: Rows = []
    for line in lines:
        if len(line) not in (2, 3):
            raise ValueError(f"{','.join(line)}: expected image,score or method,image,score")
        *method, img, value = (cell.strip() for cell in line)
        rows.append((method[0] if method else "", img, value))
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json_rows(text: str) -> Rows:
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("expected an object of scores by image")
    rows: Rows = []
    for key, value in data.items():
        if isinstance(value, dict):
            rows += [(key, img, score) for img, score in value.items()]
        else:
            rows.append(("", key, value))
    return rows


def assigned(ma: MaScores, methods: Sequence[str], images: Sequence[str]) -> MaScores:
    """The scores by the methods of a table, all images of each there.

    Scores without a method belong to the only one of `methods`. Raises ConfigError where whose they
    are is not certain, for methods that are not in the table, and for images without a score.
    """
    scores = dict(ma.scores)
    plain = scores.pop("", None)
    if plain is not None:
        if len(methods) != 1 or scores:
            raise ConfigError(
                f"{ma.path} does not say whose images the scores belong to: write lines "
                f"`method,image,score` (methods: {', '.join(methods)})"
            )
        scores[methods[0]] = plain
    for method, own in scores.items():
        if method not in methods:
            near = did_you_mean(method, methods)
            raise ConfigError(
                f"{ma.path}: {method} is no row of this table{near} (rows: {', '.join(methods)})"
            )
        missing = [name for name in images if name not in own]
        if missing:
            more = len(missing) - _SHOWN
            listed = ", ".join(missing[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise ConfigError(f"{ma.path}: no score of {method} for {listed}")
    return MaScores(ma.path, scores)
