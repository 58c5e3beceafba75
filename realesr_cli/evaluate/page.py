"""Write a comparison as one self-contained HTML page, which never uses the network."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as pillow

from realesr_cli.atomic import atomic_write, write_errors
from realesr_cli.errors import RealesrWarning
from realesr_cli.evaluate.comparison import (
    Comparison,
    ModelSummary,
    Photo,
    PhotoVersion,
    WeightsFile,
    best_of,
    full_score,
    pixels_of,
    score_text,
)
from realesr_cli.evaluate.scores import METRICS
from realesr_cli.evaluate.settings import PageSettings
from realesr_cli.image.color import is_srgb
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image
from realesr_cli.text import format_bytes

_DEFAULTS = PageSettings()

LARGE_PAGE = 60_000_000
"""Size of a page in bytes above which browsers get slow."""

_PIXEL_BYTES, _LOSSY_PIXEL_BYTES = 1.4, 0.2
"""Usual bytes per pixel in a page, lossless and at quality 90.

On 14 photos, lossless bicubic took 0.2 to 1.6 and models 0.3 to 2.4; quality 90 at most 0.5.
"""

_WEBP_SIDE = 16_383
"""Longest side in pixels of a WebP image."""


def write_page(comparison: Comparison, path: Path, settings: PageSettings = _DEFAULTS) -> int:
    """Write the page atomically, replacing an existing file; return its size in bytes.

    Images are embedded as WebP, lossless unless the settings give a quality, or as PNG if they are
    too long for WebP. Raises WriteError if it cannot be written.
    """
    size = 0
    with write_errors(path), atomic_write(path) as file:
        for part in page_parts(comparison, settings):
            size += file.write(part.encode("utf-8", "replace"))
    return size


def warn_about_size(pixels: int, settings: PageSettings = _DEFAULTS) -> None:
    """Warn about a page with so many pixels that browsers get slow."""
    lossless = settings.quality is None
    expected = pixels * (_PIXEL_BYTES if lossless else _LOSSY_PIXEL_BYTES)
    if expected > LARGE_PAGE:
        hint = ", or set quality to 90" if lossless else ""
        warnings.warn(
            f"the page will have roughly {format_bytes(int(expected))} and open slowly: use fewer "
            f"or smaller photos{hint}",
            RealesrWarning,
            stacklevel=2,
        )


def page_parts(comparison: Comparison, settings: PageSettings = _DEFAULTS) -> Iterator[str]:
    """Yield the page as pieces of text, one photo at a time."""
    template = _template()
    values = {
        "policy": _policy(template),
        "generator": f"realesr-cli {comparison.version}",
        "title": escape(settings.title or _title(comparison)),
        "summary": escape(_summary(comparison)),
        "settings": _settings(comparison),
        "footer": escape(_footer(comparison, settings)),
    }
    before, after = template.split("{{photos}}")
    yield _filled(before, values)
    for photo in comparison.photos:
        yield from _photo(photo, comparison.scale, settings)
    for failure in comparison.failures:
        yield f'<p class="failed">Excluded: {escape(failure.error)}</p>\n'
    yield _filled(after, values)


def data_uri(image: Image, quality: int | None = None) -> str:
    """Encode an 8-bit image as `data:image/...;base64,...`: WebP, or PNG above WebP's limit.

    The color profile is embedded unless it is sRGB.
    """
    icc = None if image.icc is None or is_srgb(image.icc) else image.icc
    if max(image.height, image.width) > _WEBP_SIDE:
        kind, data = "png", encode_image(Image(image.pixels, image.alpha, icc=icc), "png")
    else:
        kind, data = "webp", _webp(image, icc, quality)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(image: Image, icc: bytes | None, quality: int | None) -> bytes:
    img = pillow.fromarray(np.asarray(pixels_of(image)))
    buffer = BytesIO()
    if quality is None:
        # For lossless images these are efforts: the highest save 2 % and take three times as long.
        img.save(buffer, "WEBP", lossless=True, exact=True, quality=20, method=1, icc_profile=icc)
    else:
        img.save(buffer, "WEBP", quality=quality, icc_profile=icc)
    return buffer.getvalue()


@cache
def _template() -> str:
    return (files("realesr_cli.evaluate") / "page.html").read_text(encoding="utf-8")


def _filled(template: str, values: dict[str, str]) -> str:
    """Replace the marks `{{name}}`, in one pass so that no value is taken for a mark."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: values[mark[1]], template)


def _policy(template: str) -> str:
    """Return a Content-Security-Policy of this page's script, style and embedded images alone."""
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        rules.append(f"{kind}-src 'sha256-{digest}'")
    return "; ".join(rules)


def _title(comparison: Comparison) -> str:
    photos = comparison.photos
    return photos[0].name if len(photos) == 1 else f"{len(photos)} photos"


def _summary(comparison: Comparison) -> str:
    made = [v.name for v in comparison.photos[0].versions if v.kind in ("bicubic", "model")]
    listed = made[0] if len(made) == 1 else ", ".join(made[:-1]) + f" and {made[-1]}"
    return f"upscaled x{comparison.scale} by {listed}"


def _footer(comparison: Comparison, settings: PageSettings) -> str:
    kept = (
        "Images are embedded losslessly"
        if settings.quality is None
        else f"Images are embedded as WebP of quality {settings.quality}"
    )
    scored = any(version.scores for photo in comparison.photos for version in photo.versions)
    border = f"Scores exclude {comparison.scale} border pixels. " if scored else ""
    return (
        f"{kept}, with 8 bits per channel. Bicubic is MATLAB's. {border}"
        f"Made by realesr-cli {comparison.version}."
    )


def _photo(photo: Photo, scale: int, settings: PageSettings) -> Iterator[str]:
    name = escape(photo.name)
    yield (
        f'<article class="photo card" data-name="{name}" data-width="{photo.width}" '
        f'data-height="{photo.height}">\n<h2>{name}</h2>\n<div class="images">\n'
    )
    for version in photo.versions:
        yield _figure(photo, version, scale, settings)
    yield "</div>\n" + _scores(photo)
    for note in photo.notes:
        yield f'<p class="note">{escape(note[:1].upper() + note[1:])}.</p>\n'
    yield "</article>\n"


def _figure(photo: Photo, version: PhotoVersion, scale: int, settings: PageSettings) -> str:
    factor = scale if version.kind == "input" else 1
    # The input stays lossless: it is small, and its single pixels are looked at.
    quality = None if version.kind == "input" else settings.quality
    scores = ", ".join(full_score(key, value) for key, value in version.scores.items())
    name = escape(version.name)
    image = version.image
    return (
        f'<figure data-name="{name}" data-factor="{factor}" data-score="{escape(scores)}"'
        f"{' data-alpha' if image.has_alpha else ''}>"
        f'<img src="{data_uri(image, quality)}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(photo.name)}, {name}"><figcaption>{name}</figcaption></figure>\n'
    )


def _scores(photo: Photo) -> str:
    keys = [key for key in METRICS if any(key in v.scores for v in photo.versions)]
    heads = "".join(f'<th scope="col">{escape(_head(key))}</th>' for key in keys)
    best = {key: best_of(key, photo.versions) for key in keys}
    rows = []
    for version in photo.versions:
        cells = []
        for key in keys:
            mark = ' class="best"' if version in best[key] else ""
            value = version.scores.get(key)
            text = "" if value is None else score_text(key, value)
            cells.append(f"<td{mark}>{text}</td>")
        taken = "" if version.seconds is None else f"{version.seconds:.2f} s"
        size = f"{version.image.width} x {version.image.height}"
        rows.append(
            f'<tr><th scope="row">{escape(version.name)}</th><td>{size}</td>{"".join(cells)}'
            f"<td>{taken}</td></tr>\n"
        )
    return (
        f'<table class="scores"><thead><tr><th scope="col">Version</th><th scope="col">Pixels</th>'
        f'{heads}<th scope="col">Time</th></tr></thead>\n<tbody>\n{"".join(rows)}</tbody></table>\n'
    )


def _head(key: str) -> str:
    metric = METRICS[key]
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {'↑' if metric.higher else '↓'}"


def _settings(comparison: Comparison) -> str:
    models = comparison.models
    heads = "".join(f'<th scope="col">{escape(model.name)}</th>' for model in models)
    rows = []
    for label, texts in _properties(models):
        cells = "".join(f"<td>{text}</td>" for text in texts)
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>\n')
    return (
        '<section class="settings card" aria-label="Models and settings">\n<table><thead><tr>'
        f'<th scope="col">Model</th>{heads}</tr></thead>\n<tbody>\n{"".join(rows)}</tbody>'
        "</table>\n</section>"
    )


def _properties(models: Sequence[ModelSummary]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table of models; the texts are HTML."""
    yield "Network", [escape(m.network) for m in models]
    yield "Scale", [f"x{m.scale}" for m in models]
    yield "File", ["<br>".join(_file(f) for f in m.files) for m in models]
    yield "SHA-256", ["<br>".join(f"<code>{f.sha256}</code>" for f in m.files) for m in models]
    yield "License", [escape(m.license) for m in models]
    yield "Device", [escape(f"{m.device}, {m.precision}, {m.backend}") for m in models]
    yield "Tile", [_tile(m) for m in models]


def _file(file: WeightsFile) -> str:
    share = "" if file.share == 1 else f" ({file.share:.0%})"
    return escape(file.name) + share


def _tile(model: ModelSummary) -> str:
    if not model.tile:
        return "whole image"
    return f"{model.tile} pixels, overlap {model.overlap or 0}"
