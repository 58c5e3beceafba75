"""`realesr models` does what it says, for people and as JSON, and fails with the right code."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from weights_server import FileServer, status, whole

from realesr_cli.cli.advice import message_with_advice
from realesr_cli.cli.models import models_group
from realesr_cli.errors import (
    ConfigError,
    ModelUnavailableError,
    RealesrWarning,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights import fetch, model_files, registry
from realesr_cli.weights.download import RetryPolicy
from realesr_cli.weights.load import open_model

TINY = CompactArchitecture(scale=2, convs=1, features=4)


def models(*args: str, input: str | None = None) -> Result:
    """Run a command that may fail by `ctx.exit`; errors for the boundary come through."""
    result = CliRunner().invoke(models_group, args, input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(*args: str) -> Any:
    return json.loads(models(*args, "--json").stdout)


def save(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    model_files.save_pth(path, {"params": TINY.build().state_dict()})
    return path


@pytest.fixture
def served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[FileServer, registry.RegistryEntry]]:
    """A server, and the registry with animevideo as a small file on it."""
    data = save(tmp_path / "served.pth").read_bytes()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(
        fetch.ensure,
        "__kwdefaults__",
        {
            **fetch.ensure.__kwdefaults__,
            "retry": RetryPolicy(attempts=1, sleep=lambda seconds: None),
        },
    )
    with FileServer() as server:
        url = server.serve("/realesr-animevideov3.pth", whole(data))
        entry = replace(
            registry.resolve("animevideo"),
            urls=(url,),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        others = [e for e in registry.official() if e.name != entry.name]
        monkeypatch.setattr(registry, "official", lambda: (entry, *others))
        yield server, entry


def test_list_shows_names_aliases_and_state() -> None:
    output = models("list").stdout
    assert "RealESRGAN_x4plus " in output
    assert "also: x4plus" in output
    listed = models("list", "--cached").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["photo"]


def test_list_shows_license_quality_and_speed() -> None:
    header, *lines = models("list").stdout.splitlines()
    columns = {name: header.index(name) for name in ("QUALITY", "SPEED", "LICENSE", "FOR")}
    (line,) = (line for line in lines if line.startswith("realesr-animevideov3 "))
    shown = {name: line[start:].split("  ")[0] for name, start in columns.items()}
    assert shown["LICENSE"] == "BSD-3-Clause"
    assert shown["SPEED"] == "29x"
    assert shown["QUALITY"] in ("high", "medium", "basic")
    assert shown["FOR"].startswith("Anime video")


def test_list_as_json_is_one_document() -> None:
    document = as_json("list")
    assert document["home"] == str(registry.home())
    names = {m["name"]: m for m in document["models"]}
    assert names["RealESRGAN_x4plus"]["aliases"] == ["x4plus", "realesrgan"]
    assert names["RealESRGAN_x4plus"]["cached"] is False
    assert [m["name"] for m in as_json("list", "--cached")["models"]] == ["photo"]


def test_info_of_a_registered_model() -> None:
    output = models("info", "general").stdout
    assert "1,213,296" in output
    assert "BSD-3-Clause" in output
    assert "not in the cache" in output
    assert "address:    https://github.com/xinntao/Real-ESRGAN/releases/" in output
    assert "samples:    https://github.com/xinntao/Real-ESRGAN\n" in output
    document = as_json("info", "general")
    assert document["parameters"] == 1_213_296
    assert document["architecture"]["kind"] == "compact"
    assert document["cached"] is False


def test_info_of_a_file_and_of_a_damaged_one(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.pth")
    document = as_json("info", str(path))
    assert document["scale"] == 2
    assert document["description"] == TINY.describe()
    registry.weights_dir().mkdir(parents=True)
    registry.cache_path(registry.resolve("general")).write_bytes(b"short")
    assert "warning:" in models("info", "general").stderr


def test_info_of_a_trained_file_fits_on_lines(tmp_path: Path) -> None:
    recorded = {
        "step": 4500,
        "recipe": "mine\x1b[31m",
        "scores": {"psnr": 22.395391970214146, "best": True},
        "training": {"data": {"patch": 40}, "paths": ["x" * 20] * 20},
    }
    path = tmp_path / "generator.safetensors"
    metadata = model_files.model_metadata(TINY, recorded)
    model_files.save_safetensors(path, TINY.build().state_dict(), metadata)
    lines = models("info", str(tmp_path)).stdout.splitlines()
    assert "step:       4500" in lines
    assert "recipe:     mine\\u001b[31m" in lines
    assert "scores:     best true, psnr 22.395" in lines
    (training,) = (line for line in lines if line.startswith("training:"))
    assert training.endswith("characters (--json shows all)")
    assert as_json("info", str(tmp_path))["recorded"] == recorded


def test_info_of_nothing() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'general'"):
        models("info", "generall")


def test_pull_verify_path_and_rm(served: tuple[FileServer, registry.RegistryEntry]) -> None:
    server, entry = served
    result = models("pull", "animevideo")
    assert result.exit_code == 0
    assert "license BSD-3-Clause" in result.stderr
    path = registry.cache_path(entry)
    assert path.is_file()
    assert models("path", "animevideo").stdout.strip() == str(path)
    assert as_json("verify", "animevideo") == {
        "ok": True,
        "models": [
            {"name": entry.name, "path": str(path), "ok": True, "sha256": entry.sha256},
        ],
    }
    assert as_json("rm", "animevideo", "--yes") == {"removed": [entry.name]}
    assert not path.exists()
    assert as_json("pull", "animevideo")["models"] == [
        {
            "name": entry.name,
            "ok": True,
            "path": str(path),
            "license": "BSD-3-Clause",
            "verified": True,
        }
    ]
    assert len(server.requests) == 2


def test_pull_goes_on_after_a_failure(served: tuple[FileServer, registry.RegistryEntry]) -> None:
    server, _ = served
    server.serve("/realesr-animevideov3.pth", status(404))
    result = models("pull", "RRDB_PSNR_x4", "animevideo")
    assert result.exit_code == 3
    assert "no public address" in result.stderr
    assert "HTTP 404" in result.stderr
    document = as_json("pull", "animevideo", "--offline")
    assert document["models"][0]["ok"] is False
    assert "offline" in document["models"][0]["error"]


def test_pull_of_an_unverified_file_says_so(
    served: tuple[FileServer, registry.RegistryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entry = served
    open_entry = replace(entry, sha256=None, bytes=None)
    monkeypatch.setattr(registry, "official", lambda: (open_entry,))
    refused = models("pull", "animevideo")
    assert refused.exit_code == 3
    assert "--allow-unverified" in refused.stderr
    result = models("pull", "animevideo", "--allow-unverified")
    assert result.exit_code == 0
    assert "was not verified" in result.stderr
    assert as_json("verify")["ok"] is True


def test_verify_finds_damage_and_strangers(
    served: tuple[FileServer, registry.RegistryEntry],
) -> None:
    _, entry = served
    models("pull", "animevideo")
    path = registry.cache_path(entry)
    save(registry.weights_dir() / "stray.pth")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    result = models("verify")
    assert result.exit_code == 3
    assert f"WRONG {path}: SHA-256" in result.stdout
    assert "stray.pth: not a registered model" in result.stdout
    path.write_bytes(b"short")
    assert "size mismatch" in models("verify", "animevideo").stdout
    missing = models("verify", "x4plus")
    assert missing.exit_code == 3
    assert "not in the cache" in missing.stdout


def test_verify_without_a_known_hash(
    served: tuple[FileServer, registry.RegistryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entry = served
    monkeypatch.setattr(registry, "official", lambda: (replace(entry, sha256=None, bytes=None),))
    save(registry.cache_path(entry))
    assert "nothing to compare with" in models("verify").stdout


def test_verify_of_an_empty_cache_reads_the_installed_model_and_writes_nothing_beside_it() -> None:
    path = registry.bundled_path(registry.resolve("photo"))
    assert path is not None
    assert models("verify").stdout == f"ok    {path}\n"
    assert [m["name"] for m in as_json("verify")["models"]] == ["photo"]
    assert not list(path.parent.glob("*.checked"))


def test_the_installed_model_stays() -> None:
    result = models("rm", "photo", "--yes")
    assert "photo is part of realesr-cli and stays" in result.stderr
    assert registry.cached(registry.resolve("photo")) is not None


def test_import_file_with_name_and_rm_asks(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.pth")
    assert "imported better from" in models("import", str(path), "--name", "better").stdout
    assert "already there: better" in models("import", str(path)).stdout
    assert [m["name"] for m in as_json("list", "--cached")["models"]] == ["photo", "better"]
    assert models("rm", "better", input="n\n").stdout == ""
    assert registry.find("better") is not None
    assert "removed better" in models("rm", "better", input="y\n").stdout
    assert registry.find("better") is None
    assert "x4plus is not in the cache" in models("rm", "x4plus").stderr


def test_import_folder_reports_what_was_skipped(tmp_path: Path) -> None:
    save(tmp_path / "models/upscale_models/mine.pth")
    (tmp_path / "models/upscale_models/bad.pth").write_text("hello", encoding="utf-8")
    result = models("import", str(tmp_path))
    assert result.exit_code == 0
    assert "imported mine" in result.stdout
    assert "bad.pth: expected a checkpoint, got text" in result.stderr
    document = as_json("import", str(tmp_path))
    assert [m["new"] for m in document["imported"]] == [False]
    assert "text" in document["skipped"][0]["reason"]


def test_import_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_text("hello", encoding="utf-8")
    with pytest.raises(UnknownModelError, match="none of its 1 weight files"):
        models("import", str(tmp_path))
    with pytest.raises(ConfigError, match="--name"):
        models("import", str(tmp_path), "--name", "x")
    with pytest.raises(UnknownModelError, match="no such file"):
        models("import", str(tmp_path / "none.pth"))


def test_path_of_the_cache_and_of_what_is_not_there() -> None:
    assert models("path").stdout.strip() == str(registry.weights_dir())
    assert as_json("path")["home"] == str(registry.home())
    with pytest.raises(ModelUnavailableError, match="models pull RealESRGAN_x4plus"):
        models("path", "x4plus")


def test_rm_in_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models("import", str(save(tmp_path / "mine.pth")))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(WeightsWriteError, match=r"mine\.pth: cannot be removed: Read-only"):
        models("rm", "mine", "--yes")


def test_import_settles_what_the_tensors_cannot(tmp_path: Path) -> None:
    leaky = CompactArchitecture(2, 1, 4, "leakyrelu")
    torch.save(leaky.build().state_dict(), tmp_path / "leaky.pth")
    with pytest.warns(RealesrWarning, match="leakyrelu"):
        models("import", str(tmp_path / "leaky.pth"))
    assert open_model("leaky").architecture.activation == "relu"
    models("import", str(tmp_path / "leaky.pth"), "--assume", "activation=leakyrelu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model("leaky").architecture == leaky
    assert as_json("info", "leaky")["architecture"]["activation"] == "leakyrelu"
    for assumed in ("activation=gelu", "scale=4", "activation", "=relu", "convs=2"):
        with pytest.raises(ConfigError, match=r"assume|does not fit"):
            models("import", str(tmp_path / "leaky.pth"), "--assume", assumed)
    with pytest.raises(ConfigError, match="for one file"):
        models("import", str(tmp_path), "--assume", "activation=relu")


def test_the_warning_of_an_ambiguous_file_says_what_to_do(tmp_path: Path) -> None:
    leaky = CompactArchitecture(2, 1, 4, "leakyrelu")
    torch.save(leaky.build().state_dict(), tmp_path / "leaky.pth")
    with pytest.warns(RealesrWarning) as caught:
        open_model(tmp_path / "leaky.pth")
    assert "models import FILE --assume" in message_with_advice(caught[0].message)
