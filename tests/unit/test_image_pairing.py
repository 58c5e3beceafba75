"""Names that belong together are found whatever stands around them, and numbers are not cut."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr_cli.errors import DatasetError
from realesr_cli.image.pairing import (
    PLAIN,
    Affix,
    ImageFolder,
    detect,
    duplicate_names,
    match_pairs,
    require_pairs,
    scan_pair,
    split_mixed,
)


def folder(root: str, *names: str, affix: Affix = PLAIN) -> ImageFolder:
    return ImageFolder(Path(root), tuple(Path(root, name) for name in names), affix)


def pairs(first: list[str], second: list[str]) -> dict[str, str]:
    """Return which stems of two flat folders are matched."""
    match = match_pairs(
        folder("a", *(f"{name}.png" for name in first)),
        folder("b", *(f"{name}.png" for name in second)),
    )
    return {one.stem: two.stem for one, two in match.pairs}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["baby", "bird"], ["baby", "bird"]),
        (["baby", "bird"], ["babyx4", "birdx4"]),
        (["baby_HR"], ["baby"]),
        (["img_001_SRF_4_HR", "img_002_SRF_4_HR"], ["img_001_SRF_4_LR", "img_002_SRF_4_LR"]),
        (["0001", "0002", "0010"], ["0001x4", "0002x4", "0010x4"]),
        (["1", "2", "10"], ["lq_1_x4", "lq_2_x4", "lq_10_x4"]),
        (["HR_a", "HR_b"], ["LR_a", "LR_b"]),
        (["a", "aa"], ["a_out", "aa_out"]),
    ],
)
def test_usual_ways_of_naming(first: list[str], second: list[str]) -> None:
    assert pairs(first, second) == dict(zip(first, second, strict=True))
    assert pairs(second, first) == dict(zip(second, first, strict=True))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["0001", "0002", "0003"], ["0011", "0012", "0013"]),
        (["1", "2"], ["14", "24"]),
        (["cat"], ["dog"]),
    ],
)
def test_what_only_looks_alike_is_not_taken(first: list[str], second: list[str]) -> None:
    assert pairs(first, second) == {}


def test_a_missing_file_does_not_change_the_way() -> None:
    found = pairs(["a", "b", "c"], ["ax4", "cx4"])
    assert found == {"a": "ax4", "c": "cx4"}


words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)
ends = st.text(st.sampled_from("ab_-"), max_size=4)


@given(st.lists(words, min_size=2, max_size=6, unique=True), ends, ends)
def test_any_letters_before_and_behind_are_found(
    names: list[str], before: str, behind: str
) -> None:
    around = [before + name + behind for name in names]
    one, two = detect([("", name) for name in names], [("", name) for name in around])
    assert {one.key(name) for name in names} == {two.key(name) for name in around}
    assert None not in {one.key(name) for name in names}


def test_subfolders_belong_to_the_name() -> None:
    gt = folder("gt", "1.png", "a/1.png", "b/1.png")
    lq = folder("lq", "a/1x4.png", "b/1x4.png", "c/1x4.png")
    match = match_pairs(gt, lq)
    assert [str(path) for pair in match.pairs for path in pair] == [
        "gt/a/1.png", "lq/a/1x4.png", "gt/b/1.png", "lq/b/1x4.png",
    ]  # fmt: skip
    assert match.first_only == (Path("gt/1.png"),)
    assert match.second_only == (Path("lq/c/1x4.png"),)


def test_a_given_suffix_selects_files() -> None:
    lq = folder("lq", "ax2.png", "ax4.png").named(Affix(suffix="x4"))
    assert match_pairs(folder("gt", "a.png"), lq).pairs == ((Path("gt/a.png"), Path("lq/ax4.png")),)
    with pytest.raises(DatasetError, match="NAMEx3"):
        lq.named(Affix(suffix="x3"))


def test_a_large_folder_is_matched_quickly() -> None:
    names = [f"{number:06d}.png" for number in range(15_000)]
    lq = folder("lq", *(f"lq_{name[:-4]}x4.png" for name in names[:-1]))
    began = time.perf_counter()
    match = match_pairs(folder("gt", *names), lq)
    assert len(match.pairs) == 14_999
    assert match.first_only == (Path("gt/014999.png"),)
    assert time.perf_counter() - began < 6


def test_one_folder_of_both_kinds_is_split_by_its_names(tmp_path: Path) -> None:
    for name in ("1_HR.png", "1_LR.png"):
        (tmp_path / name).touch()
    gt, lq = scan_pair(tmp_path, tmp_path, recursive=True)
    assert match_pairs(gt, lq).pairs == ((tmp_path / "1_HR.png", tmp_path / "1_LR.png"),)
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match="1_HR"):
        scan_pair(tmp_path, tmp_path, recursive=True)
    affixes = {"gt_affix": Affix(suffix="_LR"), "lq_affix": Affix(suffix="_HR")}
    gt, lq = scan_pair(tmp_path, tmp_path, recursive=True, **affixes)
    assert (gt.files, lq.files) == ((tmp_path / "1_LR.png",), (tmp_path / "1_HR.png",))


def test_files_without_a_partner_are_named() -> None:
    gt = folder("gt", *(f"{number}.png" for number in range(9)))
    with pytest.raises(DatasetError) as caught:
        require_pairs(gt, folder("lq", "0.png", "sub/x.png"), advice="names")
    assert "1.png, 2.png, 3.png, 4.png, 5.png and 3 more in gt" in str(caught.value)
    assert "sub/x.png in lq" in str(caught.value)
    assert caught.value.advice == "names"


def test_files_that_differ_only_in_the_extension_are_ambiguous() -> None:
    twice = folder("a", "0.jpg", "0.png", "1.png")
    assert duplicate_names(twice) == [(Path("a/0.png"), Path("a/0.jpg"))]
    for one, two in ((twice, folder("b", "0.png")), (folder("b", "0.png"), twice)):
        with pytest.raises(DatasetError, match=r"0\.png and 0\.jpg"):
            require_pairs(one, two)


def test_an_affix_and_its_key() -> None:
    affix = Affix("lq_", "x4")
    assert affix.key("lq_babyx4") == "baby"
    assert affix.key("babyx4") is None
    assert Affix("ab", "bc").key("abc") is None
    assert str(affix) == "lq_NAMEx4"
    assert PLAIN.key("baby") == "baby"


def test_two_kinds_in_one_folder_are_separated_by_their_marks() -> None:
    assert split_mixed(["1_HR", "2_HR", "1_LR", "2_LR"]) == (Affix("", "_HR"), Affix("", "_LR"))
    assert split_mixed(["gt-a", "lq-a"]) == (Affix("gt-"), Affix("lq-"))
    assert split_mixed(["1_HR", "2_HR", "1_LR"]) is None
    assert split_mixed(["1_HR", "1_LR", "more"]) is None
    assert split_mixed(["a", "b"]) is None
