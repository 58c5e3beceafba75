"""Record what `realesr upscale` writes for every format and option, and compare two records.

A refactoring must not change a bit of any result. Record before, record after, compare:

    python tests/compare_outputs.py record before.json --work /tmp/outputs
    python tests/compare_outputs.py record after.json --work /tmp/outputs
    python tests/compare_outputs.py compare before.json after.json

`--work` holds the inputs and model files, which are made once and used by both recordings. Only the
command line is called, so that the script also runs on older and newer versions of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image_samples as samples
import numpy as np
import torch
from PIL import Image as pillow

FOLDERS = {
    "defaults": ["-m", "{photo}"],
    "compact": ["-m", "{compact}"],
    "compact-fp32": ["-m", "{compact}", "--precision", "fp32"],
    "compact-leaky": ["-m", "{leaky}"],
    "rrdb": ["-m", "{rrdb}"],
    "rrdb-old-keys": ["-m", "{rrdb_old}"],
    "rrdb-x2": ["-m", "{rrdb_x2}"],
    "rrdb-x1": ["-m", "{rrdb_x1}"],
    "mixture": ["-m", "{rrdb}:{rrdb_other}@0.3"],
    "tiles": ["-m", "{rrdb}", "--tile", "16", "--overlap", "5"],
    "tiles-batch": ["-m", "{compact}", "--tile", "16", "--batch", "3", "--precision", "fp32"],
    "tiles-x2": ["-m", "{rrdb_x2}", "--tile", "16"],
    "whole": ["-m", "{rrdb}", "--tile", "0"],
    "one-thread": ["-m", "{rrdb}", "--threads", "1"],
    "scale-2.5": ["-m", "{compact}", "--scale", "2.5"],
    "scale-0.5-tiles": ["-m", "{compact}", "-s", "0.5", "--tile", "16"],
    "width": ["-m", "{compact}", "--width", "77"],
    "fit": ["-m", "{compact}", "--fit", "100x60"],
    "max-side": ["-m", "{rrdb}", "--max-side", "90"],
    "alpha-resize": ["-m", "{compact}", "--alpha", "resize"],
    "tta": ["-m", "{rrdb_x2}", "--tta"],
    "strength": ["-m", "{rrdb}", "--strength", "0.4", "--tile", "16"],
    "color-fix": ["-m", "{compact}", "--color-fix", "--tile", "16"],
    "blend": ["-m", "{rrdb}", "--blend-model", "{compact}", "--blend", "0.3"],
    "back-project": ["-m", "{compact}", "--back-project", "5", "--tile", "16"],
    "back-project-reverse": [
        "-m", "{compact}", "--back-project", "2", "--back-project-kernel", "reverse", "-s", "3",
    ],
    "png": ["-m", "{compact}", "--format", "png", "--compress-level", "9"],
    "jpg": ["-m", "{compact}", "--format", "jpg", "--quality", "80"],
    "webp": ["-m", "{compact}", "--format", "webp"],
    "webp-lossless": ["-m", "{compact}", "--format", "webp", "--lossless"],
    "tiff": ["-m", "{compact}", "--format", "tiff"],
    "avif": ["-m", "{compact}", "--format", "avif"],
    "bmp": ["-m", "{compact}", "--format", "bmp"],
    "strip-metadata": ["-m", "{compact}", "--strip-metadata"],
}  # fmt: skip
"""Options of one call each, on the folder of all inputs."""


def texture(height: int, width: int, channels: int, bits: int = 8, seed: int = 0) -> Any:
    """Smooth structure with some noise, so that neither networks nor codecs see only noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 7
    planes = [np.sin(x * (i + 1) + seed) * np.cos(y * (i + 0.5)) for i in range(channels)]
    values = np.stack(planes, -1) * 0.4 + 0.5 + rng.normal(0, 0.03, (height, width, channels))
    top = 2**bits - 1
    return (values.clip(0, 1) * top).round().astype(np.uint8 if bits == 8 else np.uint16)


def write_inputs(folder: Path) -> None:
    """Write one small image of every kind that can be read."""
    folder.mkdir(parents=True)
    rgb = pillow.fromarray(texture(30, 41, 3))
    rgba = pillow.fromarray(texture(29, 33, 4, seed=1))
    gray = pillow.fromarray(texture(31, 26, 1, seed=2)[..., 0])
    exif = samples.exif_block(orientation=6)

    def save(name: str, image: pillow.Image, **options: Any) -> None:
        image.save(folder / name, **options)

    save("rgb.png", rgb, dpi=(300, 300))
    save("rgba.png", rgba)
    save("gray.png", gray)
    save("gray_alpha.png", rgba.convert("LA"))
    save("palette.png", rgb.quantize(32))
    save("still.gif", rgb.quantize(32))
    save("one_bit.png", gray.convert("1"))
    save("keyed.png", rgb, transparency=rgb.getpixel((3, 3)))
    save("adobe.png", rgb, icc_profile=samples.ADOBE)
    save("linear.jpg", rgb, icc_profile=samples.LINEAR, quality=92)
    save("turned.jpg", rgb, exif=b"Exif\0\0" + exif, xmp=samples.XMP, quality=92)
    save("gray_jpg.jpg", gray, quality=92)
    save("cmyk.jpg", rgb.convert("CMYK"), quality=92)
    save("exif.webp", rgb, exif=exif, quality=90)
    save("lossless.webp", rgba, lossless=True)
    save("plain.bmp", rgb)
    save("plain.ppm", rgb)
    save("rgb_avif.avif", rgb, quality=80)
    save("rgb_tif.tif", rgb, compression="tiff_lzw", dpi=(150, 150))
    save("gray_tif.tif", gray, compression="tiff_adobe_deflate")
    save("cmyk_tif.tif", rgb.convert("CMYK"))
    save("lab.tif", pillow.fromarray(texture(30, 24, 3, seed=4)).convert("RGB"))
    save("gray16.png", pillow.fromarray(texture(24, 30, 1, 16, 3)[..., 0]))
    save("gray16_tif.tif", pillow.fromarray(texture(24, 30, 1, 16, 3)[..., 0]))
    animated = [pillow.fromarray(texture(20, 22, 3, seed=s)) for s in (5, 6)]
    save("animated.webp", animated[0], save_all=True, append_images=animated[1:], lossless=True)
    deep = texture(26, 34, 3, 16, 5)
    (folder / "rgb16.png").write_bytes(samples.png_bytes(deep, 2))
    deep_alpha = texture(26, 34, 4, 16, 6)
    deep_alpha[:9, :9, 3] = 0
    (folder / "rgba16.png").write_bytes(samples.png_bytes(deep_alpha, 6))
    (folder / "gray_alpha16.png").write_bytes(samples.png_bytes(deep_alpha[..., 2:], 4))
    (folder / "deep.ppm").write_bytes(b"P6 34 26 65535\n" + deep.astype(">u2").tobytes())
    clear = np.array(rgba)
    clear[5:20, 5:20, 3] = 0
    save("cutout.png", pillow.fromarray(clear))
    clear[..., 3] = 128
    save("constant_alpha.png", pillow.fromarray(clear))
    save("tall.png", pillow.fromarray(texture(90, 11, 3, seed=8)))
    save("one_pixel.png", pillow.fromarray(texture(1, 1, 3, seed=9)))
    write_tiffs(folder, deep, deep_alpha)


def write_tiffs(folder: Path, deep: Any, deep_alpha: Any) -> None:
    """Write TIFF files that Pillow cannot: 16-bit color, floats, planes, tiles."""
    import tifffile

    unit = (deep / 65535).astype(np.float32)
    tifffile.imwrite(folder / "rgb16_tif.tif", deep, photometric="rgb", compression="zlib")
    tifffile.imwrite(
        folder / "predictor16.tif", deep, photometric="rgb", compression="zlib", predictor=True
    )
    tifffile.imwrite(
        folder / "rgba16_tif.tif", deep_alpha, photometric="rgb", extrasamples=["unassalpha"]
    )
    tifffile.imwrite(folder / "float.tif", unit, photometric="rgb")
    tifffile.imwrite(folder / "tiled16.tif", deep, photometric="rgb", tile=(16, 16))
    tifffile.imwrite(
        folder / "planar16.tif", deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    tifffile.imwrite(folder / "big_endian16.tif", deep, photometric="rgb", byteorder=">")
    tifffile.imwrite(folder / "bigtiff16.tif", deep, photometric="rgb", bigtiff=True)
    white = 65535 - deep[..., 0]
    tifffile.imwrite(folder / "white_is_zero16.tif", white, photometric="miniswhite")


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Draw weights that keep the signal's size and gain some structure."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        gain = fan_in**-0.5 if len(shape) > 1 else 0.1
        state[name] = torch.randn(shape, generator=generator) * gain
    return state


def conv(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a 3x3 convolution."""
    return {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}


def rrdb_shapes(unshuffle: int, *, features: int = 16, growth: int = 8) -> Any:
    """Shapes of an RRDBNet of two blocks."""
    shapes = conv("conv_first", 3 * unshuffle**2, features)
    for block in range(2):
        for dense in (1, 2, 3):
            for i in range(1, 6):
                outputs = features if i == 5 else growth
                name = f"body.{block}.rdb{dense}.conv{i}"
                shapes |= conv(name, features + (i - 1) * growth, outputs)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        shapes |= conv(name, features, features)
    return shapes | conv("conv_last", features, 3)


def old_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the tensors of an RRDBNet of scale 4 as ESRGAN's first release names them."""
    plain = {
        "conv_first": "model.0", "conv_body": "model.1.sub.2", "conv_up1": "model.3",
        "conv_up2": "model.6", "conv_hr": "model.8", "conv_last": "model.10",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if stem in plain:
            renamed[f"{plain[stem]}.{kind}"] = tensor
            continue
        _, block, dense, layer = stem.split(".")
        stem = f"model.1.sub.{block}.{dense.upper()}.{layer}.0"
        renamed[f"{stem}.{kind}"] = tensor
    return renamed


def compact_shapes(slopes: bool, features: int = 16, convs: int = 3) -> Any:
    """Shapes of a Compact network of scale 4."""
    shapes = conv("body.0", 3, features)
    for i in range(convs + 1):
        if slopes:
            shapes[f"body.{2 * i + 1}.weight"] = (features,)
        outputs = 48 if i == convs else features
        shapes |= conv(f"body.{2 * i + 2}", features, outputs)
    return shapes


def write_models(folder: Path) -> None:
    """Write small models with random weights, named as other tools name them."""
    folder.mkdir(parents=True)
    rrdb = random_weights(rrdb_shapes(1), 1)
    states = {
        "rrdb": {"params_ema": rrdb},
        "rrdb_other": {"params_ema": random_weights(rrdb_shapes(1), 2)},
        "rrdb_old": old_keys(rrdb),
        "rrdb_x2": {"params": random_weights(rrdb_shapes(2), 3)},
        "rrdb_x1": {"params": random_weights(rrdb_shapes(4), 4)},
        "compact": {"params": random_weights(compact_shapes(True), 5)},
        "leaky": {"params": random_weights(compact_shapes(False), 6)},
    }
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")


def prepare(work: Path) -> None:
    """Make inputs and models unless they are there."""
    if not (work / "inputs").is_dir():
        write_inputs(work / "inputs")
    if not (work / "models").is_dir():
        write_models(work / "models")


def pixel_hash(path: Path) -> str:
    """Hash the decoded pixels."""
    if path.suffix == ".tif":
        import tifffile

        with tifffile.TiffFile(path) as file:
            array = file.pages[0].asarray()
        header = f"{array.dtype} {array.shape}".encode()
        return hashlib.sha256(header + array.tobytes()).hexdigest()[:16]
    with pillow.open(path) as image:
        image.load()
        header = f"{image.mode} {image.size}".encode()
        return hashlib.sha256(header + image.tobytes()).hexdigest()[:16]


def run(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one call and hash all that it wrote."""
    command = [sys.executable, "-m", "realesr_cli", "upscale", *arguments, "--json", "-q"]
    # What a machine measures must not decide which backend's bits are recorded.
    own = {"REALESR_HOME": str(folder.parent / "home"), "REALESR_RACE": "0"}
    environment = {**os.environ, **own}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            files[path.name] = {
                "file": hashlib.sha256(data).hexdigest()[:16],
                "pixels": pixel_hash(path),
                "bytes": len(data),
            }
    return {"exit": done.returncode, "files": files, "errors": errors(done.stdout)}


def errors(stdout: str) -> list[str]:
    """Names of the inputs that failed."""
    found = (json.loads(line) for line in io.StringIO(stdout) if line.startswith("{"))
    return sorted(Path(r["input"]).name for r in found if r.get("status") == "failed")


def record(work: Path) -> dict[str, Any]:
    """Run every call of the table."""
    prepare(work)
    models = {path.stem: str(path) for path in (work / "models").glob("*.pth")}
    models["photo"] = "photo"
    results = {}
    for name, options in FOLDERS.items():
        target = work / "results"
        shutil.rmtree(target, ignore_errors=True)
        filled = [option.format(**models) for option in options]
        arguments = [
            str(work / "inputs"),
            "-o",
            str(target / "{name}{ext}"),
            "--device",
            "cpu",
            *filled,
        ]
        results[name] = run(arguments, target)
        print(f"{name}: {len(results[name]['files'])} files", file=sys.stderr)
    return results


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Describe what two records do not share."""
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            yield f"{name}: only in one record"
            continue
        one, other = before[name], after[name]
        for key in ("exit", "errors"):
            if one[key] != other[key]:
                yield f"{name}: {key} {one[key]} -> {other[key]}"
        for file in sorted({*one["files"], *other["files"]}):
            pair = one["files"].get(file), other["files"].get(file)
            if pair[0] == pair[1]:
                continue
            if None in pair:
                yield f"{name}/{file}: only in one record"
            elif pair[0]["pixels"] != pair[1]["pixels"]:
                yield f"{name}/{file}: pixels differ"
            else:
                yield f"{name}/{file}: same pixels, other bytes"


def main() -> int:
    """Run the command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("output", type=Path)
    recording.add_argument("--work", type=Path, required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        options.output.write_text(json.dumps(record(options.work), indent=1))
        return 0
    found = list(
        differences(json.loads(options.before.read_text()), json.loads(options.after.read_text()))
    )
    print("\n".join(found) or "no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
