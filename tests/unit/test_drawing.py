"""Tokens that are drawn: by their probabilities, among those that `top_k` and `top_p` keep, the same for a seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.generation.answer_request import Sampling
from engines.generation.drawing import drawn


def scores(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, count).astype(np.float32)


def expected(given: np.ndarray, sampling: Sampling) -> dict[int, float]:
    """Probabilities by sorting all tokens."""
    order = sorted(range(len(given)), key=lambda token: (-given[token], token))[: sampling.top_k or None]
    most = float(given[order[0]])
    powers = [float(np.exp((float(given[token]) - most) / sampling.temperature)) for token in order]
    total, kept, so_far = sum(powers), {}, 0.0
    for token, power in zip(order, powers, strict=True):
        kept[token] = power / total
        so_far += power / total
        if so_far >= sampling.top_p:
            break
    return {token: share / sum(kept.values()) for token, share in kept.items()}


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (0.7, 1.0, 5), (1.5, 0.8, 0), (1, 0.6, 9)])
def test_tokens_come_as_often_as_their_probability_says(temperature: float, top_p: float, top_k: int) -> None:
    given = scores(40, 1)
    shares = expected(given, Sampling(temperature, top_p, top_k, 0))
    found = Counter(drawn(given, Sampling(temperature, top_p, top_k, seed), 3) for seed in range(2000))
    assert set(found) <= set(shares)
    often = [token for token, share in shares.items() if share * 2000 > 5]
    rest = 2000 - sum(found[token] for token in often)
    want = [shares[token] * 2000 for token in often]
    from scipy.stats import chisquare  # it takes long to import

    assert chisquare([*(found[token] for token in often), rest + 1e-9], [*want, 2000 - sum(want) + 1e-9]).pvalue > 1e-3


@given(
    count=st.integers(1, 2000),
    seed=st.integers(0, 99),
    temperature=st.floats(0.01, 100),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 4000),
    number=st.integers(0, 1 << 20),
)
@settings(max_examples=40)
def test_a_token_is_one_of_those_that_are_kept(
    count: int, seed: int, temperature: float, top_p: float, top_k: int, number: int
) -> None:
    given, sampling = np.round(scores(count, seed), 1), Sampling(temperature, top_p, top_k, seed)
    token = drawn(given, sampling, number)
    assert token == drawn(given.copy(), sampling, number)
    looser = Sampling(temperature, min(1.0, top_p + 1e-9), top_k, seed)
    assert token in expected(given, looser)


def test_another_seed_or_place_draws_another_token() -> None:
    given = scores(1000, 2)
    assert len({drawn(given, Sampling(5.0, 1.0, 0, seed), 0) for seed in range(20)}) > 15
    assert len({drawn(given, Sampling(5.0, 1.0, 0, 0), number) for number in range(20)}) > 15
    assert drawn(given, Sampling(1e-3, 1.0, 0, 1), 7) == int(given.argmax())
