"""Planted faults (no memory, overflow): no tile is lost or wrong, and each is reported once."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from realesr_cli.engine.guard import Forwards, Guard, is_out_of_memory
from realesr_cli.errors import CheckpointFormatError, OutOfMemoryError, RealesrWarning

OOM = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
)


def blurred(x):
    """A network of radius 2 and scale 2, whose result depends on the context."""
    y = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    return y.repeat_interleave(2, 2).repeat_interleave(2, 3)


def limited(pixels, error):
    """`blurred` on a device where more than `pixels` do not fit; notes the sizes that ran."""
    sizes = []

    def forward(x):
        if x.shape[0] * x.shape[2] * x.shape[3] > pixels:
            raise error
        sizes.append(tuple(x.shape))
        return blurred(x)

    return forward, sizes


@pytest.mark.parametrize("error", OOM)
def test_memory_running_out_is_recognized(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("error", OOM)
@pytest.mark.parametrize("shape", [(1, 3, 100, 180), (4, 3, 40, 64), (3, 3, 201, 70)])
def test_smaller_pieces_give_the_same_image(error, shape):
    x = torch.rand(shape)
    forward, sizes = limited(40 * 70, error)
    guard = Guard(Forwards(forward, scale=2), context=3)
    with pytest.warns(RealesrWarning, match="smaller tiles") as shown:
        y, again = (guard(x) for _ in range(2))
    assert len(shown) == 1
    torch.testing.assert_close(y, blurred(x), atol=1e-6, rtol=0)
    assert torch.equal(again, y)
    assert max(s[0] * s[2] * s[3] for s in sizes) <= 40 * 70


def test_the_limit_is_remembered():
    forward, sizes = limited(5000, MemoryError())
    tries = []

    def counting(x):
        tries.append(1)
        return forward(x)

    guard = Guard(Forwards(counting, scale=2), context=3)
    with pytest.warns(RealesrWarning):
        guard(torch.rand(1, 3, 120, 120))
    first, ran = len(tries), len(sizes)
    guard(torch.rand(1, 3, 120, 120))
    assert len(tries) - first == len(sizes) - ran, "the second image must not fail again"


def test_pieces_keep_the_phase_of_pixel_unshuffle():
    starts = []

    def forward(x):
        if x.shape[3] > 80:
            raise MemoryError
        starts.append(int(x[0, 0, 0, 0]))
        return x.clone()

    x = torch.arange(200.0).expand(1, 3, 8, 200)
    guard = Guard(Forwards(forward, scale=1, multiple=4), context=3)
    with pytest.warns(RealesrWarning):
        y = guard(x)
    assert torch.equal(y, x)
    assert all(start % 4 == 0 for start in starts)


def test_the_cpu_is_the_last_resort():
    def never(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    guard = Guard(Forwards(never, exact=never, cpu=blurred, scale=2), context=3)
    x = torch.rand(1, 3, 90, 90)
    with pytest.warns(RealesrWarning) as shown:
        y = guard(x)
    torch.testing.assert_close(y, blurred(x), atol=1e-6, rtol=0)
    assert sum("using the CPU" in str(w.message) for w in shown) == 1
    torch.testing.assert_close(guard(x), blurred(x))


def test_when_nothing_helps_it_says_so():
    def never(x):
        raise MemoryError

    with pytest.warns(RealesrWarning), pytest.raises(OutOfMemoryError, match=r"\d+x\d+ pixels"):
        Guard(Forwards(never, scale=2), context=3)(torch.rand(1, 3, 90, 90))


def test_other_errors_pass_through():
    def broken(x):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Guard(Forwards(broken, scale=2), context=3)(torch.rand(1, 3, 9, 9))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_tile_is_redone_in_fp32(bad):
    fast_calls = []

    def fast(x):
        fast_calls.append(1)
        y = blurred(x).clone()
        if len(fast_calls) == 2:
            y[0, 1, 3, 4] = bad
        return y

    guard = Guard(Forwards(fast, exact=blurred, scale=2), context=3)
    x = torch.rand(1, 3, 20, 20)
    with pytest.warns(RealesrWarning, match="overflowed") as shown:
        results = [guard(x) for _ in range(4)]
    assert len(shown) == 1
    assert len(fast_calls) == 2, "fp32 is remembered for the rest of the run"
    for y in results:
        torch.testing.assert_close(y, blurred(x))


def test_numbers_that_are_none_even_in_fp32_are_an_error():
    def broken(x):
        return blurred(x) * float("nan")

    x = torch.rand(1, 3, 9, 9)
    with pytest.raises(CheckpointFormatError, match="corrupt"):
        Guard(Forwards(broken, scale=2), context=3)(x)
    with pytest.warns(RealesrWarning), pytest.raises(CheckpointFormatError, match="corrupt"):
        Guard(Forwards(broken, exact=broken, scale=2), context=3)(x)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_absurd_values_are_redone_in_fp32_and_else_an_error(share):
    def absurd(x):
        y = blurred(x).clone()
        y[..., : int(y.shape[3] * share)] += 1e20
        return y

    x = torch.rand(1, 3, 20, 20)
    with pytest.warns(RealesrWarning, match="overflowed"):
        y = Guard(Forwards(absurd, exact=blurred, scale=2), context=3)(x)
    torch.testing.assert_close(y, blurred(x))
    with pytest.raises(CheckpointFormatError, match="1e\\+20"):
        Guard(Forwards(absurd, scale=2), context=3)(x)


@pytest.mark.parametrize("scale", [-100.0, 3.0, 1000.0])
def test_networks_that_overshoot_raise_no_alarm(scale):
    """Values a hundred times white are bad training, but not corrupt weights."""
    x = torch.rand(1, 3, 20, 20)
    found = Guard(Forwards(lambda x: blurred(x) * scale, scale=2), context=3)(x)
    torch.testing.assert_close(found, blurred(x) * scale)


def test_threads_share_what_was_learned():
    forward, _ = limited(3000, MemoryError())
    guard = Guard(Forwards(forward, scale=2), context=3)
    images = [torch.rand(1, 3, 70 + i, 90) for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealesrWarning)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(guard, images))
    for x, y in zip(images, results, strict=True):
        torch.testing.assert_close(y, blurred(x), atol=1e-6, rtol=0)
