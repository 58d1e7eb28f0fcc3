"""The best assignment of rows to columns: exact, and the same on every machine.

The method is that of shortest augmenting paths with potentials: H. W. Kuhn, "The Hungarian Method for the Assignment
Problem", 1955; J. Munkres, 1957; in the form of R. Jonker and A. Volgenant, "A Shortest Augmenting Path Algorithm for
Dense and Sparse Linear Assignment Problems", 1987. rigflow does not depend on SciPy, which has it too.
"""

import numpy as np

from engines.part import Array


def assign(worth: Array) -> list[tuple[int, int]]:
    """Return pairs (row, column) of `worth [R, C]` float64 whose sum is the highest, by rising row.

    Each row and each column is in at most one pair, and only pairs worth more than 0 are taken. Rows and columns that
    no such pairs connect are solved apart from each other.
    """
    pairs: list[tuple[int, int]] = []
    for rows, columns in _connected(worth > 0):
        if len(rows) == 1 or len(columns) == 1:
            row, column = np.unravel_index(worth[np.ix_(rows, columns)].argmax(), (len(rows), len(columns)))
            pairs.append((int(rows[row]), int(columns[column])))
            continue
        turned = len(rows) > len(columns)
        block = np.maximum(worth[np.ix_(rows, columns)], 0.0)
        for place, other in enumerate(_cheapest(-(block.T if turned else block))):
            row, column = (rows[other], columns[place]) if turned else (rows[place], columns[other])
            if worth[row, column] > 0:
                pairs.append((int(row), int(column)))
    return sorted(pairs)


def _connected(linked: Array) -> list[tuple[Array, Array]]:
    """Return the rows and columns of each group that is connected by `linked [R, C]` bool."""
    groups = []
    free: Array = np.logical_or.reduce(linked, axis=1)
    for first in range(len(linked)):
        if not free[first]:
            continue
        rows = np.zeros(len(linked), np.bool_)
        rows[first] = True
        columns: Array = linked[first]
        while True:
            more: Array = np.logical_or.reduce(linked[:, columns], axis=1)
            if (more == rows).all():
                break
            rows = more
            columns = np.logical_or.reduce(linked[rows], axis=0)
        free &= ~rows
        groups.append((np.flatnonzero(rows), np.flatnonzero(columns)))
    return groups


def _cheapest(costs: Array) -> list[int]:
    """Return the column of each row of `costs [R, C]`, R <= C, so that the sum is the lowest."""
    rows, columns = costs.shape
    of_rows, of_columns = np.zeros(rows), np.zeros(columns)  # potentials: their sum never exceeds a cost
    owner = np.full(columns, -1)  # the row of each column
    for start in range(rows):
        nearest, before = np.full(columns, np.inf), np.full(columns, -1)
        open_columns = np.ones(columns, np.bool_)
        row, column = start, -1
        while True:
            away = costs[row] - of_rows[row] - of_columns
            shorter = open_columns & (away < nearest)
            nearest[shorter], before[shorter] = away[shorter], column
            reached = int(np.where(open_columns, nearest, np.inf).argmin())
            step = nearest[reached]
            closed = np.flatnonzero(~open_columns)
            of_rows[start] += step
            of_rows[owner[closed]] += step
            of_columns[closed] -= step
            nearest[open_columns] -= step
            open_columns[reached] = False
            column, row = reached, int(owner[reached])
            if row < 0:
                break
        while column >= 0:
            previous = int(before[column])
            owner[column] = start if previous < 0 else owner[previous]
            column = previous
    found = [0] * rows
    for taken in np.flatnonzero(owner >= 0).tolist():
        found[owner[taken]] = taken
    return found
