"""Back-projection: it approaches the original with every iteration, and why it must."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.ops.back_projection import KERNELS, back_project, make_axis_steps, sum_residuals
from realesr_cli.ops.resize import resize


def patterns(size: int) -> dict[str, Tensor]:
    """Originals (1, 3, size, size) of several kinds: smooth, rough, and of hard edges."""
    rows, columns = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    generator = torch.Generator().manual_seed(3)
    found = {
        "waves": 0.5 + 0.3 * torch.sin(columns / 3) * torch.cos(rows / 5),
        "ramp": 0.1 + 0.8 * columns / size,
        "noise": torch.rand(size, size, dtype=torch.float64, generator=generator),
        "disc": ((rows - size / 2).hypot(columns - size / 2) < size / 3).double(),
        "stripes": (columns % 3 == 0).double(),
        "checks": ((rows + columns) % 2),
    }
    return {name: plane.expand(1, 3, -1, -1).clone() for name, plane in found.items()}


def starts(original: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """What a network might have made of it: well, badly, or not at all."""
    generator = torch.Generator().manual_seed(4)
    return {
        "bicubic": resize(original, size, "matlab").clamp(0, 1),
        "blocks": torch.nn.functional.interpolate(original, size=size),
        "noise": torch.rand(1, 3, *size, dtype=torch.float64, generator=generator),
    }


def fidelity(enlarged: Tensor, original: Tensor) -> float:
    """PSNR in dB of the enlarged image's own reduction against the original."""
    height, width = original.shape[-2:]
    error = float((resize(enlarged, (height, width), "matlab") - original).square().mean())
    return -10 * math.log10(error)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(96, 96), (48, 48), (63, 89), (27, 30)])
@pytest.mark.parametrize("kind", patterns(4))
def test_fidelity_rises_with_every_iteration(kernel: str, size: tuple[int, int], kind: str) -> None:
    original = patterns(24)[kind]
    for name, start in starts(original, size).items():
        found = [
            fidelity(back_project(start, original, iterations=n, kernel=kernel), original)
            for n in range(9)
        ]
        assert all(b > a for a, b in pairwise(found)), (name, found)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ratio", [1.05, 1.5, 2, 2.5, 3, 3.7, 4, 8])
def test_no_image_can_get_worse(kernel: str, ratio: float) -> None:
    """An iteration multiplies the residual by a matrix of norm below 1, whatever the image."""
    steps = []
    for size in (1, 2, 7, 12):
        step = make_axis_steps(size, max(size + 1, round(size * ratio)), kernel).step
        steps.append(step.apply(torch.eye(size, dtype=torch.float64), -2))
    for rows in steps:
        for columns in steps:
            both = torch.kron(rows, columns)
            norm = torch.linalg.matrix_norm(torch.eye(len(both)) - both, 2)
            assert norm < 0.999


@pytest.mark.parametrize("kernel", KERNELS)
def test_clamping_and_rounding_are_what_ends_the_rise(kernel: str) -> None:
    """Black on white has no room for the overshoot of a sharper edge; a smooth image has."""
    images = patterns(24)

    def rises(kind: str, finish: Callable[[Tensor], Tensor]) -> bool:
        original = images[kind]
        start = starts(original, (96, 96))["blocks"]
        ends = (back_project(start, original, iterations=n, kernel=kernel) for n in range(13))
        found = [fidelity(finish(end), original) for end in ends]
        return all(b > a for a, b in pairwise(found))

    def clamped(x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    def rounded(x: Tensor) -> Tensor:
        return (x * 255).round() / 255

    assert rises("waves", clamped)
    assert not rises("disc", clamped)
    assert not rises("waves", rounded)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_reduces_to_the_original_is_left_alone(kernel: str) -> None:
    flat = torch.full((1, 1, 20, 28), 0.3, dtype=torch.float64)
    found = back_project(flat, flat[..., :5, :7], iterations=20, kernel=kernel)
    torch.testing.assert_close(found, flat)


def test_no_iterations_change_nothing_and_make_a_copy() -> None:
    enlarged = torch.rand(1, 3, 8, 8)
    found = back_project(enlarged, torch.rand(1, 3, 4, 4), iterations=0)
    assert torch.equal(found, enlarged)
    assert found.data_ptr() != enlarged.data_ptr()


def test_values_may_leave_the_range_inside() -> None:
    original = patterns(24)["disc"]
    found = back_project(starts(original, (96, 96))["bicubic"], original, iterations=20)
    assert found.min() < -0.1
    assert found.max() > 1.1


def test_single_precision_is_near_double() -> None:
    original = patterns(24)["noise"]
    start = starts(original, (96, 96))["noise"]
    for kernel in KERNELS:
        exact = back_project(start, original, iterations=20, kernel=kernel)
        found = back_project(start.float(), original.float(), iterations=20, kernel=kernel)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, atol=5e-6, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_part_of_the_sum_needs_only_its_surroundings(kernel: str) -> None:
    axes = (make_axis_steps(60, 150, kernel), make_axis_steps(20, 50, kernel))
    residual = torch.rand(3, 60, 20, dtype=torch.float64)
    whole = sum_residuals(residual, axes, 6)
    halo = 5 * axes[0].reach
    for start, stop in [(0, 9), (28, 31), (55, 60)]:
        low, high = max(0, start - halo), min(60, stop + halo)
        part = sum_residuals(residual[:, low:high], axes, 6, origin=low, wanted=(start, stop))
        torch.testing.assert_close(part, whole[:, start:stop])


def test_what_cannot_be_is_refused() -> None:
    small, large = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 8, 8)
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"):
        back_project(large, small, iterations=1, kernel="gausian")
    with pytest.raises(ConfigError, match="at least 0"):
        back_project(large, small, iterations=-1)
    with pytest.raises(ConfigError, match="from 8 to 8 pixels"):
        back_project(large, large, iterations=1)
    with pytest.raises(ConfigError, match="from 8 to 4 pixels"):
        back_project(small, large, iterations=1)
