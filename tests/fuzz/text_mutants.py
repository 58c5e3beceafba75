"""Generators of hostile texts and archives for every other parser of the package.

As a script, checks many mutants and prints what happened as JSON; the last line of a failure names
the seed and the index that reproduce it:

    python tests/fuzz/text_mutants.py --seed 7 --first 0 --count 10000
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import random
import re
import struct
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image as pillow
from weight_mutants import COMPACT, check_call

from realesr_cli.batch.archives import archive_comment, image_members
from realesr_cli.batch.made_by import MadeBy, ModelIdentity, find_differences, parse_made_by
from realesr_cli.batch.output_paths import fixed_folder, parse_output
from realesr_cli.batch.sources import InputSource, parse_shard, read_list
from realesr_cli.cli.model_info import format_card, recorded_rows
from realesr_cli.degrade.degradation import sample_batch
from realesr_cli.degrade.presets import get_preset
from realesr_cli.degrade.recipe import Recipe, recipes_from_plain, recipes_to_plain
from realesr_cli.evaluate.images import load_degradation
from realesr_cli.image.read import read_image
from realesr_cli.plain import parse_override, read_json
from realesr_cli.settings import to_plain
from realesr_cli.train.checkpoint import FORMAT, read_checkpoint
from realesr_cli.train.recipes import load_config
from realesr_cli.train.state import TrainProgress
from realesr_cli.weights.locate import locate, parse_mixture
from realesr_cli.weights.model_files import description_text, model_metadata
from realesr_cli.weights.openmodeldb import CardSettings, make_card
from realesr_cli.weights.provenance import inspect_model

Target = tuple[bytes, Callable[[bytes, Path], Any], Callable[[Any], object]]
"""A valid text or file, how a mutant of it becomes the argument of a parser, and the parser.

The first may write files to a folder; only the second is checked.
"""

MADE_BY = MadeBy(((ModelIdentity("photo", "0" * 64),),), {"tta": True})

# fmt: off
TOKENS = (
    b"", b'"', b"'''", b"[", b"]", b"{", b"}", b"[" * 5000, b"{" * 5000, b"a." * 400, b"=", b",",
    b"\n", b"\0", b"null", b"true", b"nan", b"-inf", b"1e999", b"Infinity", b"NaN", b"-1", b"0",
    b"1e-320", b"9" * 5000, b"1" + b"0" * 20, b"0x10", b'""', b'"../.."', b'"\\ud800"',
    b'"\\u0000"', b"\xff\xfe", b'"' + b"x" * 5000 + b'"', b"[[]]", b"{}", b"[]",
    b"1979-05-27T07:32:00Z", b"@", b":", b"%n{0.x}",
)
# fmt: on
VALUES = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    10**30,
    0.5,
    -0.5,
    1e-320,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x" * 5000,
    "../..",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [0] * 1000,
)  # fmt: skip
_WORD = re.compile(rb'"[^"]*"|[\w.+-]+|[^\w\s]')


def make_targets() -> dict[str, Target]:
    """Return every parser with a valid text or file."""
    sources = [InputSource(Path("a.png"))]
    return {
        "recipe.toml": (
            b'extends = "compact-x4"\nseed = 3\n[data]\npatch = 64\ngt = ["a", "b"]\n'
            b'[degradation]\npreset = "light"\n[[stages]]\nname = "one"\niterations = 10\n',
            lambda data, folder: str(_save(data, folder / "recipe.toml")),
            load_config,
        ),
        "degradation.toml": (
            b'preset = "realesrgan"\n[final]\nsinc = 0.5\n[final.jpeg]\nquality = [50.0, 95.0]\n',
            lambda data, folder: str(_save(data, folder / "degradation.toml")),
            load_degradation,
        ),
        "recipes.json": (
            json.dumps(recipes_to_plain(_draw_recipes())).encode(),
            lambda data, folder: _save(data, folder / "recipes.json"),
            lambda path: recipes_from_plain(read_json(path)),
        ),
        "checkpoint.pt": (
            json.dumps(to_plain(load_config("compact-x4"))).encode(),
            _save_checkpoint,
            read_checkpoint,
        ),
        "model.safetensors": (_describe_richly(), _save_model, _show_model),
        "pages.cbz": (
            _make_archive(),
            lambda data, folder: _save(data, folder / "pages.cbz"),
            _read_archive,
        ),
        "record": (MADE_BY.to_text().encode(), _decode, _compare),
        "list": (b"a.png\nb/c.png\r\n\nd e.png\n", lambda data, _: data, read_list),
        "override": (b"data.patch=64", _decode, parse_override),
        "setting": (
            b"stages.psnr.pixel.weight=0.5",
            _decode,
            lambda text: load_config("compact-x4", [text]),
        ),
        "model": (b"photo:general@0.25", _decode, lambda text: (parse_mixture(text), locate(text))),
        "shard": (b"1/4", _decode, parse_shard),
        "output": (
            b"out/{stem}_x{scale}.png",
            _decode,
            lambda text: (parse_output(text, sources), fixed_folder(text)),
        ),
    }


def _decode(data: bytes, _: Path) -> str:
    """Return text as of an argument, which a message may repeat."""
    return data.decode("latin1").replace("\n", " ")[:500]


def _save(data: bytes, path: Path) -> Path:
    path.unlink(missing_ok=True)  # some disks are slow to write over a file
    path.write_bytes(data)
    return path


def _save_checkpoint(data: bytes, folder: Path) -> Path:
    text, progress = data.decode("latin1"), json.dumps(to_plain(TrainProgress()))
    target = io.BytesIO()
    torch.save({"format": FORMAT, "config": text, "progress": progress}, target)
    return _save(target.getvalue(), folder / "checkpoint.pt")


def _draw_recipes() -> tuple[Recipe, ...]:
    rng = np.random.default_rng(0)
    return sample_batch(get_preset("light"), rng, 2, scale=2, size=(32, 32))


def _describe_richly() -> bytes:
    source = {"name": "a", "sha256": "0" * 64, "license": "MIT", "share": 0.5, "sources": [{}]}
    extra = {"license": "MIT", "sources": [source], "alpha": 0.5, "tool": "x", "iterations": 7}
    extra["training"] = {"config": {"scale": 2, "data": {"gt": ["a"]}}, "scores": {"psnr": 30.1}}
    return description_text(model_metadata(COMPACT, extra)).encode()


def _save_model(data: bytes, folder: Path) -> Path:
    """Write a network with any text as its description."""
    file = safetensors.torch.save(dict(COMPACT.build().state_dict()), {"realesr": "MARK"})
    size = int.from_bytes(file[:8], "little")
    text = json.dumps(data.decode("latin1")).encode()[1:-1]
    header = file[8 : 8 + size].replace(b"MARK", text)
    content = struct.pack("<Q", len(header)) + header + file[8 + size :]
    return _save(content, folder / "model.safetensors")


def _show_model(path: Path) -> object:
    info = inspect_model(path)
    recorded_rows(info.recorded)
    return format_card(make_card(info, CardSettings()))


def _make_archive() -> bytes:
    image, target = io.BytesIO(), io.BytesIO()
    pillow.new("RGB", (5, 4)).save(image, "PNG")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("01/a.png", image.getvalue())
        archive.writestr("ComicInfo.xml", "<x/>")
        archive.writestr("02/b.png", image.getvalue())
        archive.comment = b"a comment"
    return target.getvalue()


def _read_archive(path: Path) -> object:
    archive_comment(path)
    return [read_image(s.content()) for s in image_members(InputSource(path), 10**6)]


def _compare(text: str) -> object:
    found = parse_made_by(text)
    return None if found is None else find_differences(found, MADE_BY)


def mutate(data: bytes, seed: int, index: int) -> bytes:
    """Return mutant number `index` of a text or file."""
    rng = random.Random(f"text {seed} {index}")
    for _ in range(rng.choice((1, 1, 2, 4))):
        words = list(_WORD.finditer(data))
        kind = rng.randrange(4)
        if kind < 2 and data.startswith(b"{"):
            data = _replace_value(rng, data)
        elif kind < 3 and words:
            start, end = rng.choice(words).span()
            data = data[:start] + rng.choice(TOKENS) + data[end:]
        else:
            at, size = rng.randrange(len(data) + 1), rng.randrange(1, 40)
            part = rng.choice((b"", data[at : at + size] * 2, rng.randbytes(rng.randrange(1, 5))))
            data = data[:at] + part + data[at + size :]
    return data


def _replace_value(rng: random.Random, data: bytes) -> bytes:
    """Replace or remove one value of a JSON text, or rename its key."""
    try:
        root = place = json.loads(data)
        while isinstance(place, (dict, list)) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if isinstance(place[key], (dict, list)) and rng.random() < 0.8:
                place = place[key]
                continue
            value = rng.choice((*VALUES, place[key]))
            if rng.random() < 0.2 and isinstance(place, dict):
                place[rng.choice(("extra", "name", "op", "format"))] = place.pop(key)
            else:
                place[key] = value
            break
        return json.dumps(root).encode()
    except (ValueError, RecursionError):
        return data


def run(seed: int, first: int, count: int) -> Counter[str]:
    """Check so many mutants, of all parsers in turn; an AssertionError names one that fails."""
    targets, outcomes = make_targets(), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(first, first + count):
            name = list(targets)[index % len(targets)]
            text, make, parse = targets[name]
            data = mutate(text, seed, index)
            argument = make(data, Path(folder))
            try:
                outcome = check_call(functools.partial(parse, argument), len(data))
            except BaseException as error:
                raise AssertionError(f"seed={seed} index={index} {name}: {error!r}") from error
            outcomes[f"{name} {'refused' if outcome.endswith('Error') else 'read'}"] += 1
    return outcomes


def main() -> None:
    """Check mutants and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    sys.stdout.write(json.dumps(run(options.seed, options.first, options.count)) + "\n")


if __name__ == "__main__":
    main()
