"""Suppression of a whole batch against a loop over the candidates of each group, with ties and boxes without area."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.heads.suppression import best_of_rows, box_overlap, by_group, suppress

side = st.integers(0, 6)
candidate = st.tuples(side, side, side, side, st.integers(0, 3), st.integers(0, 2))  # x, y, width, height, score, group


def overlap(first: tuple[int, ...], second: tuple[int, ...]) -> Fraction:
    (x, y, w, h, *_), (other_x, other_y, other_w, other_h, *_) = first, second
    width = max(0, min(x + w, other_x + other_w) - max(x, other_x))
    height = max(0, min(y + h, other_y + other_h) - max(y, other_y))
    union = w * h + other_w * other_h - width * height
    return Fraction(width * height, union) if union else Fraction(0)


def greedy(found: list[tuple[int, ...]], threshold: float) -> dict[int, list[int]]:
    """The numbers of the candidates that stay, for each group by falling score."""
    kept: dict[int, list[int]] = {}
    for number in sorted(range(len(found)), key=lambda each: -found[each][4]):  # stable: the first of equals first
        mine = kept.setdefault(found[number][5], [])
        if all(overlap(found[number], found[other]) <= Fraction(threshold) for other in mine):
            mine.append(number)
    return kept


@given(st.lists(candidate, max_size=30), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(1, 5))
def test_a_batch_is_suppressed_as_its_groups_are(found: list[tuple[int, ...]], threshold: float, most: int) -> None:
    table = np.array(found, np.float32).reshape(-1, 6)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=-1)
    scores, groups = table[:, 4], table[:, 5].astype(int)
    kept = suppress(boxes, scores, groups, threshold, most, box_overlap)
    expected = greedy(found, threshold)
    assert kept.tolist() == [number for group in sorted(expected) for number in expected[group][:most]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=20), st.integers(1, 4))
def test_the_best_of_each_row_are_kept(found: list[tuple[int, int]], most: int) -> None:
    scores, rows = (np.array([each[k] for each in found], np.float32) for k in (0, 1))
    expected = []
    for row in range(3):
        mine = [number for number, each in enumerate(found) if each[1] == row]
        expected += sorted(mine, key=lambda number: -found[number][0])[:most]
    assert best_of_rows(np.arange(len(found)), scores, rows, most).tolist() == expected


@given(
    found=st.lists(st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-40, 0.25, 0.5, 1.0]), max_size=60),
    groups=st.sampled_from([3, 70_000, 1 << 40]),
    seed=st.integers(0, 1000),
)
def test_candidates_are_sorted_by_group_and_falling_score(found: list[float], groups: int, seed: int) -> None:
    scores = np.array(found, np.float32)
    of = np.random.default_rng(seed).integers(0, groups, len(scores))
    for given_scores in (scores, scores.astype(np.float64)):
        np.testing.assert_array_equal(by_group(given_scores, of), np.lexsort((-scores, of)))
