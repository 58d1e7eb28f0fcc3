"""The most work that can flow through limited parts: a small linear program, solved by the simplex method."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
_SMALL = 1e-9
_BLOCKED = 1e12  # a part of no limit at all lets nothing through


def best_mix(uses: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> tuple[float, list[float]]:
    """The largest sum of rates, and the rate of each way.

    A way uses `uses[way][part]` seconds of a part for one piece, and a part has `limits[part]` seconds a second. A way
    that uses nothing is left out, for it would have no limit. Among equal ways the first ones are taken. By Bland's
    rule it ends, and gives the same for the same (Bland 1977, New finite pivoting rules for the simplex method).
    """
    parts = sorted({part for way in uses for part, seconds in way.items() if seconds > 0.0})
    ways = [number for number, way in enumerate(uses) if any(way.get(part, 0.0) > 0.0 for part in parts)]
    # rows in shares of each part's limit, so that one tolerance is right for all
    rows = np.zeros((len(parts), len(ways)))
    numbers = {part: number for number, part in enumerate(parts)}
    for column, way in enumerate(ways):
        for part, seconds in uses[way].items():
            if seconds > 0.0:
                rows[numbers[part], column] = seconds / limits[part] if limits[part] else _BLOCKED
    scale = rows.max(axis=0, initial=0.0)
    basis = _solve(rows / scale, 1.0 / scale)
    rates = [0.0] * len(uses)
    for column, share in basis.items():
        rates[ways[column]] = float(share / scale[column])
    return sum(rates), rates


def _solve(rows: Matrix, gains: Matrix) -> dict[int, float]:
    """Maximise gains x, with rows x <= 1 and x >= 0: the columns in use and their values."""
    number, count = rows.shape
    table = np.hstack([rows, np.eye(number), np.ones((number, 1))])
    goal = np.concatenate([-gains, np.zeros(number + 1)])
    least = gains.max(initial=0.0) * _SMALL
    basis = np.arange(count, count + number)
    while True:
        improving = np.flatnonzero(goal[:-1] < -least)
        if not improving.size:
            break
        column = improving[0]
        able = np.flatnonzero(table[:, column] > _SMALL)
        if not able.size:
            break
        bounds = table[able, -1] / table[able, column]
        tied = able[bounds == bounds.min()]
        leaving = tied[basis[tied].argmin()]
        pivot = table[leaving] = table[leaving] / table[leaving, column]
        others = np.flatnonzero(table[:, column])
        others = others[others != leaving]
        table[others] -= np.outer(table[others, column], pivot)
        goal -= goal[column] * pivot
        basis[leaving] = column
    return {int(column): max(0.0, float(table[row, -1])) for row, column in enumerate(basis) if column < count}
