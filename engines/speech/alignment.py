"""Where in the sound each token of a text is: a path through the attention that it has for the states of the sound.

Source: openai/whisper, whisper/timing.py (find_alignment, median_filter, dtw_cpu); CTranslate2 computes the same.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engines.part import Array

FILTER = 7  # the width of the median filter over states, openai/whisper's


def path_of(attention: Array, begin: int, states: int) -> tuple[tuple[int, int], ...]:
    """Return `(token, state)` of each step of the path, both rising from 0.

    `attention [heads, tokens, all states]` are shares of a softmax over all states; of these, the first `states` are
    not padding. The path goes through the tokens from `begin` on, except the last one, the end.
    """
    shares = attention[:, :, : min(states, attention.shape[2])].astype(np.float32)
    if not shares.shape[2] or shares.shape[1] - begin < 2:
        return ()
    shares = shares / np.maximum(shares.sum(axis=-1, keepdims=True), np.float32(1e-30))
    spread = np.maximum(shares.std(axis=1, keepdims=True), np.float32(1e-30))
    smooth = _median((shares - shares.mean(axis=1, keepdims=True)) / spread)
    return _path(-smooth.mean(axis=0)[begin:-1])


def _median(values: Array) -> Array:
    """Return the median of each value of a row and three on both sides, which the row's ends mirror."""
    half = FILTER // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    made = np.empty_like(values)
    for head, rows in enumerate(padded):  # one at a time: the windows take seven times the memory
        made[head] = np.partition(sliding_window_view(rows, FILTER, axis=-1), half, axis=-1)[..., half]
    return made


def _path(costs: Array) -> tuple[tuple[int, int], ...]:
    """Return the cheapest path from the first corner of `costs [tokens, states]` to the last one.

    Each diagonal is computed at once. Of equal ways, the next state of the same token is preferred, as in
    openai/whisper.
    """
    tokens, states = costs.shape
    total = np.full((tokens + 1, states + 1), np.inf, np.float32)
    steps = np.zeros((tokens + 1, states + 1), np.int8)
    total[0, 0] = 0
    for diagonal in range(2, tokens + states + 1):
        row = np.arange(max(1, diagonal - states), min(tokens, diagonal - 1) + 1)
        column = diagonal - row
        both, token, state = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
        step = np.where((both < token) & (both < state), 0, np.where((token < both) & (token < state), 1, 2))
        steps[row, column] = step
        total[row, column] = costs[row - 1, column - 1] + np.choose(step, (both, token, state))
    steps[0, :], steps[:, 0] = 2, 1
    found = []
    row, column = tokens, states
    while row > 0 or column > 0:
        found.append((row - 1, column - 1))
        step = steps[row, column]
        row, column = row - (step != 2), column - (step != 1)
    return tuple(reversed(found))
