"""weights.json is sound, every name finds its model, and a wrong name is helped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from realesr_cli.errors import ConfigError, UnknownModelError
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import registry
from realesr_cli.weights.registry import RegistryEntry

SHORT = {
    "x4plus": "RealESRGAN_x4plus",
    "x2plus": "RealESRGAN_x2plus",
    "anime": "RealESRGAN_x4plus_anime_6B",
    "general": "realesr-general-x4v3",
    "animevideo": "realesr-animevideov3",
    "realesrnet": "RealESRNet_x4plus",
    "esrgan": "ESRGAN",
    "bsrgan": "BSRGAN",
    "RRDB_ESRGAN_x4": "ESRGAN",
    "vgg19": "vgg19",
}


@pytest.mark.parametrize(("short", "name"), SHORT.items())
def test_short_names(short: str, name: str) -> None:
    assert registry.resolve(short).name == name


def test_every_name_finds_its_own_entry_however_it_is_typed() -> None:
    for entry in registry.official():
        for name in registry.names_of(entry):
            for typed in (name, name.upper(), name + ".pth", name.replace("_", "-")):
                assert registry.resolve(typed) is entry


def test_entries_are_complete_and_plausible() -> None:
    for entry in registry.official():
        assert entry.about.endswith(".")
        assert entry.license != "unknown"
        assert Path(entry.file).name == entry.file
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert all(url.startswith("https://") for url in entry.urls)
        assert all(url.rpartition("/")[2] == entry.file for url in entry.urls)
        assert entry.urls or entry.bundled or entry.name in ("RRDB_PSNR_x4", "feat-squeeze")
        assert entry.denoise_partner is None or registry.resolve(entry.denoise_partner)
    hashes = [e.sha256 for e in registry.official() if e.sha256]
    assert len(set(hashes)) == len(hashes)


def test_architectures_build_and_fit_the_file_sizes() -> None:
    for entry in registry.official():
        if entry.kind != "generator":
            continue
        assert entry.architecture is not None
        architecture = architecture_from_plain(entry.architecture)
        assert architecture.to_plain() == entry.architecture
        assert architecture.scale == entry.scale
        if entry.bytes is not None:
            numbers = (2 if entry.bundled else 4) * architecture.count_parameters()
            assert numbers < entry.bytes < numbers * 1.03 + 20_000


def test_published_parameter_counts() -> None:
    counts = {
        "x4plus": 16_697_987,
        "x2plus": 16_703_171,
        "anime": 4_467_779,
        "animevideo": 621_424,
        "general": 1_213_296,
        "BSRGANx2": 16_661_059,
    }
    for name, count in counts.items():
        plain = registry.resolve(name).architecture
        assert plain is not None
        assert architecture_from_plain(plain).count_parameters() == count


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'x4plus'") as caught:
        registry.resolve("x4pluss")
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownModelError, match="qqqqqqqqqq") as caught:
        registry.resolve("qqqqqqqqqq")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "name"),
    [(None, "x4plus"), (1, "x2plus"), (2, "x2plus"), (2.01, "x4plus"), (8, "x4plus")],
)
def test_automatic_model(scale: float | None, name: str) -> None:
    assert registry.automatic(scale) is registry.resolve(name)


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REALESR_HOME", str(tmp_path))
    assert registry.home() == tmp_path
    assert registry.weights_dir().parent == tmp_path
    monkeypatch.delenv("REALESR_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert registry.home().name == "realesr"


def test_imported_models_are_known_until_removed() -> None:
    entry = RegistryEntry(name="Mine_x4", file="imported/Mine_x4.pth", about="Imported.", scale=4)
    registry.add_imported(entry)
    registry.add_imported(RegistryEntry(name="other", file="imported/other.pth"))
    registry.add_imported(entry)
    assert [e.name for e in registry.imported()] == ["other", "Mine_x4"]
    assert registry.resolve("mine-x4").imported
    registry.remove_imported("MINE_X4")
    assert registry.find("Mine_x4") is None
    assert registry.find("other") is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"format": 1}', '{"format": 1, "models": [1]}', "[" * 100_000, "7",
        '{"format": 1, "models": {}}', '{"format": 1, "models": [[]]}', '{"format": ' + "9" * 5000,
        '{"format": 1, "models": [{"name": "a", "file": "a.pth", "bytes": Infinity}]}',
        '{"format": 1, "models": [{"name": "a", "file": "a.pth", "scale": 1e999}]}',
        '{"format": 1, "models": [{"name": "a", "file": "a.pth", "extra": 1}]}',
        '{"format": 1, "models": [{"name": "a"}]}', "\x00",
    ],
)  # fmt: skip
def test_damaged_list_is_named(text: str) -> None:
    registry.home().mkdir(parents=True, exist_ok=True)
    registry.index_path().write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(str(registry.index_path()))):
        registry.entries()


def test_list_of_a_newer_version_is_named() -> None:
    registry.home().mkdir(parents=True, exist_ok=True)
    registry.index_path().write_text(json.dumps({"format": 2, "models": []}), encoding="utf-8")
    with pytest.raises(ConfigError, match="newer realesr-cli"):
        registry.imported()


def test_cached_sees_the_file() -> None:
    entry = registry.resolve("animevideo")
    assert registry.cached(entry) is None
    registry.weights_dir().mkdir(parents=True)
    registry.cache_path(entry).write_bytes(b"x")
    assert registry.cached(entry) == registry.cache_path(entry)


def test_list_inside_an_installed_package_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "realesr_cli"
    package.mkdir()
    monkeypatch.setattr(registry, "_PACKAGE", package)
    assert registry.list_path() == tmp_path / "weights.json"
    (package / "weights.json").write_text("{}", encoding="utf-8")
    assert registry.list_path() == package / "weights.json"


@pytest.mark.parametrize(
    "file", ["../..", "/etc/passwd", "a/../../b.pth", "", "a//b", "a\\..\\b", "x" * 300]
)
@pytest.mark.parametrize("key", ["file", "bundled"])
def test_files_of_a_list_stay_in_their_folder(file: str, key: str) -> None:
    model = {"name": "evil", "file": "evil.pth", key: file}
    registry.home().mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": 1, "models": [model]})
    registry.index_path().write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{key}: expected a path inside"):
        registry.imported()


def test_the_features_of_the_perceptual_distance_are_registered(tmp_path: Path) -> None:
    entry = registry.resolve("feat-squeeze")
    assert (entry.kind, entry.license, entry.urls) == ("features", "MIT", ())
    assert registry.resolve("squeezenet1_1").sha256 != entry.sha256
    assert registry.resolve("squeezenet1_1").urls


def test_speeds_are_those_of_the_arithmetic() -> None:
    """Multiplications of all convolutions per output pixel, counted on a small image."""

    def count(plain: object) -> float:
        with torch.device("meta"):
            net = architecture_from_plain(plain).build()
        net.to_empty(device="cpu")
        total, side = 0, net.architecture.multiple

        def add(conv: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
            nonlocal total
            total += conv.weight.numel() * output.shape[2] * output.shape[3]

        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(add)
        with torch.inference_mode():
            net(torch.zeros(1, 3, side, side))
        return total / (side * net.scale) ** 2

    counted: dict[str, float] = {}
    for entry in registry.official():
        if entry.kind == "generator":
            key = json.dumps(entry.architecture)
            if key not in counted:
                counted[key] = count(entry.architecture)
            first = counted[json.dumps(registry.resolve("x4plus").architecture)]
            assert entry.speed == pytest.approx(first / counted[key], rel=0.02)
            assert entry.quality in ("high", "medium", "basic")
