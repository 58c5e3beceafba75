"""Names that belong together are found whatever stands around them, and numbers are not cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr_cli.image.pairing import PLAIN, Affix, detect, keyed, split_mixed


def pairs(first: list[str], second: list[str]) -> dict[str, str]:
    """What `detect` takes to belong together."""
    one, two = detect(first, second)
    left, right = keyed(first, one), keyed(second, two)
    return {left[key]: right[key] for key in left if key in right}


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
    one, two = detect(names, around)
    assert keyed(names, one).keys() == keyed(around, two).keys()
    assert len(keyed(names, one)) == len(names)


def test_an_affix_and_its_key() -> None:
    affix = Affix("lq_", "x4")
    assert affix.key("lq_babyx4") == "baby"
    assert affix.key("babyx4") is None
    assert Affix("ab", "bc").key("abc") is None
    assert str(affix) == "lq_NAMEx4"
    assert PLAIN.key("baby") == "baby"


def test_two_kinds_in_one_folder_are_told_apart_by_their_marks() -> None:
    assert split_mixed(["1_HR", "2_HR", "1_LR", "2_LR"]) == (Affix("", "_HR"), Affix("", "_LR"))
    assert split_mixed(["gt-a", "lq-a"]) == (Affix("gt-"), Affix("lq-"))
    assert split_mixed(["1_HR", "2_HR", "1_LR"]) is None
    assert split_mixed(["1_HR", "1_LR", "more"]) is None
    assert split_mixed(["a", "b"]) is None
