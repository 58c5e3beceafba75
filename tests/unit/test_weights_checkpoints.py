"""A file that is no checkpoint is refused with what it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from realesr_cli.errors import CheckpointFormatError, UnknownModelError
from realesr_cli.weights.checkpoints import find_format

FOREIGN = {
    "empty": (b"", "empty"),
    "text": (b"hello there, this is not a model\n", "text \\('hello there"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG image"),
    "ncnn": (b"7767517\n999 999\n", "ncnn"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.", "pickled Python objects"),
    "tar": (b"x" * 257 + b"ustar\x0000" + bytes(300), "tar archive"),
    "noise": (bytes([1, 200, 3, 255, 0, 7, 9, 130] * 20), "unknown format"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_found_is_said(tmp_path: Path, what: str) -> None:
    data, said = FOREIGN[what]
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointFormatError, match=said) as caught:
        find_format(path)
    assert str(path) in str(caught.value)


def test_onnx_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07\x12\x07pytorch\xff" + bytes(50))
    with pytest.raises(CheckpointFormatError, match="ONNX"):
        find_format(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no such file"):
        find_format(tmp_path / "none.pth")
    with pytest.raises(CheckpointFormatError, match="a folder"):
        find_format(tmp_path)


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")

    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointFormatError, match="Permission denied"):
        find_format(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.pth", b"x")
    with pytest.raises(CheckpointFormatError, match=r"weights/model\.pth"):
        find_format(path)


def test_torchscript_is_known(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"x")
        archive.writestr("m/constants.pkl", b"x")
        archive.writestr("m/code/__torch__.py", b"x")
    assert find_format(path) == "torchscript"


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"x")
        archive.writestr("m/data/0", bytes(8 << 20))
    with pytest.raises(CheckpointFormatError, match=r"8\.0 MiB"):
        find_format(path)


def test_what_torch_writes_is_known(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3)}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert find_format(tmp_path / "new.pth") == "zip"
    assert find_format(tmp_path / "old.pth") == "legacy"
