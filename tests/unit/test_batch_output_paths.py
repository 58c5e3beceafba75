"""Where results go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from realesr_cli.batch.output_paths import (
    NameFields,
    fixed_folder,
    format_scale,
    make_path,
    parse_output,
)
from realesr_cli.batch.sources import InputSource
from realesr_cli.errors import ConfigError


@dataclass(frozen=True)
class Image:
    """As much of a header as naming looks at."""

    format: str | None = "PNG"
    bits: int = 8
    has_alpha: bool = False


def _target(
    output: str | None,
    source: InputSource,
    *,
    image: Image | None = None,
    scale: float = 4,
    sources: int = 1,
    from_folder: bool = False,
    format: str | None = None,
    suffix: str | None = None,
) -> str | None:
    found = replace(source, searched=source.searched or from_folder)
    wanted = parse_output(output, [found] * sources, format=format, suffix=suffix)
    found = make_path(wanted, NameFields("model", scale, 40, 30, image or Image(), source))
    return None if found is None else found.as_posix()


A = InputSource(Path("d/a.png"))


def test_by_default_a_result_goes_beside_its_input():
    assert _target(None, A) == "d/a_x4.png"
    assert _target(None, A, scale=2.5) == "d/a_x2.5.png"
    assert _target(None, A, sources=9) == "d/a_x4.png"


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("a.jpeg", Image("JPEG"), "a_x4.jpeg"),
        ("a.JPG", Image("JPEG"), "a_x4.JPG"),
        ("a.tif", Image("TIFF", 16), "a_x4.tif"),
        ("a.gif", Image("GIF"), "a_x4.png"),
        ("a.webp", Image("WEBP", 8, True), "a_x4.webp"),
        ("a.bmp", Image("BMP", 8, True), "a_x4.png"),
        ("a.jpg", Image("PNG"), "a_x4.png"),
        ("a", Image("PNG"), "a_x4.png"),
        ("a.ppm", Image("PPM", 16), "a_x4.png"),
    ],
)
def test_the_extension_is_kept_where_it_can_hold_the_result(name: str, image: Image, expected: str):
    assert _target(None, InputSource(Path(name)), image=image) == expected


def test_a_format_asked_for_decides_the_extension():
    assert _target(None, A, format="webp") == "d/a_x4.webp"
    jpeg = InputSource(Path("a.jpeg"))
    assert _target(None, jpeg, image=Image("JPEG"), format="jpg") == "a_x4.jpeg"


@pytest.mark.parametrize(("output", "sources"), [("out/", 1), ("out", 2), ("v1.5", 2)])
def test_a_folder_mirrors_what_is_below_the_input(output: str, sources: int):
    source = InputSource(Path("in/s/t/a.png"), below=Path("s/t"))
    folder = output.rstrip("/")
    assert _target(output, source, sources=sources) == f"{folder}/s/t/a_x4.png"


def test_an_existing_folder_is_a_folder(tmp_path: Path):
    folder = tmp_path / "out.png"
    folder.mkdir()
    assert _target(str(folder), A) == (folder / "a_x4.png").as_posix()


def test_a_file_is_taken_as_it_is():
    assert _target("o/x.webp", A) == "o/x.webp"
    assert _target("o/x.jpg", A, format="jpg") == "o/x.jpg"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{stem}_x{scale}{ext}", "s/a_x4.png"),
        ("o/{model}_{stem}_{width}x{height}.webp", "o/s/model_a_30x40.webp"),
        ("{parent}-up/{name}", "s-up/a.png"),
        ("o/{{1}}{stem}{ext}", "o/s/{1}a.png"),
    ],
)
def test_templates_are_filled_in_and_mirror_the_tree(template: str, expected: str):
    source = InputSource(Path("in/s/a.png"), below=Path("s"))
    assert _target(template, source, sources=2) == expected


def test_the_suffix_of_the_reference_is_understood():
    assert _target(None, A, suffix="out") == "d/a_out.png"
    assert _target("o/", A, suffix="") == "o/a.png"
    assert _target("o/", A, suffix="{x}") == "o/a_{x}.png"


def test_a_doubled_brace_is_a_brace_in_plain_names_too():
    assert _target("{{a}}.png", A) == "{a}.png"


def test_standard_output_is_no_file_and_png_by_default():
    wanted = parse_output("-", [A])
    assert (wanted.kind, wanted.format) == ("stdout", "png")
    assert parse_output("-", [A], format="jpg").format == "jpg"
    assert _target("-", A) is None
    assert parse_output(None, [InputSource(None, b"")]).kind == "stdout"


def test_standard_input_among_others_gets_a_name():
    stdin = InputSource(None, data=b"")
    assert _target("o/", stdin) == "o/stdin_x4.png"


@pytest.mark.parametrize(
    ("output", "arguments", "message"),
    [
        ("-", {"sources": 2}, "one image, got 2"),
        ("x.png", {"sources": 2}, "one file for 2 inputs"),
        ("x.png", {"sources": 1, "from_folder": True}, "one file for 1 inputs"),
        ("x.xyz", {}, "xyz"),
        ("x", {}, "end a folder with a slash"),
        ("x.gif", {}, "gif"),
        ("x.jpg", {"format": "png"}, "jpg.*png"),
        ("{stem}", {}, "no extension"),
        ("{stem}.jpg", {"format": "png"}, "jpg.*png"),
        ("{stme}{ext}", {}, "did you mean 'stem'"),
        ("{stem.__class__}{ext}", {}, "unknown field"),
        ("{}{ext}", {}, "unknown field"),
        ("{stem!r}{ext}", {}, "only a name"),
        ("{width:>9}{ext}", {}, "only a name"),
        ("{stem{ext}", {}, "written twice"),
        ("a}b.png", {}, "written twice"),
    ],
)
def test_an_output_that_cannot_be_meant_is_refused(output: str, arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        _target(output, A, **arguments)


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="one file for 2 inputs"):
        parse_output(str(tmp_path / "out"), [A, A])


def test_factors_read_as_people_write_them():
    assert [format_scale(s) for s in (4.0, 2.5, 1 / 3, 10.0)] == ["4", "2.5", "0.33", "10"]


def test_the_folder_that_holds_all_results():
    assert fixed_folder(None) is None
    assert fixed_folder("-") is None
    assert fixed_folder("a/b") == Path("a/b")
    assert fixed_folder("a/b/{stem}{ext}") == Path("a/b")
    assert fixed_folder("a/{parent}/{stem}{ext}") == Path("a")
    assert fixed_folder("{stem}{ext}") is None
