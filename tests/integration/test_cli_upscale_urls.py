"""Inputs and outputs in an object store, here the one in memory."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image, save_tiny, size_of

from realesr_cli.batch import storage
from realesr_cli.batch.places import ThreadPool

STORE = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def _empty_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(storage, "_WAIT", 0.001)
    yield
    STORE.store.clear()
    STORE.pseudo_dirs[:] = [""]


def put_image(name: str, **options: int) -> None:
    STORE.pipe_file(name, make_image("temporary.png", **options).read_bytes())


def objects(folder: str) -> list[str]:
    """Names below a folder, without sidecars."""
    return [n[len(folder) :] for n in sorted(STORE.find(folder)) if storage.SIDECAR not in n]


def size_in_store(name: str) -> tuple[int, int]:
    with pillow.open(io.BytesIO(STORE.cat_file(name))) as image:
        image.load()
        return image.size


def test_a_folder_of_objects_to_another_and_again(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    for name in ("/in/a.png", "/in/sub/b.png", "/in/notes.txt", "/in/.hidden.png"):
        put_image(name)
    outcome = shell("memory://in", "-r", "-o", "memory://out/x/", "--json")
    assert outcome.code == 0
    assert sorted((i["input"], i["output"], i["status"]) for i in outcome.images) == [
        ("memory://in/a.png", "memory://out/x/a_x4.png", "done"),
        ("memory://in/sub/b.png", "memory://out/x/sub/b_x4.png", "done"),
    ]
    assert outcome.images[0]["device"] == "cpu"
    assert objects("/out") == ["/x/a_x4.png", "/x/sub/b_x4.png"]
    assert size_in_store("/out/x/sub/b_x4.png") == (48, 32)
    monkeypatch.setattr(storage, "fetch", None)  # What is finished is not even fetched again.
    again = shell("memory://in", "-r", "-o", "memory://out/x/", "--json")
    assert again.summary["skipped"] == 2


def test_results_equal_those_of_files(shell: Shell):
    put_image("/in/a.png")
    make_image("a.png")
    shell("a.png", "-o", "file.png")
    shell("memory://in/a.png", "-o", "memory://out/b.png")
    shell("memory://in/a.png", "-o", "mixed.png")
    shell("a.png", "-o", "memory://out/c_{scale}.png")
    expected = Path("file.png").read_bytes()
    assert Path("mixed.png").read_bytes() == expected
    assert STORE.cat_file("/out/b.png") == STORE.cat_file("/out/c_4.png") == expected


def test_inputs_of_both_kinds_patterns_and_parts(shell: Shell):
    make_image("here/a.png")
    put_image("/in/b.png")
    put_image("/in/c.png")
    Path("list").write_text("memory://in/c.png\n")
    counts = []
    for index in range(2):
        outcome = shell(
            *("memory://in", "here", "--from-file", "list", "--exclude", "b.*"),
            *("-o", "out/", "--shard", f"{index}/2", "--json"),
        )
        assert outcome.code == 0
        counts.append(outcome.summary["done"] + outcome.summary["skipped"])
    assert sum(counts) == 3
    assert sorted(p.name for p in Path("out").rglob("*.png")) == ["a_x4.png", "c_x4.png"]


def test_other_objects_are_not_replaced(shell: Shell, tmp_path: Path):
    put_image("/in/a.png")
    STORE.pipe_file("/out/a_x4.png", b"my notes")
    outcome = shell("memory://in", "-o", "memory://out/")
    assert outcome.code == 1
    assert "memory://out/a_x4.png: already exists" in outcome.err
    assert STORE.cat_file("/out/a_x4.png") == b"my notes"
    assert shell("memory://in", "-o", "memory://out/", "--overwrite").code == 0
    assert size_in_store("/out/a_x4.png") == (48, 32)
    other = save_tiny(tmp_path / "other.pth", seed=8)
    assert (
        "model tiny instead of other"
        in shell("memory://in", "-o", "memory://out/", model=other).err
    )
    put_image("/in/a.png", width=20)
    assert "another version" in shell("memory://in", "-o", "memory://out/").err
    assert "another input" in shell(make_image("b.png"), "-o", "memory://out/a_x4.png").err


def test_an_object_whose_put_was_cut_short_is_made_again(shell: Shell):
    put_image("/in/a.png")
    shell("memory://in", "-o", "memory://out/")
    whole = STORE.cat_file("/out/a_x4.png")
    STORE.pipe_file("/out/a_x4.png", whole[:100])
    assert shell("memory://in", "-o", "memory://out/").code == 0
    assert STORE.cat_file("/out/a_x4.png") == whole


def test_a_failure_leaves_no_object_and_the_others_are_made(shell: Shell):
    put_image("/in/a.png")
    STORE.pipe_file("/in/b.png", b"no image")
    put_image("/in/c.png")
    outcome = shell("memory://in", "-o", "memory://out/", "--json")
    assert outcome.code == 1
    (failure,) = outcome.summary["failures"]
    assert failure["input"] == "memory://in/b.png"
    assert failure["error"].startswith("memory://in/b.png: ")
    assert objects("/out") == ["/a_x4.png", "/c_x4.png"]


def test_a_passing_failure_of_the_store_is_tried_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    put_image("/in/a.png")
    failures = iter([TimeoutError("slow"), OSError(121, "internal error"), None])
    pipe = type(STORE).pipe_file

    def fail(self: Any, path: str, *rest: Any, **named: Any) -> None:
        if "out/a" in path and (failure := next(failures, None)):
            raise failure
        pipe(self, path, *rest, **named)

    monkeypatch.setattr(type(STORE), "pipe_file", fail)
    assert shell("memory://in", "-o", "memory://out/").code == 0
    failures = itertools.repeat(OSError(121, "internal error"))
    outcome = shell("memory://in/a.png", "-o", "memory://out/a2.png")
    assert outcome.code == 1
    assert "memory://out/a2.png: [Errno 121]" in outcome.err


def test_the_first_images_are_made_while_the_rest_is_still_listed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    for index in range(10):
        put_image(f"/in/{index}.png")
    made: list[int] = []

    def list_slowly(url: str, *, recursive: bool) -> Iterator[storage.StoredObject]:
        for index in range(10):
            made.append(len(objects("/out")))
            yield storage.StoredObject(f"memory://in/{index}.png", f"{index}.png", "1 x")

    monkeypatch.setattr(storage, "list_objects", list_slowly)
    assert shell("memory://in", "-o", "memory://out/").code == 0
    # At most as many as fit into the pool, and two more, are taken before they are made.
    assert all(done >= index - ThreadPool.slots - 2 for index, done in enumerate(made))
    assert made[-1] >= 3
    assert len(objects("/out")) == 10


def test_an_image_to_standard_output(shell: Shell):
    put_image("/in/a.png")
    outcome = shell("memory://in/a.png", "-o", "-")
    assert outcome.code == 0
    assert pillow.open(io.BytesIO(outcome.out)).size == (48, 32)


def test_a_name_does_not_lead_out_of_the_output_folder(shell: Shell):
    Path("list").write_text("memory://in/../../evil.png\nmemory://in/a.png\n")
    put_image("/in/a.png")
    outcome = shell("--from-file", "list", "-o", "out/deep/", "--json")
    assert [i["status"] for i in sorted(outcome.images, key=str)].count("failed") == 1
    assert [p.name for p in Path().rglob("*_x4.png")] == ["a_x4.png"]
    assert size_of("out/deep/a_x4.png") == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["gs://bucket/a.png", "-o", "out/"], "pip install 'realesr-cli[cloud]' gcsfs"),
        (["a.png", "-o", "gs://bucket/"], "pip install 'realesr-cli[cloud]' gcsfs"),
        (["ftp://host/a.png", "-o", "out/"], "s3://"),
        (["memory://none/a.png", "-o", "out/"], "memory://none/a.png: no such object"),
        (["memory://in/"], "-o"),
        (["memory://in/", "-o", "https://host/out/"], "web server"),
        (["memory://in/", "-o", "memory://in"], "both input and output"),
        (["memory://in/", "--shard", "3/3", "-o", "out/"], "3/3"),
        (["memory://in/", "--on", "cloud", "-o", "out/"], "ray://HOST:PORT"),
    ],
)
def test_bad_input_is_one_line(shell: Shell, arguments: list[str], fact: str):
    make_image("a.png")
    put_image("/in/a.png")
    outcome = shell(*arguments)
    assert outcome.code == 2
    assert fact in outcome.err
    assert outcome.err.count("\n") == 1


def test_secrets_of_urls_are_not_repeated():
    text = "at https://me:word@host/a.png?X-Amz-Signature=abc&b=c, HTTP 403"
    assert storage.redact(text) == "at https://host/a.png HTTP 403"
