"""The most work that can flow through limited parts: a small linear program, solved by the simplex method."""

from collections.abc import Mapping, Sequence

_SMALL = 1e-9


def best_mix(uses: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> tuple[float, list[float]]:
    """The largest sum of rates, and the rate of each way.

    A way uses `uses[way][part]` seconds of a part for one piece, and a part has `limits[part]` seconds a second. A way
    that uses nothing is left out, for it would have no limit. Among equal ways the first ones are taken. By Bland's
    rule it ends, and gives the same for the same (Bland 1977, New finite pivoting rules for the simplex method).
    """
    parts = sorted({part for way in uses for part, seconds in way.items() if seconds > 0.0})
    ways = [number for number, way in enumerate(uses) if any(way.get(part, 0.0) > 0.0 for part in parts)]
    # rows in shares of each part's limit, so that one tolerance is right for all
    rows = [
        [uses[way].get(part, 0.0) / limits[part] if limits[part] else _blocked(uses[way], part) for way in ways]
        for part in parts
    ]
    scale = [max(row[column] for row in rows) for column in range(len(ways))]
    rows = [[value / scale[column] for column, value in enumerate(row)] for row in rows]
    gains = [1.0 / scale[column] for column in range(len(ways))]
    basis = _solve(rows, gains)
    rates = [0.0] * len(uses)
    for column, share in basis.items():
        rates[ways[column]] = share / scale[column]
    return sum(rates), rates


def _blocked(way: Mapping[str, float], part: str) -> float:
    """A part of no limit at all lets nothing through."""
    return 1e12 if way.get(part, 0.0) > 0.0 else 0.0


def _solve(rows: list[list[float]], gains: list[float]) -> dict[int, float]:
    """Maximise gains x, with rows x <= 1 and x >= 0: the columns in use and their values."""
    count = len(gains)
    table = [[*row, *(float(other == own) for other in range(len(rows))), 1.0] for own, row in enumerate(rows)]
    goal = [-gain for gain in gains] + [0.0] * (len(rows) + 1)
    least = max(gains, default=0.0) * _SMALL
    basis = [count + number for number in range(len(rows))]
    while True:
        column = next((number for number in range(count + len(rows)) if goal[number] < -least), None)
        if column is None:
            break
        bounds = [
            (row[-1] / row[column], basis[number], number) for number, row in enumerate(table) if row[column] > _SMALL
        ]
        if not bounds:
            break
        _, _, leaving = min(bounds)
        pivot = table[leaving]
        by = pivot[column]
        table[leaving] = pivot = [value / by for value in pivot]
        for row in (*table[:leaving], *table[leaving + 1 :], goal):
            if factor := row[column]:
                for number, value in enumerate(pivot):
                    if value:
                        row[number] -= factor * value
        basis[leaving] = column
    return {column: max(0.0, table[number][-1]) for number, column in enumerate(basis) if column < count}
