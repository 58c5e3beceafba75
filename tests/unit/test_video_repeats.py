"""Work that is not done twice: repeated frames and unchanged tiles, and how many there are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from video_samples import Clip, CountingUpscaler, decoded, make_clip, moving, nearest, packets, run

from realesr_cli.video.frames import Frame
from realesr_cli.video.repeats import RepeatFinder, TileCache

FAST = {"preset": "ultrafast"}


def held(count: int, hold: int) -> list[NDArray[Any]]:
    """Frames of which each is shown `hold` times."""
    return [frame for frame in moving(count, 96, 64) for _ in range(hold)]


def test_exact_repeats_change_nothing(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", held(7, 3), Clip("ffv1", ()))
    reports = {
        mode: run(source, tmp_path / f"{mode}.mkv", dedupe=mode, **FAST)
        for mode in ("off", "exact")
    }
    assert reports["off"].computed == 21
    assert reports["exact"].computed <= 7 + reports["exact"].chunks
    assert reports["exact"].computed + reports["exact"].repeated == 21
    assert packets(tmp_path / "off.mkv") == packets(tmp_path / "exact.mkv")


def lip_flap() -> list[NDArray[Any]]:
    """A still image whose only change is a mouth of 6x4 pixels that opens and closes."""
    still = moving(1, 96, 64)[0]
    frames = []
    for number in range(40):
        frame = still.copy()
        if number // 2 % 2:
            frame[40:44, 30:36] = 255 - frame[40:44, 30:36] // 4
        frames.append(frame)
    return frames


NEAR = [
    ("libx264", (("preset", "medium"), ("crf", "20"))),
    ("libx264", (("preset", "medium"), ("crf", "28"))),
    pytest.param("libx265", (("crf", "24"), ("x265-params", "log-level=error")),
                 marks=pytest.mark.slow),
    pytest.param("libsvtav1", (("crf", "28"), ("preset", "8")), marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "options"), NEAR)
def test_near_repeats_are_found_and_none_is_wrong(
    tmp_path: Path, codec: str, options: tuple[tuple[str, str], ...]
) -> None:
    shown = held(14, 3)
    source = make_clip(tmp_path / "a.mkv", shown, Clip(codec, options))
    report = run(source, tmp_path / "b.mkv", dedupe="near", codec="ffv1", chunk_seconds=100)
    assert report.chunks == 1
    assert report.computed >= 14
    assert report.repeated >= 0.9 * (len(shown) - 14)
    # Every frame shows its own image, not that of the one before.
    for number, frame in enumerate(decoded(tmp_path / "b.mkv")):
        new = frame.to_ndarray(format="rgb24")[::2, ::2].astype(int)
        errors = [np.abs(new - shown[n]).mean() for n in range(0, len(shown), 3)]
        assert int(np.argmin(errors)) == number // 3


def test_a_moving_mouth_is_not_a_repeat(tmp_path: Path) -> None:
    shown = lip_flap()
    source = make_clip(tmp_path / "a.mkv", shown, Clip(options=(("crf", "18"),)))
    run(source, tmp_path / "b.mkv", dedupe="near", codec="ffv1", chunk_seconds=100)
    for number, frame in enumerate(decoded(tmp_path / "b.mkv")):
        mouth = frame.to_ndarray(format="rgb24")[80:88, 60:72].astype(int).mean()
        wanted = [shown[n][40:44, 30:36].mean() for n in (0, 2)]
        assert int(np.argmin([abs(mouth - w) for w in wanted])) == number // 2 % 2


def test_slow_changes_do_not_drift() -> None:
    """Each frame is compared with the last one kept, not with the last one seen."""
    finder = RepeatFinder("near")
    kept = 0
    for level in range(60):
        pixels = np.full((32, 32, 3), 100 + level, np.uint8)
        planes = tuple(pixels[..., i] for i in range(3))
        kept += not finder.is_repeat(Frame(level, pixels, None, planes))
    assert kept >= 5


def static_background(count: int) -> list[NDArray[Any]]:
    """A still image with a square that moves through the left third."""
    frames = []
    for number in range(count):
        frame = moving(1, 96, 64)[0].copy()
        frame[number : number + 8, 4:12] = 255
        frames.append(frame)
    return frames


def test_the_tile_cache_changes_no_bit(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", static_background(20), Clip("ffv1", ()))
    reports = {}
    for size in (0, 8):
        upscaler = random_network(tile=24)
        reports[size] = run(source, tmp_path / f"{size}.mkv", upscaler, tile_cache=size, **FAST)
    assert packets(tmp_path / "0.mkv") == packets(tmp_path / "8.mkv")
    assert reports[0].tile_lookups == 0
    assert reports[8].tile_hits > 0.5 * reports[8].tile_lookups


def random_network(**engine: Any) -> Any:
    """A network whose tiles depend on their surroundings."""
    from realesr_cli.engine.settings import EngineSettings
    from realesr_cli.engine.upscaler import Upscaler
    from realesr_cli.nets.compact import CompactArchitecture

    torch.manual_seed(3)
    net = CompactArchitecture(scale=2, features=4, convs=1).build().eval()
    return Upscaler(net, EngineSettings("cpu", "fp32", backend="torch", **engine))


def test_the_tile_cache_keeps_to_its_limit() -> None:
    cache, calls = TileCache(1000), itertools.count()

    def forward(x: torch.Tensor) -> torch.Tensor:
        next(calls)
        return x * 2

    run_cached = cache.wrap(forward)
    tiles = [torch.full((1, 1, 8, 8), float(n)) for n in range(6)]  # 256 bytes each
    for tile in [*tiles, *tiles]:  # Stored at the second time.
        assert torch.equal(run_cached(tile).clamp_(0, 1), (tile * 2).clamp(0, 1))
        assert cache.held_bytes <= 1000
    assert next(calls) == 12
    for tile in tiles[3:]:
        assert torch.equal(run_cached(tile), tile * 2)
    assert cache.hits == 3
    run_cached(tiles[0])
    assert (cache.hits, next(calls)) == (3, 14)
    for _ in range(2):
        run_cached(torch.zeros(1, 1, 40, 40))
    assert cache.held_bytes <= 1000


def test_calls_of_the_network_are_counted(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", held(4, 4), Clip("ffv1", ()))
    upscaler = nearest()
    upscaler.__class__ = CountingUpscaler
    CountingUpscaler.calls = 0
    report = run(source, tmp_path / "b.mkv", upscaler, tile_cache=0, **FAST)
    assert CountingUpscaler.calls == report.computed < 16
