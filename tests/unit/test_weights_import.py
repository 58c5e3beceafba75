"""Models the user has are taken over whole, official ones by hash, others by their tensors."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    UnknownArchitectureError,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.discriminators import UNetDiscriminator
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights import cache, model_files, registry
from realesr_cli.weights.import_models import find_candidates, import_file, import_models
from realesr_cli.weights.load import open_model
from realesr_cli.weights.provenance import inspect_model

TINY = CompactArchitecture(scale=2, convs=1, features=4)


def save(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    model_files.save_pth(path, {"params": TINY.build().state_dict()})
    return path


def test_community_model_is_known_by_its_stem(tmp_path: Path) -> None:
    source = save(tmp_path / "2x_Mine.pth")
    done = import_file(source)
    assert done.new
    assert done.path.read_bytes() == source.read_bytes()
    assert done.entry.scale == 2
    assert "Compact" in done.entry.about
    source.unlink()
    opened = open_model("2x-mine")
    assert opened.name == "2x_Mine"
    assert opened.entry is not None
    assert opened.entry.imported


def test_same_file_again_changes_nothing(tmp_path: Path) -> None:
    import_file(save(tmp_path / "mine.pth"))
    again = import_file(save(tmp_path / "copy.pth"))
    assert not again.new
    assert again.entry.name == "mine"
    assert len(registry.imported()) == 1


def test_lost_copy_is_made_again(tmp_path: Path) -> None:
    source = save(tmp_path / "mine.pth")
    cache.forget(import_file(source).path)
    assert import_file(source).new
    assert registry.cached(registry.resolve("mine")) is not None
    assert len(registry.imported()) == 1


def test_official_file_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "downloaded (1).pth")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    entry = replace(registry.resolve("animevideo"), sha256=sha256, bytes=source.stat().st_size)
    monkeypatch.setattr(registry, "official", lambda: (entry,))
    done = import_file(source)
    assert done.entry == entry
    assert done.path == registry.weights_dir() / "realesr-animevideov3.pth"
    assert registry.imported() == ()


def test_false_official_file_does_not_get_the_name(tmp_path: Path) -> None:
    source = save(tmp_path / "RealESRGAN_x4plus.pth")
    with pytest.raises(ConfigError, match="official model RealESRGAN_x4plus"):
        import_file(source)
    assert import_file(source, name="strange").entry.name == "strange"
    assert registry.cached(registry.resolve("x4plus")) is None


def test_name_of_another_imported_model_is_taken(tmp_path: Path) -> None:
    import_file(save(tmp_path / "a" / "mine.pth", 1))
    with pytest.raises(ConfigError, match="imported model mine"):
        import_file(save(tmp_path / "b" / "mine.pth", 2))


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "../x"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    source = save(tmp_path / "mine.pth")
    if name:
        with pytest.raises(ConfigError, match="name: expected"):
            import_file(source, name=name)
    else:
        assert import_file(source, name=name).entry.name == "mine"


def test_discriminator_of_unknown_hash_is_taken_by_name_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "RealESRGAN_x4plus_netD.pth"
    torch.save({"params": UNetDiscriminator().state_dict()}, path)
    done = import_file(path)
    assert done.entry.name == "RealESRGAN_x4plus_netD"
    assert cache.recorded_hash(done.path) == cache.sha256_of(path)
    assert registry.imported() == ()
    with pytest.raises(ConfigError, match="official"):
        import_file(save(tmp_path / "RealESRGAN_x2plus_netD.pth"))


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.pth"
    text.write_text("hello", encoding="utf-8")
    with pytest.raises(CheckpointFormatError, match="text"):
        import_file(text)
    torch.save({"attn.weight": torch.zeros(2)}, tmp_path / "hat.pth")
    with pytest.raises(UnknownArchitectureError, match="transformer"):
        import_file(tmp_path / "hat.pth")
    with pytest.raises(UnknownModelError, match="no such file"):
        import_file(tmp_path / "none.pth")
    with pytest.raises(CheckpointFormatError, match="cannot be read"):
        import_file(tmp_path)
    assert registry.imported() == ()


def test_folders_of_other_tools(tmp_path: Path) -> None:
    save(tmp_path / "comfy/models/upscale_models/sub/a.pth", 1)
    save(tmp_path / "comfy/models/checkpoints/big.safetensors", 2)
    assert [p.name for p in find_candidates(tmp_path / "comfy")] == ["a.pth"]
    save(tmp_path / "a1111/models/ESRGAN/b.PTH", 3)
    save(tmp_path / "a1111/models/RealESRGAN/c.pt", 4)
    assert [p.name for p in find_candidates(tmp_path / "a1111")] == ["b.PTH", "c.pt"]
    assert [p.name for p in find_candidates(tmp_path / "a1111/models/ESRGAN")] == ["b.PTH"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "put_models_here.txt").write_bytes(b"")
    with pytest.raises(UnknownModelError, match=r"no \.pth"):
        find_candidates(tmp_path / "empty")
    with pytest.raises(UnknownModelError, match="no such file or folder"):
        find_candidates(tmp_path / "none")


def test_bad_files_of_a_folder_do_not_stop_the_good(tmp_path: Path) -> None:
    save(tmp_path / "b_good.pth")
    (tmp_path / "a_text.pth").write_text("hello", encoding="utf-8")
    torch.save({"attn.weight": torch.zeros(2)}, tmp_path / "c_hat.pth")
    imported, skipped = import_models(tmp_path)
    assert [i.entry.name for i in imported] == ["b_good"]
    assert [s.source.name for s in skipped] == ["a_text.pth", "c_hat.pth"]
    assert "text" in skipped[0].reason
    assert "transformer" in skipped[1].reason


def test_cache_that_cannot_be_written_stops_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    save(tmp_path / "mine.pth")
    with pytest.raises(WeightsWriteError, match="No space"):
        import_models(tmp_path)
    assert not list((registry.weights_dir() / "imported").iterdir())


def test_file_that_changes_while_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(b"other"))
    with pytest.raises(CheckpointFormatError, match="changed while"):
        import_file(save(tmp_path / "mine.pth"))
    assert registry.imported() == ()


def test_inspect_registered_model() -> None:
    info = inspect_model("x2plus")
    assert info.parameters == 16_703_171
    assert info.description is not None
    assert "pixel-unshuffle 2" in info.description
    assert not info.cached
    assert inspect_model("vgg19").description is None


def test_inspect_reports_a_damaged_file() -> None:
    registry.weights_dir().mkdir(parents=True)
    registry.cache_path(registry.resolve("x2plus")).write_bytes(b"short")
    info = inspect_model("x2plus")
    assert info.cached
    assert "got 5" in info.problem


def test_inspect_file_and_run(tmp_path: Path) -> None:
    arch = RRDBArchitecture(scale=2, blocks=1, features=8, growth=4, unshuffle=2)
    torch.manual_seed(0)
    metadata = model_files.model_metadata(arch, {"step": 1200})
    model_files.save_safetensors(
        tmp_path / "generator.safetensors", arch.build().state_dict(), metadata
    )
    for given in (tmp_path, tmp_path / "generator.safetensors"):
        info = inspect_model(given)
        assert info.description == arch.describe()
        assert info.scale == 2
        assert info.recorded == {"step": 1200}
        assert info.license == "unknown"
        assert info.sha256 == cache.sha256_of(tmp_path / "generator.safetensors")
