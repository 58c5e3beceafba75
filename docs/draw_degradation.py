"""Draw the images of degradation.md with the package's own code: python docs/draw_degradation.py.

All are made from images/kitten.jpg, part of a CC0 photo; the result is deterministic.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from realesr_cli.degrade.degradation import sample
from realesr_cli.degrade.kernels import Kernel, build_kernel
from realesr_cli.degrade.presets import get_preset
from realesr_cli.degrade.preview import Pixels, degrade_image, make_sheet
from realesr_cli.degrade.recipe import (
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
)
from realesr_cli.image.read import from_array, read_image
from realesr_cli.image.write import WriteSettings, write_image

IMAGES = Path(__file__).parent / "images"
# The part shown where single pixels matter (enlarged twice), and where a quarter of the size is
# shown (enlarged four times): both give squares of the same side.
NEAR_TOP, NEAR_LEFT, NEAR_SIDE = 164, 48, 112
FAR_TOP, FAR_LEFT, FAR_SIDE = 92, 4, 224
GAP = 4

KERNELS = (
    Kernel("iso", 21, 2.5),
    Kernel("aniso", 21, 3.0, 1.0, math.pi / 5),
    Kernel("generalized_aniso", 21, 3.0, 1.0, math.pi / 5, 2.5),
    Kernel("plateau_iso", 21, 2.0, beta=1.2),
    Kernel("sinc", 21, cutoff=math.pi / 3),
)


def main() -> None:
    """Draw all images."""
    photo = read_image(IMAGES / "kitten.jpg").pixels
    draw("sharpen", [cell(photo), cell(photo, Sharpen()), cell(photo, Sharpen(weight=1.5))])
    draw_row_above("blur", [kernel_image(k) for k in KERNELS],
                   [cell(photo, Filter(k)) for k in KERNELS])  # fmt: skip
    draw("resize", [shrunk(photo, mode) for mode in ("area", "bilinear", "bicubic", "matlab")])
    noises = (
        GaussianNoise(25.0, False, 1),
        GaussianNoise(25.0, True, 1),
        PoissonNoise(2.0, False, 256, 1),
        PoissonNoise(2.0, True, 256, 1),
    )
    draw("noise", [cell(photo, noise) for noise in noises])
    draw("jpeg", [cell(photo, Compress(quality)) for quality in (95.0, 60.0, 30.0, 10.0)])
    draw("end", [ending(photo, jpeg_last=last) for last in (True, False)])
    draw("chain", chain(photo))
    for name in ("realesrgan", "bsrgan", "light"):
        draw_sheet(name, photo)


def cell(photo: Pixels, *operations: Operation) -> Pixels:
    """Return the shown part, enlarged twice, after operations that keep the size."""
    shown = run(photo, operations)[NEAR_TOP : NEAR_TOP + NEAR_SIDE]
    return enlarged(shown[:, NEAR_LEFT : NEAR_LEFT + NEAR_SIDE], 2)


def run(photo: Pixels, operations: tuple[Operation, ...], scale: int = 1) -> Pixels:
    height, width = photo.shape[:2]
    return degrade_image(photo, Recipe(scale, height, width, (*operations, Round())))


def part(pixels: Pixels, divisor: int) -> Pixels:
    """Return the larger part, of an image `divisor` times smaller than the photo."""
    top, left, side = FAR_TOP // divisor, FAR_LEFT // divisor, FAR_SIDE // divisor
    return pixels[top : top + side, left : left + side]


def enlarged(pixels: Pixels, factor: int) -> Pixels:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def shrunk(photo: Pixels, mode: str) -> Pixels:
    """Return the photo at a quarter of the size, enlarged four times."""
    return enlarged(part(run(photo, (Scale(80, 100, mode),), 4), 4), 4)


def ending(photo: Pixels, *, jpeg_last: bool) -> Pixels:
    """Return the final resize and JPEG in either order, from an image of half the size."""
    shrink = (Scale(80, 100, "bicubic"), Filter(Kernel("sinc", 11, cutoff=math.pi / 2.2)))
    jpeg = (Compress(30.0),)
    start = (Scale(160, 200, "area"),)
    made = run(photo, (*start, *shrink, *jpeg) if jpeg_last else (*start, *jpeg, *shrink), 4)
    return enlarged(part(made, 4), 4)


def chain(photo: Pixels) -> list[Pixels]:
    """Return one second-order degradation after each of its stages, all at the same size."""
    height, width = photo.shape[:2]
    recipe = sample(
        get_preset("realesrgan"), np.random.default_rng(6), scale=4, size=(height, width)
    )
    shown = []
    for stop in (1, 5, 8, len(recipe.operations)):
        done = recipe.operations[:stop]
        size = [(op.height, op.width) for op in done if isinstance(op, Scale)]
        back = () if not size else (Scale(80, 100, "bilinear"),)
        made = run(photo, (*done, *back), 4 if back else 1)
        shown.append(enlarged(part(made, 4), 4) if back else part(made, 1))
    return shown


def kernel_image(kernel: Kernel) -> Pixels:
    """Return the kernel as an image: white where largest, black where negative, gray at zero."""
    taps = build_kernel(kernel)
    low = min(0.0, float(taps.min()) * 4)
    levels = np.clip((taps - low) / (taps.max() - low) * 255, 0, 255).round().astype(np.uint8)
    big = np.full((FAR_SIDE, FAR_SIDE), 255, np.uint8)
    squares = enlarged(levels, FAR_SIDE // kernel.size)
    big[: squares.shape[0], : squares.shape[1]] = squares
    return big[..., None].repeat(3, axis=2)


def draw_sheet(name: str, photo: Pixels) -> None:
    """Draw the original and seven versions by a preset."""
    crop = part(photo, 1)
    rng = np.random.default_rng(4)
    recipes = [sample(get_preset(name), rng, scale=4, size=crop.shape[:2]) for _ in range(7)]
    save(f"preset-{name}", make_sheet(crop, recipes, 4))


def draw(name: str, cells: list[Pixels]) -> None:
    save(name, row(cells))


def draw_row_above(name: str, upper: list[Pixels], lower: list[Pixels]) -> None:
    top, bottom = row(upper), row(lower)
    save(name, np.concatenate([top, np.full((GAP, top.shape[1], 3), 255, np.uint8), bottom]))


def row(cells: list[Pixels]) -> Pixels:
    gap = np.full((cells[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([piece for one in cells for piece in (gap, one)][1:], axis=1)


def save(name: str, pixels: Pixels) -> None:
    path = IMAGES / f"degradation-{name}.jpg"
    write_image(from_array(pixels), path, WriteSettings(quality=60))


if __name__ == "__main__":
    main()
