"""CBZ and ZIP archives of images: enlarged whole or not at all, order and other files kept."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image

from realesr_cli.batch import pipeline

DATE = (2020, 3, 4, 5, 6, 8)


def image_bytes(width: int = 12, height: int = 8, format: str = "PNG") -> bytes:
    """An encoded image."""
    buffer = io.BytesIO()
    pillow.radial_gradient("L").resize((width, height)).convert("RGB").save(buffer, format)
    return buffer.getvalue()


def make_archive(path: str, members: dict[str, bytes] | None = None) -> Path:
    """A comic of two pages with notes, in an order of its own."""
    content = members or {
        "ComicInfo.xml": b"<xml/>" * 99,
        "b/page 2.png": image_bytes(),
        "b/": b"",
        "a/page é 1.jpg": image_bytes(20, 10, "JPEG"),
        "notes.txt": b"the end",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return Path(path)


def names(path: str) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def page_size(path: str, name: str) -> tuple[int, int]:
    with zipfile.ZipFile(path) as archive, pillow.open(io.BytesIO(archive.read(name))) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("name", ["comic.cbz", "Photos.ZIP"])
def test_images_are_enlarged_and_everything_else_is_kept(shell: Shell, name: str):
    make_archive(name)
    outcome = shell(name)
    stem, dot, extension = name.partition(".")
    result = f"{stem}_x4{dot}{extension}"
    assert outcome.code == 0
    assert f"{name} -> {result}  2 images" in outcome.err
    assert names(result) == names(name)
    assert page_size(result, "b/page 2.png") == (48, 32)
    assert page_size(result, "a/page é 1.jpg") == (80, 40)
    with zipfile.ZipFile(result) as archive:
        assert archive.read("ComicInfo.xml") == b"<xml/>" * 99
        assert archive.read("notes.txt") == b"the end"
        assert {info.date_time for info in archive.infolist()} == {DATE}


def test_pages_equal_images_made_alone(shell: Shell):
    make_archive("comic.cbz")
    Path("page.png").write_bytes(image_bytes())
    shell("comic.cbz", "page.png", "-o", "out/")
    with zipfile.ZipFile("out/comic_x4.cbz") as archive:
        page = pillow.open(io.BytesIO(archive.read("b/page 2.png")))
    assert page.tobytes() == pillow.open("out/page_x4.png").tobytes()


def test_outputs_formats_and_folders(shell: Shell):
    Path("in").mkdir()
    make_archive("in/comic.cbz")
    make_archive("in/other.zip")
    make_image("in/a.png")
    assert shell("in", "-o", "out/", "-s", "2").code == 0
    assert sorted(os.listdir("out")) == ["a_x2.png", "comic_x2.cbz"]
    assert shell("in/other.zip", "-o", "big.cbz", "--format", "webp").code == 0
    assert names("big.cbz")[1] == "b/page 2.webp"
    assert names("big.cbz")[3] == "a/page é 1.webp"
    assert shell("in/other.zip", "-o", "{stem}-{scale}{ext}").code == 0
    assert Path("other-4.zip").exists()


def test_images_and_archives_keep_their_order(shell: Shell):
    make_image("a.png")
    make_archive("b.cbz")
    make_image("c.png")
    make_archive("d.cbz")
    outcome = shell("a.png", "b.cbz", "c.png", "d.cbz", "--json", "-o", "out/")
    assert outcome.code == 0
    assert [item["input"] for item in outcome.images] == ["a.png", "b.cbz", "c.png", "d.cbz"]
    assert [item["images"] for item in outcome.images] == [1, 2, 1, 2]
    assert outcome.summary["done"] == 4


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"p1.png": image_bytes(), "p2.png": b"no image"}, "p2.png"),
        ({"p1.png": image_bytes(), "p2.png": image_bytes()[:-30]}, "p2.png"),
        ({"readme.txt": b"x"}, "contains no images"),
        ({"a.png": image_bytes(), "a.gif": image_bytes(format="GIF")}, "same name"),
    ],
    ids=["text", "truncated", "none", "names"],
)
def test_archives_that_cannot_be_done_leave_nothing(
    shell: Shell, members: dict[str, bytes], reason: str
):
    make_archive("bad.cbz", members)
    make_archive("good.cbz")
    outcome = shell("bad.cbz", "good.cbz")
    assert outcome.code == 1
    assert "bad.cbz" in outcome.err
    assert reason in outcome.err
    assert "1 done, 1 failed" in outcome.err
    assert sorted(os.listdir()) == ["bad.cbz", "good.cbz", "good_x4.cbz"]


def test_files_that_are_no_archives(shell: Shell):
    whole = make_archive("whole.cbz").read_bytes()
    Path("cut.cbz").write_bytes(whole[: len(whole) // 2])
    Path("text.zip").write_text("hello")
    Path("damaged.cbz").write_bytes(whole[:400] + bytes(40) + whole[440:])
    encrypted = bytearray(whole)
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        at = -1
        while (at := encrypted.find(start, at + 1)) >= 0:
            encrypted[at + (6 if start[2] == 3 else 8)] |= 1
    Path("encrypted.zip").write_bytes(encrypted)
    nameless = make_archive("nameless.cbz", {"x": b""}).read_bytes()
    for start, at in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):  # the lengths of name and extra
        at += nameless.index(start)
        nameless = nameless[:at] + b"\0\0\1\0" + nameless[at + 4 :]
    Path("nameless.cbz").write_bytes(nameless)
    bad = ["cut.cbz", "text.zip", "damaged.cbz", "encrypted.zip", "nameless.cbz", "missing.cbz"]
    Path("list").write_text("\n".join(bad))
    outcome = shell("--from-file", "list", "--json")
    assert outcome.code == 1
    assert [item["status"] for item in outcome.images] == ["failed"] * 6
    assert "Traceback" not in outcome.err
    assert "encrypted" in outcome.images[3]["error"]
    assert "no such file" in outcome.images[5]["error"]
    assert not list(Path().glob("*_x4*"))


def test_a_bomb_among_the_members(shell: Shell):
    make_archive("bomb.cbz", {"a.png": image_bytes(), "b.png": bytes(80 * 2**20)})
    outcome = shell("bomb.cbz", "--max-pixels", "10000")
    assert outcome.code == 1
    assert "bomb.cbz/b.png" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.png", "-o", "x.cbz"],
        ["c.cbz", "-o", "x.png"],
        ["c.cbz", "-o", "-"],
        ["c.cbz", "a.png", "-o", "x.cbz"],
    ],
)
def test_outputs_that_cannot_be(shell: Shell, arguments: list[str]):
    make_image("a.png")
    make_archive("c.cbz")
    outcome = shell(*arguments)
    assert outcome.code in (1, 2)
    assert sorted(os.listdir()) == ["a.png", "c.cbz"]


def test_a_failure_in_the_middle_leaves_no_archive(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    make_archive("c.cbz", {f"{i}.png": image_bytes() for i in range(5)})
    make_image("z.png")
    encode = pipeline.encode_image
    count = [0]

    def failing(*arguments: object) -> bytes:
        count[0] += 1
        if count[0] == 3:
            raise MemoryError
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "encode_image", failing)
    outcome = shell("c.cbz", "z.png")
    assert outcome.code == 4
    assert sorted(os.listdir()) == ["c.cbz", "z.png", "z_x4.png"]


def test_a_dry_run_adds_up_the_images(shell: Shell):
    make_archive("c.cbz")
    (item,) = shell("c.cbz", "--dry-run", "--json").images
    assert (item["images"], item["tiles"]) == (2, 2)
    assert item["output_bytes"] == 3 * (48 * 32 + 80 * 40)
    assert os.listdir() == ["c.cbz"]
