"""Which files the arguments of a run mean."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from realesr_cli.batch.sources import Globs, InputSource, find_sources, parse_shard, read_list
from realesr_cli.errors import ConfigError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images with what may lie among them, and the current folder above it."""
    names = (
        "in/b.png",
        "in/a.JPG",
        "in/notes.txt",
        "in/.hidden.png",
        "in/.a.png.1234.part",
        "in/a.png.part",
        "in/sub/c.webp",
        "in/sub/deep/d.png",
        "in/.git/e.png",
        "in/out/f.png",
        "in/[x]/g[1].png",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _names(*arguments: str, recursive: bool = False, avoid: Path | None = None) -> list[str]:
    found = find_sources(arguments, recursive=recursive, avoid=avoid)
    return [Path(source.name).as_posix() for source in found]


def test_a_folder_yields_its_images_by_name_and_nothing_else(tree: Path):
    assert _names("in") == ["in/a.JPG", "in/b.png"]


def test_recursive_goes_down_but_not_into_hidden_folders(tree: Path):
    found = _names("in", recursive=True)
    assert found == [
        "in/a.JPG",
        "in/b.png",
        "in/[x]/g[1].png",
        "in/out/f.png",
        "in/sub/c.webp",
        "in/sub/deep/d.png",
    ]


def test_the_output_folder_inside_the_input_is_not_searched(tree: Path):
    assert "in/out/f.png" not in _names("in", recursive=True, avoid=Path("in/out"))
    assert "in/b.png" in _names("in", recursive=True, avoid=Path("in"))


def test_the_place_below_the_input_folder_is_kept(tree: Path):
    found = {s.name: s.below for s in find_sources(["in"], recursive=True)}
    assert found[str(Path("in/sub/deep/d.png"))] == Path("sub/deep")
    assert found[str(Path("in/b.png"))] == Path()
    (named,) = find_sources(["in/sub/deep/d.png"])
    assert named.below == Path()


def test_globs_are_expanded_here_too(tree: Path):
    assert _names("in/*.*") == ["in/a.JPG", "in/b.png"]
    found = _names("in/**/*.png")
    assert found == ["in/[x]/g[1].png", "in/b.png", "in/out/f.png", "in/sub/deep/d.png"]
    (deep,) = find_sources(["in/sub/**/*.png"])
    assert deep.below == Path("deep")


def test_a_glob_that_meets_folders_enters_them_only_when_recursive(tree: Path):
    with pytest.raises(ConfigError, match="no image found"):
        _names("in/su*")
    assert _names("in/su*", recursive=True) == ["in/sub/c.webp", "in/sub/deep/d.png"]


def test_a_name_with_brackets_is_a_name_first(tree: Path):
    assert _names("in/[x]/g[1].png") == ["in/[x]/g[1].png"]


def test_a_named_file_is_taken_whatever_it_is_called(tree: Path):
    assert _names("in/notes.txt", "in/.hidden.png") == ["in/notes.txt", "in/.hidden.png"]


def test_a_file_named_twice_is_taken_once(tree: Path):
    assert _names("in/b.png", "in", "./in/b.png") == ["in/b.png", "in/a.JPG"]


def test_standard_input_is_a_source_with_its_bytes():
    (source,) = find_sources(["-"], stdin=b"abc")
    assert (source.path, source.data, source.name, source.stem) == (None, b"abc", "-", "stdin")
    assert source.extension == ""


@pytest.mark.parametrize("argument", ["missing.png", "in/*.gif", "in/sub/deep/nothing*"])
def test_an_argument_that_names_nothing_is_refused(tree: Path, argument: str):
    with pytest.raises(ConfigError, match=r"no such file|no file matches"):
        find_sources([argument, "in"])


def test_a_folder_without_images_is_refused_with_a_hint(tree: Path):
    (tree / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        find_sources(["empty"])
    assert caught.value.advice == "search-subfolders"
    with pytest.raises(ConfigError, match=r"no image found in empty$"):
        find_sources(["empty"], recursive=True)


def test_names_of_any_script_are_found(tree: Path):
    name = "写真 é 😀.png"
    (tree / "in" / name).write_bytes(b"")
    assert f"in/{name}" in _names("in")


def test_a_broken_link_is_a_source_whose_reading_will_fail(tree: Path):
    os.symlink("nowhere.png", tree / "in" / "link.png")
    assert _names("in/link.png") == ["in/link.png"]


def test_a_source_knows_its_stem_and_extension():
    source = InputSource(Path("a/b.c.PNG"))
    assert (source.stem, source.extension) == ("b.c", ".PNG")


def test_a_list_has_one_path_a_line_or_between_nuls():
    assert read_list("a b.png\r\n\nsub/ü.png\n#c.png".encode()) == [
        "a b.png",
        "sub/ü.png",
        "#c.png",
    ]
    assert read_list(b"a\n.png\0b.png\0") == ["a\n.png", "b.png"]
    assert read_list(b"") == []
    (odd,) = read_list(b"caf\xe9.png")
    assert os.fsencode(odd) == b"caf\xe9.png"


def test_listed_files_keep_their_folders_and_need_not_exist(tree: Path):
    listed = ["in/sub/c.webp", "missing.png", str(tree / "in" / "b.png"), "in/../in/a.JPG"]
    found = find_sources(["in/b.png"], listed=listed)
    assert [(s.name, s.below) for s in found] == [
        ("in/b.png", Path()),
        ("in/sub/c.webp", Path("in/sub")),
        ("missing.png", Path()),
        ("in/../in/a.JPG", Path()),
    ]


def test_an_empty_list_is_refused():
    with pytest.raises(ConfigError, match="the list"):
        find_sources([], listed=[])


def test_special_files_in_a_folder_are_skipped(tree: Path):
    os.mkfifo(tree / "in" / "pipe.png")
    os.symlink("/dev/zero", tree / "in" / "zero.png")
    os.symlink("b.png", tree / "in" / "link.png")
    assert _names("in") == ["in/a.JPG", "in/b.png", "in/link.png"]
    assert _names("in/*.png") == ["in/b.png", "in/link.png"]
    with pytest.raises(ConfigError, match="regular file"):
        _names("in/pipe.png")


def test_an_empty_argument_is_refused(tree: Path):
    with pytest.raises(ConfigError, match="empty"):
        find_sources(["in", ""])


def test_a_folder_that_cannot_be_read_is_an_input_that_fails(
    tree: Path, monkeypatch: pytest.MonkeyPatch
):
    scan = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = find_sources(["in"], recursive=True)
    assert [(s.name, str(s.error)) for s in found if s.error is not None] == [
        ("in/sub/deep", "in/sub/deep: cannot be read: Permission denied")
    ]
    assert "in/sub/c.webp" in [s.name for s in found]


def test_linked_folders_are_searched_once(tree: Path):
    os.symlink(tree / "in", tree / "in" / "sub" / "loop")
    (tree / "other").mkdir()
    (tree / "other" / "x.png").write_bytes(b"")
    os.symlink(tree / "other", tree / "in" / "sub" / "link")
    assert _names("in/sub", recursive=True).count("in/sub/link/x.png") == 1


def test_a_misspelled_file_is_found(tree: Path):
    with pytest.raises(ConfigError, match=r"did you mean 'b\.png'"):
        find_sources(["in/b.pgn"])


def _parts(names: list[str], count: int) -> list[set[str]]:
    sources = find_sources([], listed=names)
    shards = [parse_shard(f"{index}/{count}") for index in range(count)]
    return [{s.name for s in sources if shard.contains(s)} for shard in shards]


def test_shards_are_disjoint_complete_even_and_stay_when_files_are_added():
    names = [str(Path(f"{i % 7}") / f"{i}.png") for i in range(600)]
    parts = _parts(names, 3)
    assert set.union(*parts) == set(names)
    assert sum(map(len, parts)) == len(names)
    assert all(150 < len(part) < 250 for part in parts)
    more = _parts(names + [f"new/{i}.png" for i in range(50)], 3)
    assert all(before <= after for before, after in zip(parts, more, strict=True))


def test_a_shard_is_the_same_on_every_machine():
    parts = _parts(["a/b.png", "c.jpg", "caf\u00e9.png"], 4)
    assert parts == [set(), {"a/b.png", "caf\u00e9.png"}, {"c.jpg"}, set()]
    # macOS lists names decomposed; and inputs whose results may have one name stay together.
    assert _parts(["cafe\u0301.jpg"], 4)[1] == {"cafe\u0301.jpg"}


@pytest.mark.parametrize("text", ["3/3", "0/0", "-1/3", "1", "1/", "a/b", "1/3/5", ""])
def test_a_shard_that_does_not_exist_is_refused(text: str):
    with pytest.raises(ConfigError, match="I/N"):
        parse_shard(text)


def test_globs_choose_by_name_and_by_path(tree: Path):
    def names(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
        found = find_sources(["in"], recursive=True, globs=Globs(include, exclude))
        return [source.relative for source in found]

    assert names(("*.png",), ("out/*",)) == ["b.png", "[x]/g[1].png", "sub/deep/d.png"]
    assert names(("sub/*",)) == ["sub/c.webp", "sub/deep/d.png"]
    assert names(("sub/*",), ("d.*",)) == ["sub/c.webp"]
    with pytest.raises(ConfigError, match="patterns"):
        names(("*.bmp",))
