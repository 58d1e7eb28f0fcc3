"""Tokens that are drawn: by their scores, and by a number that follows from the seed and the token's place alone."""

import numpy as np

from engines.generation.answer_request import Sampling
from engines.part import Array

_FEW = 1024  # the likeliest tokens, which have nearly all of the probability


def drawn(scores: Array, sampling: Sampling, number: int) -> int:
    """Draw token `number` of an answer by the scores `[vocabulary] float32` of all tokens.

    Probabilities are those of the scores divided by the temperature. Of them `top_k` keeps so many tokens, and `top_p`
    as few of the likeliest as have this probability together; of equal ones the first.
    """
    chance = np.random.Generator(np.random.Philox(key=sampling.seed, counter=number)).random()
    most = sampling.top_k if 0 < sampling.top_k < len(scores) else len(scores)
    if most == len(scores) and sampling.top_p >= 1:
        return _at(_shares(scores, sampling.temperature), chance)
    tokens = _likeliest(scores, min(most, _FEW))
    if most <= _FEW:
        shares = _shares(scores[tokens], sampling.temperature)
    else:
        shares = _shares(scores, sampling.temperature)[tokens]
        if shares.sum() < sampling.top_p or most < len(scores):
            tokens = _likeliest(scores, most)
            shares = _shares(scores[tokens], sampling.temperature)
    kept = int(np.searchsorted(np.cumsum(shares), sampling.top_p)) + 1 if sampling.top_p < 1 else len(shares)
    return int(tokens[_at(shares[:kept], chance)])


def _shares(scores: Array, temperature: float) -> Array:
    """Probabilities, as float64."""
    scaled = (scores.astype(np.float64) - float(scores.max())) / temperature
    powers: Array = np.exp(scaled)
    return powers / float(powers.sum())


def _likeliest(scores: Array, count: int) -> Array:
    """The tokens with the highest scores, falling; of equal ones the first."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    tokens = np.flatnonzero(scores >= least)
    return tokens[np.argsort(-scores[tokens], kind="stable")][:count]


def _at(shares: Array, chance: float) -> int:
    """The place in `shares` that a number from 0 to 1 means."""
    sums = np.cumsum(shares)
    return min(int(np.searchsorted(sums, chance * sums[-1], side="right")), len(shares) - 1)
