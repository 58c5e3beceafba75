"""Format an evaluation as text of at most 100 columns, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from realesr_cli.evaluate.comparison import printable
from realesr_cli.evaluate.evaluation import Evaluation
from realesr_cli.evaluate.images import BICUBIC
from realesr_cli.evaluate.scores import Metric

WIDTH = 100
_GAP = "  "
_BEST = "*"
_INDENT = "  "
_FEWEST_NAME = 14

Values = Sequence[float | None]

Group = tuple[str, Sequence[Values]]
"""An image's name (or `mean of N`) and the scores of each method."""


def to_text(evaluation: Evaluation, *, per_image: bool = False) -> str:
    """Format the table for people: the means, after every image's scores if `per_image`.

    A star marks the best of each column among the methods of one image, and of the mean.
    """
    groups: list[Group] = []
    if per_image:
        for image in evaluation.images:
            found = {row.method: row.values for row in evaluation.rows if row.image == image}
            groups.append((image, [found[method] for method in evaluation.methods]))
    if len(evaluation.images) == 1 and not per_image:
        groups.append((evaluation.images[0], _means(evaluation)))
    elif len(evaluation.images) > 1:
        groups.append((f"mean of {len(evaluation.images)}", _means(evaluation)))
    parts = [_heading(evaluation)]
    if groups:
        parts.append(_table(evaluation, groups))
    if evaluation.notes:
        parts.append("\n".join(f"note: {note}" for note in evaluation.notes))
    return "\n\n".join(parts)


def _heading(evaluation: Evaluation) -> str:
    """Describe the images and how their scores were computed."""
    info = evaluation.settings
    count = len(evaluation.images)
    what = f"{count} image{'' if count == 1 else 's'}"
    where = info["gt"] or info["lq"]
    lines = [f"{what} of {where}" if where else what]
    if info["scale"] is not None:
        lines[0] += f", x{info['scale']}"
    if info["lq"] is not None and info["gt"] is not None:
        lines.append(f"low-quality images: {info['lq']}")
    elif info["degrade"] == BICUBIC:
        lines.append("low-quality images: MATLAB bicubic of the ground truths")
    elif info["degrade"] is not None:
        lines.append(f"low-quality images: degradation {info['degrade']}, seed {info['seed']}")
    crop = info["crop"]
    border = f"{crop} border pixels excluded" if crop else "no border excluded"
    lines.append(f"8-bit images, {border}; * marks the best of a column")
    used = {(m["device"], m["precision"]) for m in info["models"].values()}
    if used:
        lines.append("models run on " + ", ".join(f"{d} in {p}" for d, p in sorted(used)))
    return "\n".join(lines)


def _means(evaluation: Evaluation) -> list[list[float | None]]:
    """Return the mean scores of each method, in the order of methods and columns."""
    return [
        [evaluation.mean(method, metric.key) for metric in evaluation.metrics]
        for method in evaluation.methods
    ]


def _table(evaluation: Evaluation, groups: Sequence[Group]) -> str:
    """Format the groups under two lines of heading: a line with its name, then its methods."""
    columns = [_column(metric, at, groups) for at, metric in enumerate(evaluation.metrics)]
    room = max(WIDTH - sum(len(_GAP) + len(column[0]) for column in columns), _FEWEST_NAME)
    names = ["", ""]
    for title, _ in groups:
        names.append(_shorten(title, room))
        names += [_INDENT + _shorten(m, room - len(_INDENT)) for m in evaluation.methods]
    wide = max(map(len, names))
    rows = zip([name.ljust(wide) for name in names], *columns, strict=True)
    return "\n".join(_GAP.join(row).rstrip() for row in rows)


def _column(metric: Metric, at: int, groups: Sequence[Group]) -> list[str]:
    """Return the cells of one column, equally wide, with room for the star after each."""
    unit = ", ".join(filter(None, (metric.unit, _way(metric))))
    cells = [metric.title + " ", unit + " "]
    for _, lines in groups:
        values = [line[at] for line in lines]
        cells.append("")
        for value, best in zip(values, metric.best(values), strict=True):
            mark = _BEST if best and len(values) > 1 else " "
            cells.append(_number(metric, value) + mark)
    wide = max(map(len, cells))
    return [cell.rjust(wide) for cell in cells]


def _way(metric: Metric) -> str:
    return "higher" if metric.higher else "lower"


def _number(metric: Metric, value: float | None) -> str:
    return "-" if value is None else f"{value:.{metric.digits}f}"


def _shorten(name: str, room: int) -> str:
    """Return the name on one line, its middle replaced by dots if it is too long."""
    name = printable(name)
    if len(name) <= room:
        return name
    half = (room - 3) // 2
    return f"{name[: room - 3 - half]}...{name[len(name) - half :]}"


def to_json(evaluation: Evaluation) -> str:
    """Return everything as JSON; an infinite score is "inf", a missing one is null."""
    methods = {}
    for method, line in zip(evaluation.methods, _means(evaluation), strict=True):
        rows = [row for row in evaluation.rows if row.method == method]
        methods[method] = {
            "mean": _named(evaluation.metrics, line),
            "images": {row.image: _named(evaluation.metrics, row.values) for row in rows},
        }
    data = {
        "settings": dict(evaluation.settings),
        "metrics": [
            {"key": m.key, "title": m.title, "unit": m.unit, "better": _way(m)}
            for m in evaluation.metrics
        ],
        "methods": methods,
        "failures": [{"image": f.name, "error": f.error} for f in evaluation.failures],
        "notes": list(evaluation.notes),
    }
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _named(metrics: Sequence[Metric], values: Values) -> dict[str, Any]:
    plain = [v if v is None or math.isfinite(v) else str(v) for v in values]
    return {metric.key: value for metric, value in zip(metrics, plain, strict=True)}


def to_csv(evaluation: Evaluation) -> str:
    """Return a line for each image and method, then the means as the image `mean`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "method", *(m.key for m in evaluation.metrics)])
    for row in evaluation.rows:
        writer.writerow([row.image, row.method, *_cells(row.values)])
    for method, line in zip(evaluation.methods, _means(evaluation), strict=True):
        writer.writerow(["mean", method, *_cells(line)])
    return file.getvalue()


def _cells(values: Values) -> list[str]:
    return ["" if value is None else repr(value) for value in values]
