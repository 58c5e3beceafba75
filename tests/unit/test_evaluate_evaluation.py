"""An evaluation: rows, baseline, degradations, what is refused, and what fails alone."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from upscale_cli import save_tiny

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import (
    ConfigError,
    DatasetError,
    ImageWriteError,
    ModelUnavailableError,
    UnsupportedImageError,
)
from realesr_cli.evaluate import scores
from realesr_cli.evaluate.evaluated_models import EvaluatedModel, open_models
from realesr_cli.evaluate.evaluation import Evaluation, evaluate
from realesr_cli.evaluate.images import (
    OutputWriter,
    load_degradation,
    make_degrade,
    resize_bicubic,
)
from realesr_cli.evaluate.scores import METRICS, Scorer, load_scorer, select_metrics
from realesr_cli.evaluate.settings import ImageSetSettings, ScoreSettings
from realesr_cli.image.probe import probe
from realesr_cli.image.read import read_rgb8
from realesr_cli.image.types import Image
from realesr_cli.metrics.perceptual import LAYERS, PerceptualDistance
from realesr_cli.metrics.reference import psnr, ssim
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.features import SqueezeNetFeatures
from realesr_cli.ops.quantize import from_8bit_levels
from realesr_cli.weights.load import OpenedModel, open_model

ENGINE = EngineSettings(device="cpu", precision="fp32", threads=1)
PLAIN = ScoreSettings(metrics=("psnr", "ssim"))


def textured(path: Path, height: int = 48, width: int = 64, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.stem.encode())
    small = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    pillow.fromarray(small).resize((width, height), pillow.Resampling.BICUBIC).convert(mode).save(
        path
    )
    return path


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        textured(tmp_path / "gt" / f"{name}.png")
    return tmp_path / "gt"


@pytest.fixture
def lq(gt: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "lq"
    folder.mkdir()
    for path in gt.iterdir():
        pillow.fromarray(resize_bicubic(read_rgb8(path), 0.25)).save(folder / f"{path.stem}x4.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth")


def with_damage(png: bytes) -> bytes:
    """The same file with other bytes in the middle of its pixels."""
    at = png.index(b"IDAT") + 40
    return png[:at] + bytes(60) + png[at + 60 :]


def network(scale: int) -> Upscaler:
    torch.manual_seed(3)
    return Upscaler(CompactArchitecture(scale=scale, features=8, convs=1).build().eval(), ENGINE)


def values(evaluation: Evaluation, method: str, img: str) -> tuple[float | None, ...]:
    return next(r.values for r in evaluation.rows if (r.method, r.image) == (method, img))


def test_bicubic_is_the_first_row_and_scored_as_by_hand(gt: Path, lq: Path, tiny: Path) -> None:
    found = evaluate(ImageSetSettings(gt=gt, lq=lq), [tiny], settings=PLAIN, engine=ENGINE)
    assert found.methods == ("bicubic", "tiny")
    assert found.images == ("a", "b")
    assert found.failures == ()
    truth = from_8bit_levels(read_rgb8(gt / "a.png"))
    plain = from_8bit_levels(resize_bicubic(read_rgb8(lq / "ax4.png"), 4))
    expected = psnr(plain, truth, crop=4), ssim(plain, truth, crop=4, luma=True)
    assert values(found, "bicubic", "a") == expected
    mean = (expected[0] + values(found, "bicubic", "b")[0]) / 2
    assert found.mean("bicubic", "psnr-rgb") == pytest.approx(mean)


def test_a_models_image_is_what_the_upscaler_makes(gt: Path, lq: Path) -> None:
    upscaler = network(4)
    found = evaluate(
        ImageSetSettings(gt=gt, lq=lq),
        [EvaluatedModel("mine", upscaler)],
        settings=PLAIN,
        engine=ENGINE,
    )
    made = from_8bit_levels(upscaler(Image(read_rgb8(lq / "ax4.png"))).pixels)
    truth = from_8bit_levels(read_rgb8(gt / "a.png"))
    assert values(found, "mine", "a")[0] == psnr(made, truth, crop=4)


def test_images_made_small_here_score_as_those_given(gt: Path, lq: Path) -> None:
    given = evaluate(ImageSetSettings(gt=gt, lq=lq), settings=PLAIN)
    made = evaluate(ImageSetSettings(gt=gt, degrade="bicubic", scale=4), settings=PLAIN)
    assert [row.values for row in given.rows] == [row.values for row in made.rows]


def test_the_degradation_of_an_image_depends_on_its_name_and_the_seed(gt: Path) -> None:
    pixels = read_rgb8(gt / "a.png")
    degrade = make_degrade("realesrgan", 4, 1)
    assert degrade(pixels, "a").shape == (12, 16, 3)
    assert (degrade(pixels, "a") == make_degrade("realesrgan", 4, 1)(pixels, "a")).all()
    assert (degrade(pixels, "a") != degrade(pixels, "b")).any()
    assert (degrade(pixels, "a") != make_degrade("realesrgan", 4, 2)(pixels, "a")).any()
    with pytest.raises(UnsupportedImageError, match="tiny: 64x2"):
        degrade(pixels[:2], "tiny")


def test_a_degradation_is_a_preset_or_a_file(tmp_path: Path) -> None:
    own, run = tmp_path / "own.toml", tmp_path / "run.toml"
    own.write_text('preset = "light"\n')
    run.write_text('iters = 5\n[degradation]\npreset = "light"\n')
    assert load_degradation(str(own)) == load_degradation(str(run)) == load_degradation("light")
    with pytest.raises(ConfigError, match="did you mean 'realesrgan'"):
        load_degradation("realersgan")
    own.write_text('extends = "other.toml"\n')
    with pytest.raises(ConfigError, match="extends"):
        load_degradation(str(own))
    own.write_text("degradation = 3\n")
    with pytest.raises(ConfigError, match="expected a table"):
        load_degradation(str(own))


def test_gray_and_deep_images_are_scored_as_8_bit_rgb(tmp_path: Path) -> None:
    textured(tmp_path / "gt" / "gray.png", mode="L")
    deep = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
    pillow.fromarray(deep).save(tmp_path / "gt" / "deep.png")
    which = ImageSetSettings(gt=tmp_path / "gt", degrade="bicubic")
    found = evaluate(which, [network(4)], settings=PLAIN)
    assert found.failures == ()
    assert all(math.isfinite(value or 0) for row in found.rows for value in row.values)
    pixels = read_rgb8(tmp_path / "gt" / "deep.png")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (48, 64, 3))


def test_models_of_different_scale_are_refused_by_name(gt: Path) -> None:
    pair = [EvaluatedModel("two", network(2)), EvaluatedModel("four", network(4))]
    which = ImageSetSettings(gt=gt, degrade="bicubic")
    with pytest.raises(ConfigError, match="two x2, four x4"):
        evaluate(which, pair)
    with pytest.raises(ConfigError, match="scale = 4, but the models are: two x2"):
        evaluate(ImageSetSettings(gt=gt, degrade="bicubic", scale=4), pair[:1])


def test_each_row_has_a_name_of_its_own(tiny: Path, tmp_path: Path, gt: Path) -> None:
    other = tmp_path / "other" / "tiny.pth"
    other.parent.mkdir()
    other.write_bytes(tiny.read_bytes())
    names = [c.name for c in open_models([tiny, other], ENGINE)]
    assert names == [str(tiny), str(other)]
    assert [c.name for c in open_models([network(4), network(4)])] == ["compact 1", "compact 2"]
    with pytest.raises(ConfigError, match="two rows would be named"):
        open_models([tiny, tiny], ENGINE)
    with pytest.raises(ConfigError, match="two rows would be named bicubic"):
        evaluate(ImageSetSettings(gt=gt, degrade="bicubic", scale=4), outputs={"bicubic": gt})


def test_the_scale_decides_what_auto_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def opened(model: str, **options: object) -> OpenedModel:
        asked.update(options, model=model)
        return open_model(tiny)

    monkeypatch.setattr("realesr_cli.evaluate.evaluated_models.open_model", opened)
    open_models(["auto"], ENGINE, scale=2, offline=True)
    assert (asked["model"], asked["scale"], asked["offline"]) == ("auto", 2, True)


def test_one_image_that_cannot_be_read_leaves_the_others(gt: Path, tiny: Path) -> None:
    (gt / "c.png").write_bytes(b"not an image")
    (gt / "d.png").write_bytes(with_damage((gt / "a.png").read_bytes()))
    assert probe(gt / "d.png").height == 48  # the header is fine
    found = evaluate(
        ImageSetSettings(gt=gt, degrade="bicubic"), [tiny], settings=PLAIN, engine=ENGINE
    )
    assert found.images == ("a", "b")
    assert [failure.name for failure in found.failures] == ["c", "d"]
    assert all(f"{f.name}.png" in f.error for f in found.failures)
    assert {row.method for row in found.rows if row.image == "d"} == set()


def test_finished_images_are_a_row(gt: Path, tmp_path: Path) -> None:
    found = evaluate(ImageSetSettings(gt=gt, scale=4), outputs={"same": gt}, settings=PLAIN)
    assert found.methods == ("same",)
    assert values(found, "same", "a") == (math.inf, 1.0)
    with pytest.raises(ConfigError) as caught:
        evaluate(ImageSetSettings(gt=gt), outputs={"same": gt}, settings=PLAIN)
    assert caught.value.advice == "evaluate-crop"
    crop = ScoreSettings(metrics=("psnr",), crop=0)
    assert (
        evaluate(ImageSetSettings(gt=gt), outputs={"same": gt}, settings=crop).settings["crop"] == 0
    )


def test_a_ground_truth_is_cut_and_so_are_results_as_large_as_it(tmp_path: Path) -> None:
    textured(tmp_path / "gt" / "a.png", 51, 67)
    which = ImageSetSettings(gt=tmp_path / "gt", degrade="bicubic", scale=4)
    found = evaluate(which, outputs={"same": tmp_path / "gt"}, settings=PLAIN)
    assert values(found, "same", "a")[0] == math.inf
    lq = tmp_path / "lq" / "a.png"
    lq.parent.mkdir()
    pillow.fromarray(resize_bicubic(read_rgb8(tmp_path / "gt" / "a.png")[:48, :64], 0.25)).save(lq)
    given = evaluate(ImageSetSettings(gt=tmp_path / "gt", lq=lq.parent), settings=PLAIN)
    assert values(given, "bicubic", "a") == values(found, "bicubic", "a")
    assert values(given, "bicubic", "a")[0] > 10


def test_without_ground_truth_only_niqe_is_scored(tmp_path: Path, lq: Path) -> None:
    textured(tmp_path / "made" / "a.png", 192, 200)
    textured(tmp_path / "made" / "b.png", 40, 40)
    found = evaluate(ImageSetSettings(), outputs={"made": tmp_path / "made"})
    assert [metric.key for metric in found.metrics] == ["niqe"]
    assert values(found, "made", "a")[0] == found.mean("made", "niqe")
    assert values(found, "made", "b") == (None,)
    assert "no NIQE of b: NIQE needs" in found.notes[0]
    found = evaluate(ImageSetSettings(lq=lq), [network(4)])
    assert found.methods == ("bicubic", "compact")
    assert found.settings["crop"] == 4


def test_requests_that_cannot_be_answered_are_refused(gt: Path, lq: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to upscale"):
        evaluate(ImageSetSettings(gt=gt), [network(4)])
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(ImageSetSettings(gt=gt))
    for which in (ImageSetSettings(lq=lq), ImageSetSettings(gt=gt, degrade="bicubic")):
        with pytest.raises(ConfigError) as caught:
            evaluate(which)
        assert caught.value.advice == "evaluate-scale"
    with pytest.raises(DatasetError, match="do not match"):
        evaluate(ImageSetSettings(gt=gt, lq=lq, scale=2), settings=PLAIN)


def test_progress_ends_complete(gt: Path) -> None:
    calls: list[tuple[int, int]] = []
    which = ImageSetSettings(gt=gt, degrade="bicubic")
    evaluate(which, [network(4)], settings=PLAIN, progress=lambda *step: calls.append(step))
    assert calls[0] == (0, 4)
    assert calls[-1] == (4, 4)
    assert calls == sorted(calls)


def test_results_can_be_saved(gt: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    which = ImageSetSettings(gt=gt, degrade="bicubic")
    settings = ScoreSettings(metrics=("psnr",), save=kept)
    made = evaluate(which, [EvaluatedModel("my/net", network(4))], settings=settings)
    assert sorted(p.name for p in kept.iterdir()) == ["bicubic", "my_net"]
    again = evaluate(
        ImageSetSettings(gt=gt, scale=4), outputs={"kept": kept / "my_net"}, settings=PLAIN
    )
    assert values(again, "kept", "b")[0] == values(made, "my/net", "b")[0]
    with pytest.raises(ConfigError, match=r"a\.png exists"):
        evaluate(which, [network(4)], settings=settings)
    over = ScoreSettings(metrics=("psnr",), save=kept, overwrite=True)
    assert evaluate(which, [network(4)], settings=over).failures == ()


def test_saving_never_replaces_evaluated_images(tmp_path: Path) -> None:
    inputs = tmp_path / "bicubic"
    with pytest.raises(ConfigError, match="bicubic"):
        OutputWriter(tmp_path, ("bicubic",)).prepare(["a"], [inputs], overwrite=True)
    with pytest.raises(ConfigError, match="share a folder"):
        OutputWriter(tmp_path, ("a/b", "a_b")).prepare(["a"], [])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImageWriteError, match="cannot be created"):
        OutputWriter(tmp_path / "file", ("a",)).prepare(["a"], [])
    OutputWriter(tmp_path, ("..",)).prepare(["a"], [])
    assert (tmp_path / "_").is_dir()


@pytest.mark.parametrize(
    ("channel", "keys"),
    [
        ("mixed", ["psnr-rgb", "ssim-y"]),
        ("y", ["psnr-y", "ssim-y"]),
        ("y8", ["psnr-y8", "ssim-y8"]),
        ("rgb", ["psnr-rgb", "ssim-rgb"]),
    ],
)
def test_plain_names_mean_what_the_channel_says(channel: scores.Channel, keys: list[str]) -> None:
    assert [m.key for m in select_metrics(("psnr", "ssim", keys[0]), channel, with_gt=True)] == keys


def test_columns_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'niqe'"):
        select_metrics(("nique",), "mixed", with_gt=True)
    with pytest.raises(ConfigError, match="metrics"):
        select_metrics((), "mixed", with_gt=True)
    with pytest.raises(ConfigError, match="psnr, lpips"):
        select_metrics(("psnr", "lpips"), "mixed", with_gt=False)


def test_every_column_computes_what_it_is_called() -> None:
    a = torch.rand(1, 3, 40, 40, dtype=torch.float64)
    b = (a + 0.05).clamp(0, 1)
    keys = ("psnr-rgb", "psnr-y", "psnr-y8", "ssim-rgb", "ssim-y", "ssim-y8")
    found, reasons = Scorer(tuple(METRICS[k] for k in keys), 2)(a, b)
    got = dict(zip(keys, found, strict=True))
    assert reasons == {}
    assert got["psnr-rgb"] == psnr(a, b, crop=2)
    assert got["psnr-y"] == psnr(a, b, crop=2, luma=True)
    assert got["psnr-y8"] == pytest.approx(got["psnr-y"], abs=0.2)
    assert got["psnr-y8"] != got["psnr-y"]
    assert got["ssim-rgb"] == ssim(a, b, crop=2)
    assert got["ssim-y"] == ssim(a, b, crop=2, luma=True)
    assert got["ssim-y8"] == pytest.approx(got["ssim-y"], abs=0.01)


def test_every_metric_is_computed_by_a_loaded_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        def __init__(self, *args: object, offline: bool) -> None:
            assert offline

        def __call__(self, a: torch.Tensor, b: torch.Tensor, crop: int) -> float:
            return 0.25 * crop

    monkeypatch.setattr(scores, "Lpips", Constant)
    monkeypatch.setattr(scores, "Dists", Constant)
    monkeypatch.setattr(scores, "ensure", lambda entry, **options: Path("squeezenet.pth"))
    monkeypatch.setattr(scores, "resolve", lambda name: name)
    state = SqueezeNetFeatures(LAYERS).state_dict()
    monkeypatch.setattr(scores, "read_state", lambda path: (state, {}))
    scorer = load_scorer(tuple(METRICS.values()), 2, ScoreSettings(offline=True))
    a = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    values, reasons = scorer(a, 1 - a)
    found = dict(zip(METRICS, values, strict=True))
    assert reasons == {}
    assert (found["lpips"], found["dists"]) == (0.5, 0.5)
    expected = PerceptualDistance(state)(a, 1 - a, crop=2)
    assert found["feat-squeeze"] == pytest.approx(float(expected))
    assert None not in values


def test_the_perceptual_distance_takes_a_named_file(gt: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(SqueezeNetFeatures(LAYERS).state_dict(), file)
    settings = ScoreSettings(metrics=("feat-squeeze",), feat_weights=file, offline=True)
    found = evaluate(
        ImageSetSettings(gt=gt, degrade="bicubic", scale=4), outputs={"same": gt}, settings=settings
    )
    assert found.mean("same", "feat-squeeze") == 0
    assert found.mean("bicubic", "feat-squeeze") > 0
    assert found.settings["feat_weights"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_perceptual_distance_without_its_file_says_what_to_do(gt: Path) -> None:
    settings = ScoreSettings(metrics=("feat-squeeze",), offline=True)
    with pytest.raises(ModelUnavailableError) as caught:
        evaluate(ImageSetSettings(gt=gt, degrade="bicubic", scale=4), settings=settings)
    assert caught.value.advice == "feat-squeeze"


def test_the_mean_is_over_images_that_have_the_score() -> None:
    assert METRICS["niqe"].mean([3.0, 4.0, None]) == 3.5
    assert METRICS["niqe"].mean([None]) is None
