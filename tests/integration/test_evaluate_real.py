"""Known numbers: bicubic on Set5, NIQE of a test image, published weights on Kodak24."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realesr_cli.evaluate.evaluation import evaluate
from realesr_cli.evaluate.settings import ImageSetSettings, ScoreSettings
from realesr_cli.image.read import read_rgb8
from realesr_cli.metrics.niqe import niqe
from realesr_cli.metrics.perceptual import PerceptualDistance
from realesr_cli.metrics.reference import psnr, round_luma, ssim
from realesr_cli.ops.quantize import from_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.import_models import import_models

pytestmark = pytest.mark.slow


def test_bicubic_on_set5_is_the_known_number(shared: Path) -> None:
    """28.42 dB, as tables print it: luma rounded to 8 bits, which MATLAB's rgb2ycbcr does."""
    folder = shared / "data" / "bench" / "Set5"
    settings = ScoreSettings(metrics=("psnr-y8", "ssim-y8", "psnr-y"))
    for which in (
        ImageSetSettings(gt=folder, lq=folder),
        ImageSetSettings(gt=folder, degrade="bicubic", scale=4),
    ):
        found = evaluate(which, settings=settings)
        assert len(found.images) == 5
        assert found.mean("bicubic", "psnr-y8") == pytest.approx(28.42, abs=0.005)
        assert found.mean("bicubic", "ssim-y8") == pytest.approx(0.8104, abs=0.0005)
        assert found.mean("bicubic", "psnr-y") == pytest.approx(28.43, abs=0.005)


def test_luma_alone_gives_the_pair_in_print(shared: Path) -> None:
    """28.42 / 0.8104: rounded luma made smaller and larger, nothing rounded in between."""
    found = []
    for path in sorted((shared / "data" / "bench" / "Set5").glob("*_HR.png")):
        luma = round_luma(from_8bit_levels(read_rgb8(path)))
        again = imresize(imresize(luma[None], 1 / 4), 4)[0]
        found.append((psnr(again, luma, crop=4), ssim(again, luma, crop=4)))
    assert np.mean(found, axis=0) == pytest.approx([28.42, 0.8104], abs=0.005)
    assert np.mean(found, axis=0)[1] == pytest.approx(0.8104, abs=5e-5)


def test_niqe_of_the_test_image(shared: Path) -> None:
    img = from_8bit_levels(read_rgb8(shared / "data" / "bench" / "baboon.png"))
    assert niqe(img) == pytest.approx(5.7296, abs=1e-3)


def test_gray_and_odd_sizes_of_set14(shared: Path) -> None:
    folder = shared / "data" / "bench" / "Set14"
    found = evaluate(ImageSetSettings(gt=folder, lq=folder), settings=ScoreSettings(channel="y8"))
    assert (len(found.images), found.failures) == (14, ())
    assert found.mean("bicubic", "psnr-y8") == pytest.approx(26.09, abs=0.01)


def test_published_weights_on_kodak24(shared: Path) -> None:
    data = shared / "data"
    folder = data / "bench" / "Kodak24"
    which = ImageSetSettings(gt=folder / "gt", lq=folder / "lq_second_order_x4")
    weights = data / "weights"
    models = [weights / "realesr-general-x4v3.fp16.pth", weights / "realesr-animevideov3.pth"]
    found = evaluate(which, models)
    expected = {
        "bicubic": (22.035, 0.5611, 10.242),
        "realesr-general-x4v3.fp16": (22.128, 0.5891, 5.511),
        "realesr-animevideov3": (21.635, 0.5440, 9.513),
    }
    for method, (fidelity, structure, natural) in expected.items():
        assert found.mean(method, "psnr-rgb") == pytest.approx(fidelity, abs=0.002)
        assert found.mean(method, "ssim-y") == pytest.approx(structure, abs=0.0002)
        assert found.mean(method, "niqe") == pytest.approx(natural, abs=0.01)


def test_the_perceptual_distance_on_kodak24(shared: Path) -> None:
    """The table of docs/evaluation.md; its bicubic is OpenCV's, which the first number is of."""
    data = shared / "data"
    folder = data / "bench" / "Kodak24"
    weights = data / "metrics" / "squeezenet1_1.safetensors"
    which = ImageSetSettings(gt=folder / "gt", lq=folder / "lq_second_order_x4")
    models = [data / "weights" / name for name in (
        "realesr-general-x4v3.fp16.pth", "realesr-animevideov3.pth",
    )]  # fmt: skip
    import_models(weights)
    settings = ScoreSettings(metrics=("feat-squeeze",), offline=True)
    found = evaluate(which, models, settings=settings)
    means = [found.mean(m, "feat-squeeze") for m in found.methods]
    assert means[1:] == pytest.approx([0.813, 0.999], abs=0.003)
    distance = PerceptualDistance(read_state(weights)[0])
    opencv = []
    for path in sorted((folder / "gt").glob("*.png")):
        gt = read_rgb8(path)
        lq = read_rgb8(folder / "lq_second_order_x4" / path.name)
        up = cv2.resize(lq, gt.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        opencv.append(float(distance(from_8bit_levels(up), from_8bit_levels(gt), crop=4)))
    assert np.mean(opencv) == pytest.approx(1.042, abs=0.003)
