"""Generators of hostile weight files and lists of models, and a check of what they may cost.

As a script, checks many mutants and prints what happened as JSON; the last line of a failure names
the seed and the index that reproduce it:

    python tests/fuzz/weight_mutants.py --seed 7 --first 0 --count 10000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from realesr_cli.errors import RealesrError
from realesr_cli.nets.architecture import Generator
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights import cache, fetch, registry
from realesr_cli.weights.load import open_model
from realesr_cli.weights.locate import locate
from realesr_cli.weights.model_files import description_text, model_metadata

try:
    import resource
except ImportError:  # Windows: memory is not measured there
    resource = None  # type: ignore[assignment]

MAX_SECONDS = 2.0
"""Processor time of reading one file."""

SPARE_BYTES = 64 << 20
"""Memory that reading one file may cost beside four times its size."""

MAX_MESSAGE = 2000

COMPACT = CompactArchitecture(2, 1, 4)
NETWORKS = (
    COMPACT,
    CompactArchitecture(4, 0, 3, "leakyrelu", 1, 1),
    RRDBArchitecture(4, 1, 4, 2),
    RRDBArchitecture(2, 1, 4, 2, unshuffle=2, plus=True),
    SRResNetArchitecture(2, 1, 4),
)

# fmt: off
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "os.mkdir",
    "os.remove", "os.rename", "shutil.rmtree", "socket.connect", "ctypes.dlopen",
)
# fmt: on
_watching: list[str] = []


def _audit(event: str, args: object) -> None:
    if _watching and event in FORBIDDEN:
        _watching.append(f"{event}{args}")


sys.addaudithook(_audit)


# --- files --------------------------------------------------------------------------------------


def make_files() -> dict[str, bytes]:
    """Return small weight files of every form, by name."""
    torch.manual_seed(0)
    files = {}
    for architecture in NETWORKS:
        net = architecture.build().eval()
        state = net.state_dict()
        name = f"{architecture.kind}{architecture.scale}"
        facts = model_metadata(architecture, {"license": "MIT", "sources": []})
        half = {key: tensor.half() for key, tensor in state.items()}
        files |= {
            f"{name}.pth": _save({"params": state}),
            f"{name}-ema.pth": _save({"params": half, "params_ema": state, "iter": 3}),
            f"{name}-legacy.pth": _save(state, _use_new_zipfile_serialization=False),
            f"{name}.safetensors": safetensors.torch.save(
                state, {"format": "pt", "realesr": description_text(facts)}
            ),
            f"{name}-half.safetensors": safetensors.torch.save(half),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.trace(net, torch.rand(1, architecture.in_channels, 4, 4))
            files[f"{name}.pt"] = _save_script(script)
    return files


def _save(data: object, **how: Any) -> bytes:
    target = io.BytesIO()
    torch.save(data, target, **how)
    return target.getvalue()


def _save_script(script: Any) -> bytes:
    target = io.BytesIO()
    torch.jit.save(script, target)
    return target.getvalue()


# --- mutations ----------------------------------------------------------------------------------

# fmt: off
NUMBERS = (
    0, 1, -1, 2, 3, 127, 128, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63,
    2**64, 10**30, 10**4999,
)
# fmt: on
# fmt: off
NAMES = (
    "", ".", "..", "a" * 5000, "body.0.weight", "body.-1.weight", f"body.{'9' * 5000}.weight",
    "model.1.sub.0.RDB1.conv1.0.weight", "conv_first.weight", "conv_up1.weight", ".version",
    "body.0.rdb1.conv1x1.weight", "module.", "generator_ema.x", "\ud800", "\0", "../../x", "params",
    "state_dict", "realesr",
)
# fmt: on
# fmt: off
TEXTS = (
    "", "[" * 100_000, "{" * 50_000, "9" * 5000, "null", "[]", '"x"', "1e999", "NaN", "\\",
    '{"format": 2}', '{"architecture": 7}', '{"architecture": {"kind": []}}',
    '{"architecture": {"kind": "rrdb", "blocks": 1000000000}}',
    '{"architecture": {"kind": "compact", "features": 1099511627776}}',
    '{"architecture": {"kind": "compact", "convs": 100000}}',
    '{"architecture": {"kind": "rrdb", "in_channels": -1}}',
    '{"architecture": {"kind": "rrdb", "scale": Infinity}}',
    '{"architecture": {"kind": "srresnet", "scale": null}}',
)
# fmt: on
# fmt: off
OPCODES = (
    b"\x80\x04", b"(", b".", b"0", b"1", b"2", b"N", b"I99999999999\n", b"L" + b"9" * 5000 + b"L\n",
    b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8,
    b"\x8e" + b"\xff" * 8, b"\x95" + b"\xff" * 8, b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff",
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nbytearray\n", b"R", b"b", b"\x81", b"\x92",
    b"o", b"i__builtin__\neval\n", b"\x82\x01", b"\x8a\xff" + b"\x7f" * 255, b"s", b"u", b"a", b"e",
    b"t", b"l", b"d", b"\x85", b"\x86", b"\x87", b"}", b"]", b"Q", b"P0\n", b"\x94", b"h\x00",
    b"q\x00", b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x93", b"\x8f\x90",
    b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"c__torch__\nX\n",
)
# fmt: on


class Call:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def mutate(files: dict[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """Return mutant number `index`: a file name and its contents."""
    dice = random.Random(f"{seed} {index}")
    name = dice.choice(sorted(files))
    data = files[name]
    if index % 3 == 0:
        return name, _mutate_bytes(dice, data)
    if data.startswith(b"PK"):
        return name, _mutate_zip(dice, data)
    if name.endswith(".safetensors"):
        return name, _mutate_safetensors(dice, data)
    return "state.pth", _hostile_checkpoint(dice)


def _mutate_bytes(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        if not changed:
            break
        # Tables of contents stand at both ends of files.
        edge = dice.choice((len(changed), min(len(changed), 600)))
        at = (
            dice.randrange(edge) if dice.random() < 0.7 else len(changed) - 1 - dice.randrange(edge)
        )
        kind = dice.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at : at + 1] = dice.randbytes(dice.randrange(1, 9))
        elif kind == 2:
            del changed[at : at + dice.randrange(1, 300)]
        elif kind == 3:
            changed[at:at] = changed[at : at + dice.randrange(1, 300)]
        elif kind == 4:
            value = dice.choice(NUMBERS) & (2**64 - 1)
            changed[at : at + 8] = struct.pack("<Q", value)
        else:
            del changed[at:]
    return bytes(changed)


def _mutate_zip(dice: random.Random, data: bytes) -> bytes:
    """Change the records of a zip archive, whose checksums are right again afterwards."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for _ in range(dice.choice((1, 1, 2))):
        at = dice.randrange(len(records))
        if dice.random() < 0.7:
            pickles = [i for i, (name, _) in enumerate(records) if name.endswith("data.pkl")]
            at = pickles[0] if pickles else at
        name, body = records[at]
        kind = dice.randrange(7)
        if kind < 4 and name.endswith(".pkl"):
            records[at] = name, _mutate_pickle(dice, body)
        elif kind == 4:
            records[at] = name, _mutate_bytes(dice, body)
        elif kind == 5:
            records[at] = name, dice.choice((b"", body * 2, pickle.dumps(_hostile_object(dice), 2)))
        elif dice.random() < 0.5 and len(records) > 1:
            del records[at]
        else:
            folder = name.rpartition("/")[0]
            records.append(
                (f"{folder}/{dice.choice(('constants.pkl', 'data/0', 'version', 'x'))}", body)
            )
    target = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if dice.random() < 0.1 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
        warnings.simplefilter("ignore")  # of two records with one name
        for name, body in records:
            archive.writestr(name, body)
    return target.getvalue()


def _mutate_pickle(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.1 or not data:
        return pickle.dumps(_hostile_object(dice), 2)
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 3))):
        at = dice.randrange(len(changed))
        piece = dice.choice(OPCODES)
        if dice.random() < 0.5:
            changed[at:at] = piece
        else:
            changed[at : at + len(piece)] = piece
    return bytes(changed)


def _hostile_object(dice: random.Random) -> object:
    return dice.choice(
        (
            Call(os.mkdir, "canary"),
            Call(eval, "__import__('os').mkdir('canary')"),
            Call(getattr, "x", "y"),
            Call(bytearray, 10**12),
            Call(os.system, "mkdir canary"),
            {"params": Call(print, "canary")},
            [[]] * 1000,
            10**4000,
            {"a": {"b": {"c": {}}}},
            None,
            {"params": {"body.0.weight": 7}},
            {i: i for i in range(3000)},
        )
    )


def _mutate_safetensors(dice: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for _ in range(dice.choice((1, 1, 3))):
        name = dice.choice(sorted(header))
        kind = dice.randrange(8)
        if name == "__metadata__" or kind == 0:
            header["__metadata__"] = dice.choice(
                ({"realesr": dice.choice(TEXTS)}, {dice.choice(NAMES): ""}, [], 7, {"realesr": 7})
            )
        elif kind == 1:
            header[dice.choice(NAMES)] = header.pop(name)
        elif not isinstance(header[name], dict):
            del header[name]
        elif kind == 2:
            header[name]["dtype"] = dice.choice(
                ("F4", "F8_E4M3", "F8_E5M2", "C64", "U16", "U64", "I64", "BOOL", "F64", "BF16", "?")
            )
        elif kind == 3:
            header[name]["shape"] = [dice.choice(NUMBERS[:-1]) for _ in range(dice.randrange(6))]
        elif kind == 4:
            header[name]["data_offsets"] = [dice.choice(NUMBERS[:12]) for _ in range(2)]
        elif kind == 5:
            header[name] = dice.choice((None, 7, [], {}, "x"))
        elif kind == 6:
            header[dice.choice(NAMES)] = header[name]
        else:
            del header[name]
        if not header:
            break
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if dice.random() < 0.1:
        text = dice.choice(TEXTS).encode()
    return struct.pack("<Q", len(text)) + text + body


def _hostile_checkpoint(dice: random.Random) -> bytes:
    """Return a checkpoint that torch wrote itself, with tensors or facts that do not fit."""
    architecture = dice.choice(NETWORKS)
    state: dict[Any, Any] = dict(architecture.build().state_dict())
    for _ in range(dice.choice((1, 1, 2))):
        name = dice.choice(sorted(map(str, state)))
        if name not in state or state[name].numel() > 10**6:  # one that claims to be huge
            continue
        kind = dice.randrange(8)
        if kind == 0:
            state[dice.choice(NAMES)] = state.pop(name)
        elif kind == 1:
            state[dice.choice(NAMES)] = torch.zeros(dice.choice([(), (1,), (3, 3), (64, 64, 3, 3)]))
        elif kind == 2:
            state[name] = torch.zeros(dice.choice([(), (0,), (2,), (8, 8, 3, 3), (1, 1, 1, 1, 1)]))
        elif kind == 3:
            odd = (torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float8_e5m2)
            state[name] = state[name].to(dice.choice(odd))
        elif kind == 4:
            sparse, huge = torch.eye(4).to_sparse(), torch.zeros(1).expand(1 << 40)
            state[name] = dice.choice((state[name].to("meta"), sparse, huge))
        elif kind == 5:
            value = dice.choice((float("nan"), float("inf"), 3e38))
            state[name] = torch.full(state[name].shape, value)
        elif kind == 6:
            state[dice.choice((7, (1, 2), 10**4000, None, b"x"))] = torch.zeros(2)
        else:
            del state[name]
    nested: object = {"params": state, "realesr": dice.choice(TEXTS)}
    for _ in range(dice.choice((0, 0, 1, 7))):
        nested = {dice.choice(("model", "state_dict", "x")): nested}
    return _save(nested if dice.random() < 0.7 else state)


# --- lists of models and records beside files -----------------------------------------------------


def mutate_json(seed: int, index: int) -> bytes:
    """Return a list of models, a stamp or a note that has been tampered with."""
    dice = random.Random(f"json {seed} {index}")
    model: dict[str, Any] = {
        "name": "mine",
        "file": "imported/mine.pth",
        "kind": "generator",
        "about": "x",
        "bytes": 7,
        "architecture": {"kind": "compact", "scale": 2},
        "urls": ["http://127.0.0.1:1/x"],
        "scale": 2,
        "sha256": "0" * 64,
        "aliases": ["m"],
        "imported": True,
    }
    data: Any = {
        "format": 1,
        "models": [model],
        "bytes": 3,
        "mtime_ns": 4,
        "sha256": "a",
        "time": 5.0,
        "url": "x",
        "etag": '"y"',
    }
    values: tuple[Any, ...] = (
        None,
        True,
        [],
        {},
        [[]],
        "",
        "x" * 5000,
        "../..",
        "/etc/passwd",
        "\0",
        1.5,
        float("inf"),
        float("nan"),
        [None],
        {"kind": "rrdb", "blocks": 10**9},
        *NUMBERS[:-1],
    )
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        place = dice.choice((data, model, model, model["architecture"]))
        if isinstance(place, dict):
            key = dice.choice((*place, "extra", "bundled", "denoise_partner", "license"))
            place[key] = dice.choice(values)
        if not isinstance(model["architecture"], dict):
            model["architecture"] = {}
    text = json.dumps(data)
    if index % 4 == 0:
        return _mutate_bytes(dice, text.encode())
    return (dice.choice(TEXTS) if index % 9 == 0 else text).encode()


# --- checks -------------------------------------------------------------------------------------


def check(path: Path) -> str:
    """Open a weight file; returns the class of the network or of the error.

    Asserts that an error is ours and one line, and what reading cost.
    """
    size = path.stat().st_size
    return check_call(lambda: open_model(path).net, size)


def check_json(data: bytes, home: Path) -> str:
    """Use a list of models, a stamp and a note of these bytes; returns the class of the outcome."""
    for name in ("imported.json", "no-connection.json", "weights/model.pth.checked"):
        (home / name).unlink(missing_ok=True)  # some disks are slow to write over a file
        (home / name).write_bytes(data)
    (home / "weights" / "model.pth").write_bytes(b"x")

    def use() -> object:
        assert cache.remembered_hash(home / "weights" / "model.pth") is None
        cache.recorded_hash(home / "weights" / "model.pth")
        fetch._seconds_since_failure()
        for entry in registry.imported():
            inside = registry.cache_path(entry).resolve()
            assert inside.is_relative_to((home / "weights").resolve())
            registry.cached(entry)
        located = locate("mine")
        return located.known_architecture

    return check_call(use, len(data))


def check_call(action: Callable[[], object], size: int) -> str:
    """Return the class of a result or of an error of ours; assert what it cost and said."""
    before, began = _peak(), time.process_time()
    _watching.append("")
    message = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = action()
        outcome = "Generator" if isinstance(result, Generator) else type(result).__name__
    except RealesrError as error:
        outcome, message = type(error).__name__, str(error)
    finally:
        forbidden = _watching[1:]
        _watching.clear()
    assert "\n" not in message, f"more than a line: {message!r}"
    assert len(message) <= MAX_MESSAGE, f"a long message: {message[:300]}"
    assert not forbidden, f"code was run: {forbidden}"
    seconds, grown = time.process_time() - began, _peak() - before
    assert seconds <= MAX_SECONDS, f"{seconds:.1f} s"
    assert grown <= 4 * size + SPARE_BYTES, f"{grown >> 20} MiB more memory"
    return outcome


def _peak() -> int:
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def run(files: dict[str, bytes], seed: int, first: int, count: int) -> Counter[str]:
    """Check so many mutants of weight files; an AssertionError names the one that fails."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(first, first + count):
            name, data = mutate(files, seed, index)
            path = Path(folder) / name
            path.write_bytes(data)
            try:
                outcomes[check(path)] += 1
            except BaseException as error:
                raise AssertionError(f"seed={seed} index={index} {name}: {error!r}") from error
            path.unlink()
        assert not list(Path(folder).iterdir())
    assert not Path("canary").exists()
    return outcomes


def run_json(seed: int, first: int, count: int) -> Counter[str]:
    """Check so many mutants of lists and records."""
    outcomes: Counter[str] = Counter()
    usual = os.environ.get("REALESR_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REALESR_HOME"] = folder
        try:
            (Path(folder) / "weights").mkdir()
            for index in range(first, first + count):
                try:
                    outcomes[check_json(mutate_json(seed, index), Path(folder))] += 1
                except BaseException as error:
                    raise AssertionError(f"seed={seed} index={index} JSON: {error!r}") from error
        finally:
            os.environ.pop("REALESR_HOME")
            if usual is not None:
                os.environ["REALESR_HOME"] = usual
    return outcomes


def main() -> None:
    """Check mutants and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = run(make_files(), options.seed, options.first, options.count)
    lists = run_json(options.seed, options.first, options.count)
    found += Counter({f"json {outcome}": number for outcome, number in lists.items()})
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
