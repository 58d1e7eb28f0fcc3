"""Normal numbers of the pictures' noise: exact, counted, the same everywhere."""

import hashlib
from statistics import NormalDist

import numpy as np

from engines.diffusion.noise import normal, normal_of


def test_the_formula_agrees_with_pythons_own() -> None:
    places = np.concatenate([np.random.default_rng(1).random(2000), [1e-16, 1e-9, 0.075, 0.5, 0.925, 1 - 1e-12]])
    expected = [NormalDist().inv_cdf(place) for place in places]
    assert np.allclose(normal_of(places), expected, rtol=1e-14, atol=1e-15)


def test_numbers_follow_from_seed_and_number_alone() -> None:
    long = normal(7, 3, (4, 64, 64))
    assert np.array_equal(long, normal(7, 3, (4, 64, 64)))
    assert np.array_equal(long.ravel()[:100], normal(7, 3, (100,)))  # counted: a longer one begins as a shorter one
    others = [normal(seed, number, (100,)) for seed, number in ((8, 3), (7, 4), (2**64 - 1, 2**64 - 1), (0, 0))]
    assert all(abs(float(np.corrcoef(long.ravel()[:100], other)[0, 1])) < 0.4 for other in others)


def test_numbers_are_those_of_every_machine() -> None:
    """The digest was made once; a machine with other bits would draw other pictures."""
    assert hashlib.sha256(normal(42, 1, (100_000,)).tobytes()).hexdigest()[:16] == "eedf9ed21b24cc1d"


def test_numbers_are_normal() -> None:
    numbers = np.sort(normal(3, 0, (50_000,)).astype(np.float64))
    expected = normal_of((np.arange(len(numbers)) + 0.5) / len(numbers))
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert np.abs(numbers - expected)[500:-500].max() < 0.05
