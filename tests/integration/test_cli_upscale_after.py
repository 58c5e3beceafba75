"""`realesr upscale` with what is done after the network: a second model, back-projection."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from upscale_cli import Shell, make_image, save_tiny

from realesr_cli.ops.resize import resize
from realesr_cli.weights import registry


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another x4 network than `tiny`."""
    path = save_tiny(tmp_path_factory.mktemp("other") / "other.pth")
    data = torch.load(path, weights_only=True)
    state = {name: -0.7 * tensor for name, tensor in data["params"].items()}
    torch.save({"params": state}, path)
    return path


def pixels(path: str) -> np.ndarray:
    return np.asarray(pillow.open(path)).astype(float)


def test_two_models_are_blended(shell: Shell, other: Path):
    make_image("a.png", 40, 30, "RGBA")
    shell("a.png", "-o", "one.png")
    shell("a.png", "-o", "two.png", model=other)
    for share, name in (("0", "zero.png"), ("0.25", "some.png"), ("1", "all.png")):
        outcome = shell("a.png", "-o", name, "--blend-model", other, "--blend", share, "--tile", 16)
        assert outcome.code == 0
    shell("a.png", "-o", "half.png", "--blend-model", other)
    one, two = pixels("one.png"), pixels("two.png")
    assert np.abs(one - two).max() > 8
    assert np.array_equal(pixels("zero.png"), one)
    assert np.array_equal(pixels("all.png"), two)
    assert np.abs(pixels("some.png") - (0.75 * one + 0.25 * two)).max() <= 1
    assert np.abs(pixels("half.png") - (one + two) / 2).max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--blend", "0.3"], "--blend-model"),
        (["--blend-model", "OTHER", "--blend", "1.5"], "1.5"),
        (["--blend-model", "OTHER", "--blend", "-0.1"], "0.1"),
        (["--blend-model", "nothing-of-the-kind"], "nothing-of-the-kind"),
        (["--blend-model", "TWICE"], "twice (x2) with tiny (x4)"),
        (["--back-project", "-1"], "-1"),
        (["--back-project", "5", "-s", "1"], "only a result larger than its input"),
        (["--back-project-kernel", "reverse"], "back_project"),
        (["--back-project", "2", "--back-project-kernel", "box"], "box"),
    ],
)
def test_what_cannot_be_is_refused(
    shell: Shell, other: Path, tmp_path: Path, options: list[str], words: str
):
    make_image("a.png")
    places = {"OTHER": str(other), "TWICE": str(save_tiny(tmp_path / "twice.pth", scale=2))}
    outcome = shell("a.png", *[places.get(o, o) for o in options])
    assert outcome.code in (2, 3)
    assert words in outcome.err
    assert not list(Path().glob("a_*"))


def test_networks_of_two_scales_are_refused_before_anything_is_fetched(shell: Shell):
    make_image("a.png")
    outcome = shell("a.png", "--offline", "--blend-model", "x2plus", model="x4plus")
    assert outcome.code == 2
    assert "RealESRGAN_x2plus (x2) with RealESRGAN_x4plus (x4)" in outcome.err


def test_an_image_that_would_not_grow_fails_alone(shell: Shell):
    make_image("in/small.png", 12, 8)
    make_image("in/large.png", 120, 80)
    outcome = shell("in", "-o", "out/", "--max-side", 60, "--back-project", 3)
    assert outcome.code == 1
    assert "120x80 would become 60x40" in outcome.err
    assert [p.name for p in Path("out").iterdir()] == ["small_x5.png"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_back_projection_brings_the_result_nearer_to_its_input(shell: Shell, mode: str):
    small = pillow.radial_gradient("L").resize((40, 30)).point(lambda v: 60 + v // 2)
    if mode == "I;16":
        small = pillow.fromarray(np.asarray(small).astype(np.uint16) * 257)
    else:
        small = small.convert(mode)
    small.save("a.png")
    top = 65535 if mode == "I;16" else 255

    def reduced(path: str) -> torch.Tensor:
        plane = torch.from_numpy(np.atleast_3d(pixels(path))[..., :3] / top).permute(2, 0, 1)
        return resize(plane[None], (30, 40), "matlab")

    wanted = reduced("a.png")
    errors = []
    for count in (0, 2, 4):
        options = ["--back-project", count, "-s", 3, "--tile", 16]
        assert shell("a.png", "-o", f"{count}.png", *options).code == 0
        errors.append(float((reduced(f"{count}.png") - wanted).square().mean()))
    assert errors[0] > errors[1] > errors[2]
    outcome = shell(
        "a.png", "-o", "r.png", "-s", 3, "--back-project", 2, "--back-project-kernel", "reverse"
    )
    assert outcome.code == 0
    assert float((reduced("r.png") - wanted).square().mean()) < errors[1]


def test_records_say_what_was_done(shell: Shell, other: Path):
    make_image("a.png")
    options = ["--blend-model", other, "--blend", "0.25", "--back-project", "4"]
    plain = shell("a.png", "-o", "p.png", "--json").images[0]
    keys = ("blend_model", "blend", "back_project", "back_project_kernel")
    assert [plain[key] for key in keys] == [None, None, 0, None]
    for more in ([], ["--dry-run"]):
        found = shell("a.png", "-o", "q.png", "--json", *options, *more).images[0]
        assert [found[key] for key in keys] == ["other", 0.25, 4, "gaussian"]
        shutil.rmtree("q.png", ignore_errors=True)
        Path("q.png").unlink(missing_ok=True)
    skipped = [shell("a.png", "-o", "r.png", "--json", *options).images[0] for _ in "12"][1]
    assert skipped["status"] == "skipped"
    assert skipped["blend_model"] == "other"


def test_the_preview_speaks_of_both_models_and_of_the_iterations(shell: Shell, other: Path):
    make_image("a.png")
    outcome = shell("a.png", "--dry-run", "--blend-model", other, "--back-project", "20")
    assert outcome.code == 0
    text = outcome.out.decode()
    assert "blended with 0.5 of other" in text
    assert "20 iterations of back-projection (gaussian)" in text
    one = shell("a.png", "--dry-run", "--back-project", "1", "--back-project-kernel", "reverse")
    assert "1 iteration of back-projection (reverse)" in one.out.decode()


def test_the_preview_counts_what_would_be_fetched_of_both(shell: Shell):
    make_image("a.png")
    entries = [registry.find(name) for name in ("realesr-animevideov3", "realesr-general-x4v3")]
    sizes = [entry.bytes for entry in entries if entry is not None and entry.bytes]
    outcome = shell(
        "a.png", "--dry-run", "--json", "--offline", "--blend-model", "general", model="animevideo"
    )
    absent = [e for e in entries if e is not None and registry.cached(e) is None]
    assert outcome.code == 0
    assert outcome.summary["fetch"] == sum(e.bytes or 0 for e in absent)
    assert len(sizes) == 2
