"""Scripts of the reference's users: the call pattern of its inference script, every option."""

from __future__ import annotations

import argparse
import glob
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from realesr_cli.compat import RealESRGANer, RRDBNet, SRVGGNetCompact, load_file_from_url
from realesr_cli.errors import DownloadError
from realesr_cli.weights import registry
from realesr_cli.weights.registry import RegistryEntry

# What a script has of each released model: how it builds the network, its factor, and its files.
# The networks are as small as they can be; the names and the way they are built are the released.
SMALL = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}
TINY = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_conv": 1, "act_type": "prelu"}
MODELS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "RealESRGAN_x4plus": (RRDBNet, {"num_in_ch": 3, "num_out_ch": 3, **SMALL, "scale": 4}, 4),
    "RealESRNet_x4plus": (RRDBNet, {"num_in_ch": 3, "num_out_ch": 3, **SMALL, "scale": 4}, 4),
    "RealESRGAN_x4plus_anime_6B": (
        RRDBNet, {"num_in_ch": 3, "num_out_ch": 3, **SMALL, "num_block": 2, "scale": 4}, 4,
    ),
    "RealESRGAN_x2plus": (RRDBNet, {"num_in_ch": 3, "num_out_ch": 3, **SMALL, "scale": 2}, 2),
    "realesr-animevideov3": (SRVGGNetCompact, {**TINY, "upscale": 4}, 4),
    "realesr-general-x4v3": (SRVGGNetCompact, {**TINY, "num_conv": 2, "upscale": 4}, 4),
}  # fmt: skip


def infer(arguments: list[str], fetch: Any = load_file_from_url) -> list[str]:
    """Do what an inference script does, and return what it printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", "--input", default="inputs")
    parser.add_argument("-n", "--model_name", default="RealESRGAN_x4plus")
    parser.add_argument("-o", "--output", default="results")
    parser.add_argument("-dn", "--denoise_strength", type=float, default=0.5)
    parser.add_argument("-s", "--outscale", type=float, default=4)
    parser.add_argument("--model_path", default=None)
    parser.add_argument("--suffix", default="out")
    parser.add_argument("-t", "--tile", type=int, default=0)
    parser.add_argument("--tile_pad", type=int, default=10)
    parser.add_argument("--pre_pad", type=int, default=0)
    parser.add_argument("--face_enhance", action="store_true")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--alpha_upsampler", default="realesrgan")
    parser.add_argument("--ext", default="auto")
    parser.add_argument("-g", "--gpu-id", type=int, default=None)
    args = parser.parse_args(arguments)

    name = args.model_name.split(".")[0]
    kind, keywords, netscale = MODELS[name]
    model = kind(**keywords)
    model_path: Any = args.model_path or os.path.join("weights", name + ".pth")
    if not os.path.isfile(model_path):
        model_path = fetch(url=f"https://example.org/{name}.pth", model_dir="weights",
                           progress=True, file_name=None)  # fmt: skip
    dni_weight = None
    if name == "realesr-general-x4v3" and args.denoise_strength != 1:
        weak = model_path.replace("realesr-general-x4v3", "realesr-general-wdn-x4v3")
        model_path = [model_path, weak]
        dni_weight = [args.denoise_strength, 1 - args.denoise_strength]
    upsampler = RealESRGANer(
        scale=netscale,
        model_path=model_path,
        dni_weight=dni_weight,
        model=model,
        tile=args.tile,
        tile_pad=args.tile_pad,
        pre_pad=args.pre_pad,
        half=not args.fp32,
        gpu_id=args.gpu_id,
    )
    enhancer = FaceEnhancer(args.outscale, upsampler) if args.face_enhance else None
    os.makedirs(args.output, exist_ok=True)
    printed = []
    paths = [args.input] if os.path.isfile(args.input) else sorted(glob.glob(args.input + "/*"))
    for path in paths:
        stem, extension = os.path.splitext(os.path.basename(path))
        img = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        mode = "RGBA" if len(img.shape) == 3 and img.shape[2] == 4 else None
        try:
            if enhancer is not None:
                output = enhancer.enhance(img)
            else:
                output, _ = upsampler.enhance(img, outscale=args.outscale)
        except RuntimeError as error:
            printed.append(f"Error {error}")
            continue
        ext = extension[1:] if args.ext == "auto" else args.ext
        ext = "png" if mode == "RGBA" else ext
        end = "" if args.suffix == "" else "_" + args.suffix
        cv2.imwrite(os.path.join(args.output, f"{stem}{end}.{ext}"), output)
    return printed


class FaceEnhancer:
    """What face restorers do with the object: enlarge the background."""

    def __init__(self, upscale: float, bg_upsampler: RealESRGANer) -> None:
        self.upscale, self.bg_upsampler = upscale, bg_upsampler

    def enhance(self, img: np.ndarray) -> np.ndarray:
        return self.bg_upsampler.enhance(img, outscale=self.upscale)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user of the script has it: weights/ and inputs/ of every kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    for name, (kind, keywords, _) in MODELS.items():
        key = "params_ema" if kind is RRDBNet else "params"
        torch.save({key: kind(**keywords).state_dict()}, f"weights/{name}.pth")
    weak = SRVGGNetCompact(**{**TINY, "num_conv": 2, "upscale": 4})
    torch.save({"params": weak.state_dict()}, "weights/realesr-general-wdn-x4v3.pth")
    (tmp_path / "inputs").mkdir()
    rng = np.random.default_rng(0)
    for name, shape, dtype in (
        ("color.jpg", (20, 31, 3), np.uint8), ("gray.png", (20, 31), np.uint8),
        ("alpha.png", (20, 31, 4), np.uint8), ("deep.png", (20, 31, 3), np.uint16),
    ):  # fmt: skip
        top = np.iinfo(dtype).max
        cv2.imwrite(f"inputs/{name}", rng.integers(0, top, shape, endpoint=True).astype(dtype))
    return tmp_path


def sizes(pattern: str = "results/*") -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    found = {}
    for path in sorted(glob.glob(pattern)):
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        found[os.path.basename(path)] = (image.shape, image.dtype)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_model_with_the_default_options(folder: Path, name: str) -> None:
    assert infer(["-n", name]) == []
    assert sizes() == {
        "alpha_out.png": ((80, 124, 4), np.dtype(np.uint8)),
        "color_out.jpg": ((80, 124, 3), np.dtype(np.uint8)),
        "deep_out.png": ((80, 124, 3), np.dtype(np.uint16)),
        "gray_out.png": ((80, 124), np.dtype(np.uint8)),
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-s", "3.5"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["-t", "16"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["-t", "16", "--tile_pad", "4"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--pre_pad", "7"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--pre_pad", "50"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--fp32"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--face_enhance"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--alpha_upsampler", "bicubic"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["--suffix", ""], "alpha.png color.jpg deep.png gray.png"),
        (["--ext", "png"], "alpha_out.png color_out.png deep_out.png gray_out.png"),
        (["-g", "0"], "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
        (["-i", "inputs/gray.png"], "gray_out.png"),
        (["--model_path", "weights/RealESRNet_x4plus.pth"],
         "alpha_out.png color_out.jpg deep_out.png gray_out.png"),
    ],
)  # fmt: skip
def test_every_option(folder: Path, options: list[str], expected: str) -> None:
    assert infer(options) == []
    found = sizes()
    assert list(found) == expected.split()
    factor = 3.5 if "-s" in options else 4
    for shape, _ in found.values():
        assert shape[:2] == (int(20 * factor), int(31 * factor))


@pytest.mark.parametrize("strength", [0, 0.5, 1, 1.7, -0.5])
def test_denoise_strength_mixes_two_files(folder: Path, strength: float) -> None:
    assert (
        infer(["-n", "realesr-general-x4v3", "-dn", str(strength), "-i", "inputs/color.jpg"]) == []
    )
    assert sizes()["color_out.jpg"][0] == (80, 124, 3)


def test_what_fails_is_a_runtime_error_and_the_script_goes_on(folder: Path) -> None:
    infinite = torch.load("weights/RealESRGAN_x4plus.pth", weights_only=True)
    infinite["params_ema"]["conv_last.weight"][:] = 1e30
    torch.save(infinite, "weights/RealESRGAN_x4plus.pth")
    printed = infer(["--fp32"])
    assert len(printed) == 4
    assert all(line.startswith("Error ") and "corrupt" in line for line in printed)


# --- imports ------------------------------------------------------------------------------------

SCRIPT = """
import sys
{imports}
import numpy as np
model = RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=8, num_block=1, num_grow_ch=4, scale=4)
upsampler = RealESRGANer(scale=4, model_path="weights/RealESRGAN_x4plus.pth", model=model, tile=0,
                         tile_pad=10, pre_pad=0, half=False, gpu_id=None)
assert upsampler.device.type in ("cpu", "cuda", "mps", "xpu")
output, mode = upsampler.enhance(np.zeros((8, 9, 3), np.uint8), outscale=2)
print(output.shape, mode, SRVGGNetCompact.__name__, load_file_from_url.__name__)
"""

TWO_LINES = """
from realesr_cli.compat import RRDBNet, SRVGGNetCompact, load_file_from_url
from realesr_cli.compat import RealESRGANer
"""
UNCHANGED = """
import realesr_cli.compat
realesr_cli.compat.install_modules()
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils.download_util import load_file_from_url
from realesrgan import RealESRGANer
from realesrgan.archs.srvgg_arch import SRVGGNetCompact
from realesrgan.utils import RealESRGANer as same
assert same is RealESRGANer
"""


def test_two_import_lines_make_a_script_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(SCRIPT.format(imports=TWO_LINES), {})
    assert capsys.readouterr().out == "(16, 18, 3) RGB SRVGGNetCompact load_file_from_url\n"


def test_one_call_makes_an_unchanged_script_run(folder: Path) -> None:
    code = SCRIPT.format(imports=UNCHANGED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(16, 18, 3) RGB SRVGGNetCompact load_file_from_url"


# --- downloads ----------------------------------------------------------------------------------


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The folder of weights over HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}/weights"
    served.shutdown()
    served.server_close()
    thread.join()


def test_a_file_is_downloaded_once(folder: Path, server: str) -> None:
    original = (folder / "weights" / "realesr-animevideov3.pth").read_bytes()
    (folder / "weights" / "mine.pth").write_bytes(original)
    path = load_file_from_url(f"{server}/mine.pth", model_dir="there", file_name="other.pth")
    assert Path(path) == folder / "there" / "other.pth"
    assert Path(path).read_bytes() == original
    Path(path).write_bytes(b"kept")
    again = load_file_from_url(f"{server}/mine.pth", model_dir="there", file_name="other.pth")
    assert Path(again).read_bytes() == b"kept"
    assert [p.name for p in (folder / "there").iterdir()] == ["other.pth"]


def test_an_address_can_be_the_model_path(folder: Path, server: str) -> None:
    (folder / "weights" / "mine.pth").write_bytes(
        (folder / "weights" / "realesr-animevideov3.pth").read_bytes()
    )
    upsampler = RealESRGANer(4, f"{server}/mine.pth?download=1", device="cpu")
    assert upsampler.enhance(np.zeros((5, 6, 3), np.uint8))[0].shape == (20, 24, 3)
    assert (registry.weights_dir() / "mine.pth").is_file()


def test_a_registered_file_is_checked_and_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder / "weights" / "realesr-animevideov3.pth"
    asked: list[str] = []

    def ensure(entry: RegistryEntry) -> Path:
        asked.append(entry.name)
        return source

    monkeypatch.setattr("realesr_cli.compat.reference.ensure", ensure)
    url = "https://example.org/v0.1.0/RealESRGAN_x4plus.pth"
    path = load_file_from_url(url, model_dir="copies")
    assert Path(path).read_bytes() == source.read_bytes()
    assert load_file_from_url(url) == str(source)
    assert asked == ["RealESRGAN_x4plus"] * 2


def test_what_cannot_be_downloaded_is_one_error(
    folder: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match="404"):
        load_file_from_url(f"{server}/missing.pth", model_dir="there")
    assert not list((folder / "there").glob("missing*"))
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline"):
        load_file_from_url(f"{server}/missing.pth")
    with pytest.raises(OSError, match="RealESRGAN_x4plus"):
        RealESRGANer(4, "https://example.org/v0.1.0/RealESRGAN_x4plus.pth")
