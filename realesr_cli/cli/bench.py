"""`realesr bench`: how fast every backend and precision is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import json_option
from realesr_cli.cli.terminal import print_indented_json

if TYPE_CHECKING:
    from realesr_cli.diagnostics.rates import BenchRow

_HEAD = ("network", "backend", "precision", "device", "MP/s", "GFLOP/s", "share")


@click.command("bench")
@click.option("--device", default="auto", show_default=True, help="Device, as for upscale.")
@json_option
def bench_command(device: str, as_json: bool) -> None:
    """Measure every available backend and precision.

    MP/s are output megapixels per second of an image of one megapixel, GFLOP/s the operations of
    its network, and share that of the rate of a single convolution. Each line takes some seconds;
    close other programs first.
    """
    from realesr_cli.diagnostics.rates import measure_backends

    rows = []
    if not as_json:
        click.echo(_format_line(_HEAD))
    for row in measure_backends(device):
        rows.append(row)
        if not as_json:
            click.echo(_format_row(row))
    if as_json:
        print_indented_json(rows)


def _format_row(row: BenchRow) -> str:
    start = (row.family, row.backend, row.precision, row.device)
    if row.megapixels_per_s is None or row.gflop_per_s is None or row.share is None:
        return f"{_format_line(start)}  {row.problem}"
    share = f"{row.share:.0%}"
    return _format_line((*start, f"{row.megapixels_per_s:.2f}", f"{row.gflop_per_s:.0f}", share))


def _format_line(cells: tuple[str, ...]) -> str:
    widths = (8, 11, 9, 8, 7, 8, 6)
    return "  ".join(
        cell.ljust(width) if i < 4 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )
