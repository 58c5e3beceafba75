"""Folders are scanned for images, and what is no regular file is skipped."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from realesr_cli.errors import DatasetError
from realesr_cli.image.folders import find_images, walk_files


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def names(root: Path, *, recursive: bool = True) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_images(root, recursive=recursive)]


def test_images_are_sorted_and_others_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "notes.txt", "c/d.webp", "z.tif")
    assert names(tmp_path) == ["a.JPG", "b.png", "c/d.webp", "z.tif"]
    assert names(tmp_path, recursive=False) == ["a.JPG", "b.png", "z.tif"]


def test_hidden_and_temporary_files_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".b.png", ".cache/c.png", ".realesr-1234.part", "d.png.part")
    assert names(tmp_path) == ["a.png"]


def test_only_regular_files_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        assert names(tmp_path) == ["a.png"]


def test_links_are_followed_and_each_folder_visited_once(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a.png", "sub/b.png")
    other = touch(tmp_path / "other", "c.png")
    (data / "loop").symlink_to(data)
    (data / "more").symlink_to(other)
    (data / "again").symlink_to(data / "sub")
    (data / "link.png").symlink_to(other / "c.png")
    assert names(data) == ["a.png", "again/b.png", "link.png", "more/c.png"]


def test_a_broken_link_is_found_so_that_it_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert names(tmp_path) == ["gone.png"]


def test_a_folder_can_be_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "a.png", "out/c.png", "in/d.png")
    found = walk_files(tmp_path, recursive=True, skip=tmp_path / "in" / ".." / "out")
    assert [path.name for path in found] == ["a.png", "b.txt", "d.png"]


@pytest.mark.parametrize(
    ("files", "recursive", "fact"),
    [
        ((), True, "contains no files"),
        (("a.txt",), True, "a.txt"),
        (("sub/a.png",), False, "recursive"),
    ],
)
def test_folders_without_images_are_refused(
    tmp_path: Path, files: tuple[str, ...], recursive: bool, fact: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DatasetError, match=fact):
        find_images(tmp_path, recursive=recursive)


@pytest.mark.parametrize("name", ["missing", "a.png", "x" * 5000, "\0"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(DatasetError):
        find_images(tmp_path / name, recursive=True)


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"closed.*Permission denied"):
        find_images(tmp_path, recursive=True)
