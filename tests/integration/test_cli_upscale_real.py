"""`realesr upscale` with official weights on real images: what a new user would try."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from upscale_cli import Shell

pytestmark = pytest.mark.slow


def test_a_folder_of_every_kind_of_image(shell: Shell, shared: Path):
    source = shared / "data" / "bench" / "inputs"
    names = ["0014.jpg", "wolf_gray.jpg", "children-alpha.png", "tree_alpha_16bit.png"]
    for name in names:
        Path("in", "sub").mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, Path("in", "sub" if "alpha" in name else "", name))
    weights = shared / "data" / "weights" / "realesr-animevideov3.pth"
    outcome = shell("in", "-o", "out", "--recursive", "--json", model=weights)
    assert outcome.code == 0
    assert outcome.summary["done"] == len(names)
    for item in outcome.images:
        before = cv2.imread(item["input"], cv2.IMREAD_UNCHANGED)
        after = cv2.imread(item["output"], cv2.IMREAD_UNCHANGED)
        height, width = before.shape[:2]
        assert after.shape == (4 * height, 4 * width, *before.shape[2:])
        assert after.dtype == before.dtype
        small = cv2.resize(after, (width, height), interpolation=cv2.INTER_AREA)
        top = np.iinfo(before.dtype).max
        if before.ndim == 3 and before.shape[2] == 4:  # color counts where it can be seen
            small, before = (x * (before[..., 3:] == top) for x in (small, before))
        difference = small / top - before / top
        assert np.sqrt((difference**2).mean()) < 0.08  # the grain of 0014.jpg alone makes 0.07
        assert abs(difference.mean()) < 0.02


def test_the_call_of_the_readme(shell: Shell, shared: Path):
    image = shared / "data" / "bench" / "inputs" / "OST_009.png"
    weights = shared / "data" / "weights" / "realesr-general-x4v3.fp16.pth"
    arguments = (image, "-s", "4", "--tile", "512", "-o", "out/")
    outcome = shell(*arguments, model=weights)
    assert outcome.code == 0
    result = cv2.imread("out/OST_009_x4.png")
    assert result.shape == (2560, 1792, 3)
    noisy = shell(*arguments, "--denoise", "0", "--overwrite", model=weights)
    assert noisy.code == 0
    assert (cv2.imread("out/OST_009_x4.png") != result).any()
