"""Generators of hostile images: small files of every format, mutations of them, and bombs.

As a script, checks many mutants and prints what happened as JSON; the last line of a failure names
the seed and the index that reproduce it:

    python tests/fuzz/image_mutants.py --seed 7 --first 0 --count 10000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import image_samples as samples
import numpy as np
from PIL import Image as pillow

from realesr_cli.errors import RealesrError
from realesr_cli.image import color, exif, xmp
from realesr_cli.image.probe import probe, read_made_by
from realesr_cli.image.read import from_pil, read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image

MAX_PIXELS = 1_000_000
SPARE_BYTES = 64 * 2**20
MAX_SECONDS = 2.0
FORMATS = ("png", "jpg", "webp", "tiff", "avif", "bmp")

Mutation = Callable[[np.random.Generator, bytes], bytes]


# -- files -------------------------------------------------------------------------------------


def make_files() -> dict[str, bytes]:
    """Make one small file of every kind that can be read."""
    rgb = pillow.fromarray(samples.noise(12, 14, 3))
    rgba = pillow.fromarray(samples.noise(12, 14, 4))
    gray = pillow.fromarray(samples.noise(12, 14, 1)[..., 0])
    block = samples.exif_block(thumbnail=b"thumb" * 4)
    full = {"exif": b"Exif\0\0" + block, "icc_profile": samples.LINEAR, "xmp": samples.XMP}
    files = {
        "jpg": samples.pillow_bytes(rgb, "JPEG", **full),
        "progressive.jpg": samples.pillow_bytes(rgb, "JPEG", progressive=True),
        "cmyk.jpg": samples.pillow_bytes(rgb.convert("CMYK"), "JPEG", icc_profile=samples.ADOBE),
        "webp": samples.pillow_bytes(rgba, "WEBP", **full),
        "lossless.webp": samples.pillow_bytes(rgb, "WEBP", lossless=True),
        "avif": samples.pillow_bytes(rgb, "AVIF", **full),
        "palette.png": samples.pillow_bytes(rgb.quantize(16), "PNG", transparency=3),
        "tif": samples.pillow_bytes(rgb, "TIFF", compression="tiff_lzw"),
        "lab.tif": samples.pillow_bytes(rgb.convert("RGB"), "TIFF"),
        "bilevel.tif": samples.pillow_bytes(gray.convert("1"), "TIFF", compression="group4"),
        "jpeg.tif": samples.pillow_bytes(rgb, "TIFF", compression="jpeg"),
    }
    for kind in ("BMP", "GIF", "TGA", "PPM", "JPEG2000", "ICO", "PCX", "QOI", "SGI", "DDS"):
        options = {"sizes": [(12, 12)]} if kind == "ICO" else {}
        files[kind.lower()] = samples.pillow_bytes(rgb, kind, **options)
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        files[f"frames.{kind.lower()}"] = samples.pillow_bytes(
            rgb, kind, save_all=True, append_images=[rgba.convert("RGB")]
        )
    for bits, dtype in ((8, np.uint8), (16, np.uint16), (32, np.float32)):
        for channels in (1, 3):
            image = Image(
                samples.noise(12, 14, channels, dtype),
                samples.noise(12, 14, 1, dtype)[..., 0],
                icc=samples.ADOBE,
                exif=block,
                xmp=samples.XMP,
                dpi=(300.0, 300.0),
                text=((b"tEXt", b"Title\0A test"),),
                made_by="a test",
            )
            for format in ("png", "tiff") if bits < 32 else ("tiff",):
                files[f"{channels}x{bits}.{format}"] = encode_image(image, format)
    files["deep.ppm"] = b"P6 14 12 1023\n" + bytes(2 * 14 * 12 * 3)
    return files | dict(_plugin_files(rgb))


def _plugin_files(rgb: pillow.Image) -> Iterator[tuple[str, bytes]]:
    image = Image(np.asarray(rgb), exif=samples.exif_block(), xmp=samples.XMP)
    with contextlib.suppress(ImportError):
        yield "jxl", encode_image(image, "jxl")
    with contextlib.suppress(ImportError):
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(rgb.resize((64, 64))).save(buffer)
        yield "heic", buffer.getvalue()


# -- mutations ---------------------------------------------------------------------------------

_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    16,
    127,
    255,
    256,
    4097,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip a few bits."""
    out = bytearray(data)
    for place in rng.integers(0, len(out), rng.integers(1, 9)):
        out[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def set_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Overwrite a few integers by ones that break arithmetic."""
    out = bytearray(data)
    for place in rng.integers(0, len(out), rng.integers(1, 5)):
        form = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
        number = int(rng.choice(_NUMBERS)) & (256 ** struct.calcsize(form) - 1)
        content = struct.pack(form, number)
        out[place : place + len(content)] = content
    return bytes(out)


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    """Truncate."""
    return data[: int(rng.integers(0, len(data)))]


def remove(rng: np.random.Generator, data: bytes) -> bytes:
    """Remove a part."""
    start, size = int(rng.integers(0, len(data))), int(rng.integers(1, 64))
    return data[:start] + data[start + size :]


def repeat(rng: np.random.Generator, data: bytes) -> bytes:
    """Repeat a part."""
    start, size = int(rng.integers(0, len(data))), int(rng.integers(1, 256))
    part = data[start : start + size]
    return data[:start] + part * int(rng.integers(1, 8)) + data[start:]


def splice(rng: np.random.Generator, data: bytes) -> bytes:
    """Replace a part by one of another place."""
    out = bytearray(data)
    source, target = (int(place) for place in rng.integers(0, len(data), 2))
    size = int(rng.integers(1, 64))
    out[target : target + size] = data[source : source + size]
    return bytes(out[: len(data)])


MUTATIONS: tuple[Mutation, ...] = (flip_bits, set_number, cut, remove, repeat, splice)


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Apply one to three mutations; chunks of a PNG get right checksums again, mostly."""
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data = MUTATIONS[int(rng.integers(0, len(MUTATIONS)))](rng, data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and rng.random() < 0.8:
        data = _repair_checksums(data)
    return data


def _repair_checksums(data: bytes) -> bytes:
    out, position = bytearray(data), 8
    while position + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, position)
        end = position + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(bytes(out[position + 4 : end])))
        position = end + 4
    return bytes(out)


def make_mutant(files: dict[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """Return the name of a file and a mutant of it; the same for the same seed and index."""
    rng = np.random.default_rng((seed, index))
    name = list(files)[int(rng.integers(0, len(files)))]
    if index % 4 == 0:  # metadata, which the decoders would shield from most mutations
        return f"metadata in {name}", _with_mutated_metadata(rng)
    return name, mutate(rng, files[name])


def _with_mutated_metadata(rng: np.random.Generator) -> bytes:
    """Make a valid image with a mutated profile, EXIF block, XMP packet or text."""
    parts: dict[str, Any] = {
        "icc": samples.LINEAR,
        "exif": samples.exif_block("<>"[int(rng.integers(0, 2))], thumbnail=b"thumb" * 4),
        "xmp": samples.XMP,
    }
    which = list(parts)[int(rng.integers(0, 3))]
    parts[which] = mutate(rng, parts[which])
    image = pillow.fromarray(samples.noise(5, 6, 3))
    kind = str(rng.choice(["PNG", "JPEG", "WEBP"]))
    if kind == "PNG":
        chunks = (
            (b"iCCP", b"name\0\0" + zlib.compress(parts["icc"])),
            (b"eXIf", parts["exif"]),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + parts["xmp"]),
        )
        bits = int(rng.choice([8, 16]))
        return samples.png_bytes(samples.noise(5, 6, 3, f"u{bits // 8}"), 2, *chunks, bits=bits)
    return samples.pillow_bytes(
        image, kind, icc_profile=parts["icc"], exif=b"Exif\0\0" + parts["exif"], xmp=parts["xmp"]
    )


# -- checks ------------------------------------------------------------------------------------


class Fault(Exception):
    """A rule that a file made the package break."""


def _memory(name: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def limited(name: str, decoded: Callable[[], int]) -> Iterator[None]:
    """Raise Fault if the block takes too long, or more than 4x the decoded size plus 64 MiB."""
    measured = sys.platform == "linux"
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _memory("VmRSS")
    began = time.thread_time()
    yield
    seconds = time.thread_time() - began
    if seconds > MAX_SECONDS:
        raise Fault(f"{name} takes {seconds:.1f} s")
    if measured:
        used, allowed = _memory("VmHWM") - before, 4 * decoded() + SPARE_BYTES
        if used > allowed:
            raise Fault(f"{name} takes {used / 2**20:.0f} MiB, allowed {allowed / 2**20:.0f}")


def attempt(name: str, function: Callable[[], Any]) -> Any:
    """Return a result, or the error if it is one of ours on one line; raise Fault for others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function()
    except RealesrError as error:
        if "\n" in str(error) or not str(error).strip():
            raise Fault(f"{name}: not one line: {error!r}") from error
        return error
    except Exception as error:
        raise Fault(f"{name}: {type(error).__name__}: {error}") from error


def check(
    data: bytes, *, max_pixels: int | None = MAX_PIXELS, write: str = "png", spare: int = 2**24
) -> str:
    """Read, probe and write a file; return what happened. Raises Fault.

    `spare` is how many decoded bytes a file may have had that is refused.
    """
    found: list[Any] = []

    def decoded() -> int:
        if isinstance(found[0], Image):
            return int(np.asarray(found[0]).nbytes)
        return spare

    with limited("reading", decoded):
        found.append(attempt("read", lambda: read_image(data, max_pixels=max_pixels)))
    with limited("probing", decoded):
        header = attempt("probe", lambda: probe(data, max_pixels=max_pixels))
    read_made_by(data)
    image = found[0]
    if not isinstance(image, Image):
        return type(image).__name__
    if isinstance(header, Exception):
        raise Fault(f"read works, probe raises {header!r}")
    if (header.height, header.width) != (image.height, image.width):
        raise Fault(f"probe says {header}, read {image.height} x {image.width}")
    for part in (image.icc, image.exif, image.xmp):
        _check_metadata(part)
    if image.height * image.width > MAX_PIXELS:
        return "Image"
    with limited("writing", lambda: max(decoded(), image.height * image.width * 16)):
        again = attempt(f"write {write}", lambda: encode_image(image, write))
    if isinstance(again, bytes):
        size = attempt("read again", lambda: read_image(again, max_pixels=None))
        if isinstance(size, Exception) or (size.height, size.width) != (image.height, image.width):
            raise Fault(f"{write} written, but read again as {size!r}")
    attempt("from_pil", lambda: from_pil(image.to_pil()))
    return "Image"


def _check_metadata(part: bytes | None) -> None:
    if part is None:
        return
    attempt("tone curve", lambda: color.tone_curve(part))
    attempt("orientation", lambda: exif.orientation_of(part, part))
    attempt("made by", lambda: xmp.replace_made_by(part, "a test"))


def run(files: dict[str, bytes], seed: int, first: int, count: int) -> Counter[str]:
    """Check mutants `first` to `first + count` of a seed and count what happened.

    Raises Fault with the seed and the index.
    """
    outcomes: Counter[str] = Counter()
    for index in range(first, first + count):
        name, data = make_mutant(files, seed, index)
        try:
            outcomes[check(data, write=FORMATS[index % len(FORMATS)])] += 1
        except Fault as fault:
            raise Fault(f"seed={seed} index={index} ({name}): {fault}") from fault
    return outcomes


def main() -> int:
    """Run the command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--keep-going", action="store_true", help="Print faults and go on.")
    options = parser.parse_args()
    import faulthandler

    faulthandler.enable()
    files, end = make_files(), options.first + options.count
    outcomes: Counter[str] = Counter()
    index = options.first
    while index < end:
        size = 1 if options.keep_going else end - index
        try:
            outcomes += run(files, options.seed, index, size)
        except Fault as fault:
            sys.stderr.write(f"{fault}\n")
            if not options.keep_going:
                return 1
            outcomes["Fault"] += 1
        index += size
    sys.stdout.write(json.dumps(outcomes) + "\n")
    return 1 if outcomes["Fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
