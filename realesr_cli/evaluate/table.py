"""An evaluation as text of at most 100 columns, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from realesr_cli.evaluate.pictures import BICUBIC
from realesr_cli.evaluate.run import Evaluation
from realesr_cli.evaluate.scores import Metric

WIDTH = 100
_GAP = "  "
_BEST = "*"
_FEWEST_NAME = 12

Values = Sequence[float | None]


def text(evaluation: Evaluation, *, per_picture: bool = False) -> str:
    """The table for people: means, and with `per_picture` every picture's scores before them.

    The best of each column is marked with a star.
    """
    parts = [heading(evaluation)]
    if per_picture:
        for picture in evaluation.pictures:
            found = {row.method: row.values for row in evaluation.rows if row.picture == picture}
            parts.append(_table(picture, evaluation, [found[m] for m in evaluation.methods]))
    count = len(evaluation.pictures)
    if count:
        parts.append(
            _table("mean" if count > 1 else evaluation.pictures[0], evaluation, means(evaluation))
        )
    notes = [f"note: {note}" for note in evaluation.notes]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def heading(evaluation: Evaluation) -> str:
    """Which pictures, made how, and by which conventions they are scored."""
    facts = evaluation.settings
    count = len(evaluation.pictures)
    what = f"{count} picture{'' if count == 1 else 's'}"
    where = facts["gt"] or facts["lq"]
    lines = [f"{what} of {where}" if where else what]
    if facts["scale"] is not None:
        lines[0] += f", x{facts['scale']}"
    if facts["lq"] is not None and facts["gt"] is not None:
        lines.append(f"small pictures: {facts['lq']}")
    elif facts["degrade"] == BICUBIC:
        lines.append("small pictures: MATLAB bicubic of the ground truths")
    elif facts["degrade"] is not None:
        lines.append(f"small pictures: degradation {facts['degrade']}, seed {facts['seed']}")
    crop = facts["crop"]
    border = f"{crop} pixels of border left out" if crop else "no border left out"
    lines.append(f"scored at 8 bits, {border}; * is the best of a column")
    used = {(m["device"], m["precision"]) for m in facts["models"].values()}
    if used:
        lines.append("computed on " + ", ".join(f"{d} in {p}" for d, p in sorted(used)))
    return "\n".join(lines)


def means(evaluation: Evaluation) -> list[list[float | None]]:
    """The mean scores of each method, in the order of methods and columns."""
    return [
        [evaluation.mean(method, metric.key) for metric in evaluation.metrics]
        for method in evaluation.methods
    ]


def _table(title: str, evaluation: Evaluation, lines: Sequence[Values]) -> str:
    metrics, methods = evaluation.metrics, evaluation.methods
    best = [_best(metric, [line[at] for line in lines]) for at, metric in enumerate(metrics)]
    columns = []
    for at, metric in enumerate(metrics):
        head = [metric.title, ", ".join(filter(None, (metric.unit, _way(metric))))]
        cells = []
        for line in lines:
            mark = (
                _BEST if len(methods) > 1 and line[at] is not None and line[at] == best[at] else " "
            )
            cells.append(_number(metric, line[at]) + mark)
        columns.append(_right([head[0] + " ", head[1] + " ", *cells]))
    room = WIDTH - sum(len(_GAP) + len(column[0]) for column in columns)
    names = [_shortened(name, max(room, _FEWEST_NAME)) for name in (title, "", *methods)]
    wide = max(map(len, names))
    rows = zip([name.ljust(wide) for name in names], *columns, strict=True)
    return "\n".join(_GAP.join(row).rstrip() for row in rows)


def _way(metric: Metric) -> str:
    return "higher" if metric.higher else "lower"


def _best(metric: Metric, values: Values) -> float | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return max(there) if metric.higher else min(there)


def _number(metric: Metric, value: float | None) -> str:
    return "-" if value is None else f"{value:.{metric.digits}f}"


def _right(cells: Sequence[str]) -> list[str]:
    wide = max(map(len, cells))
    return [cell.rjust(wide) for cell in cells]


def _shortened(name: str, room: int) -> str:
    """The name, its middle left out where it is too long."""
    if len(name) <= room:
        return name
    half = (room - 3) // 2
    return f"{name[: room - 3 - half]}...{name[len(name) - half :]}"


def to_json(evaluation: Evaluation) -> str:
    """Everything as JSON; a score that is infinite is "inf", one that there is not is null."""
    methods = {}
    for method, line in zip(evaluation.methods, means(evaluation), strict=True):
        rows = [row for row in evaluation.rows if row.method == method]
        methods[method] = {
            "mean": _named(evaluation.metrics, line),
            "pictures": {row.picture: _named(evaluation.metrics, row.values) for row in rows},
        }
    data = {
        "settings": dict(evaluation.settings),
        "metrics": [
            {"key": m.key, "title": m.title, "unit": m.unit, "better": _way(m)}
            for m in evaluation.metrics
        ],
        "methods": methods,
        "failures": [{"picture": f.name, "error": f.error} for f in evaluation.failures],
        "notes": list(evaluation.notes),
    }
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _named(metrics: Sequence[Metric], values: Values) -> dict[str, Any]:
    plain = [v if v is None or math.isfinite(v) else str(v) for v in values]
    return {metric.key: value for metric, value in zip(metrics, plain, strict=True)}


def to_csv(evaluation: Evaluation) -> str:
    """One line for each picture and method, then the means under the picture `mean`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["picture", "method", *(m.key for m in evaluation.metrics)])
    for row in evaluation.rows:
        writer.writerow([row.picture, row.method, *_cells(row.values)])
    for method, line in zip(evaluation.methods, means(evaluation), strict=True):
        writer.writerow(["mean", method, *_cells(line)])
    return file.getvalue()


def _cells(values: Values) -> list[str]:
    return ["" if value is None else repr(value) for value in values]
