"""Noise: strength, color, seeds, and the level counting of the reference."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.degrade import noise

CPU = torch.device("cpu")


def flat(value: float, size: int = 100) -> torch.Tensor:
    return torch.full((3, size, size), value)


def test_gaussian_strength_and_seed() -> None:
    image = flat(0.5)
    first = noise.add_gaussian_noise(image, 20.0, gray=False, source=noise.make_generator(1, CPU))
    again = noise.add_gaussian_noise(image, 20.0, gray=False, source=noise.make_generator(1, CPU))
    other = noise.add_gaussian_noise(image, 20.0, gray=False, source=noise.make_generator(2, CPU))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert (first - image).std().item() * 255 == pytest.approx(20, rel=0.02)
    assert not torch.allclose(first[0], first[1])


def test_gray_noise_is_the_same_for_all_channels() -> None:
    for make in (
        noise.add_gaussian_noise(flat(0.5), 20.0, gray=True, source=noise.make_generator(1, CPU)),
        noise.add_poisson_noise(
            flat(0.5), 1.0, gray=True, levels=256, source=noise.make_generator(1, CPU)
        ),
    ):
        assert torch.equal(make[0], make[1])
        assert torch.equal(make[0], make[2])
        assert make[0].std() > 0.01


def test_mixed_noise_has_the_covariance_of_its_matrix() -> None:
    mix = (0.1, 0.0, 0.0, 0.05, 0.08, 0.0, 0.0, -0.06, 0.02)
    noisy = noise.add_gaussian_noise(
        flat(0.5, 300), 0.0, gray=False, source=noise.make_generator(1, CPU), mix=mix
    )
    matrix = torch.tensor(mix).view(3, 3)
    found = torch.cov((noisy - 0.5).flatten(1))
    torch.testing.assert_close(found, matrix @ matrix.T, atol=2e-4, rtol=0)


@pytest.mark.parametrize("value", [0.05, 0.5, 1.0])
def test_poisson_variance(value: float) -> None:
    image = flat(round(value * 255) / 255)
    noisy = noise.add_poisson_noise(
        image, 2.0, gray=False, levels=64, source=noise.make_generator(1, CPU)
    )
    difference = noisy - image
    assert difference.mean().item() == pytest.approx(0, abs=0.01)
    assert difference.var().item() == pytest.approx(4 * image[0, 0, 0].item() / 64, rel=0.05)


def test_black_has_no_poisson_noise() -> None:
    black = flat(0.0)
    noisy = noise.add_poisson_noise(
        black, 3.0, gray=False, levels=0, source=noise.make_generator(1, CPU)
    )
    assert torch.equal(noisy, black)


@pytest.mark.parametrize(
    ("used", "levels"), [(1, 1), (2, 2), (3, 4), (100, 128), (129, 256), (256, 256)]
)
def test_count_levels(used: int, levels: int) -> None:
    assert noise.count_levels(torch.arange(used).repeat(3).float()) == levels


def test_counting_makes_constant_images_all_noise_and_given_levels_do_not() -> None:
    image = flat(0.5)
    counted = noise.add_poisson_noise(
        image, 1.0, gray=False, levels=0, source=noise.make_generator(1, CPU)
    )
    given = noise.add_poisson_noise(
        image, 1.0, gray=False, levels=256, source=noise.make_generator(1, CPU)
    )
    assert (counted - image).std().item() == pytest.approx(0.7071, rel=0.02)
    assert (given - image).std().item() == pytest.approx(0.7071 / 16, rel=0.02)


def test_photons_are_those_of_the_8_bit_image() -> None:
    almost_black = flat(0.4 / 255)
    noisy = noise.add_poisson_noise(
        almost_black, 3.0, gray=False, levels=256, source=noise.make_generator(1, CPU)
    )
    assert torch.equal(noisy, almost_black)
