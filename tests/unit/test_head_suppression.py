"""Suppression of a whole batch against a loop over the candidates of each group, with ties and boxes without area."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.heads import suppression
from engines.heads.obb import gaussian_overlap
from engines.heads.suppression import BOX_OVERLAP, Overlap, best_of_rows, by_group, suppress

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
    order = by_group(table[:, 4], table[:, 5])
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=-1)
    kept = order[suppress(boxes[order], table[order, 5].astype(int), threshold, most, BOX_OVERLAP)]
    expected = greedy(found, threshold)
    assert kept.tolist() == [number for group in sorted(expected) for number in expected[group][:most]]


def one_by_one(shapes: np.ndarray, groups: np.ndarray, threshold: float, most: int, overlap: Any) -> list[int]:
    """What stays, by a loop: each shape is compared with those of its group that stay before it, a pair at a time."""
    kept: dict[int, list[int]] = {}
    for number, group in enumerate(groups.tolist()):
        mine = kept.setdefault(group, [])
        pairs = ((shapes[other : other + 1], shapes[number : number + 1]) for other in mine)
        if len(mine) < most and not any(overlap(*pair) > threshold for pair in pairs):
            mine.append(number)
    return [number for group in sorted(kept) for number in kept[group]]


def float32_overlap(first: np.ndarray, second: np.ndarray) -> np.float32:
    """Intersection over union of one pair, in steps of float32; infinite sides and 0 / 0 give NaN."""
    (l1, t1, r1, b1), (l2, t2, r2, b2) = first[0], second[0]
    width = np.maximum(np.minimum(r1, r2) - np.maximum(l1, l2), np.float32(0))
    height = np.maximum(np.minimum(b1, b2) - np.maximum(t1, t2), np.float32(0))
    shared = width * height
    return np.float32(shared / ((r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - shared))


def strange_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Boxes in groups around a few places, equal ones among them, without area, turned inside out, huge and tiny."""
    objects = max(1, count // int(random.integers(1, 12)))
    places, sides = random.uniform(0, 60, (objects, 2)), np.exp(random.uniform(-1, 4, (objects, 2)))
    of = random.integers(0, objects, count)
    corner = places[of] + random.normal(0, 0.2, (count, 2)) * sides[of]
    boxes = np.concatenate([corner, corner + sides[of] * random.uniform(0.5, 1.5, (count, 2))], axis=1)
    boxes = np.round(boxes, random.integers(0, 4)) * random.choice([1.0, 1.0, 1e-22, 1e18, 1e4])
    for _ in range(int(random.integers(0, 6)) if count else 0):
        boxes[random.integers(count), random.integers(4)] = random.choice([0, -0.0, np.inf, -np.inf, np.nan, 30, 3e38])
    for _ in range(int(random.integers(0, 6)) if count else 0):
        boxes[random.integers(count)] = boxes[random.integers(count)]
    return boxes.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(0, 90),
    groups=st.sampled_from([1, 2, 5, 40]),
    threshold=st.sampled_from([0.0, 0.3, 0.45, 0.7, 0.99, 1.0]),
    most=st.sampled_from([1, 2, 7, 300]),
)
@pytest.mark.parametrize("way", ["compiled", "NumPy", "rotated"])
def test_any_boxes_are_suppressed_as_one_by_one(
    way: str, seed: int, count: int, groups: int, threshold: float, most: int
) -> None:
    rotated = way == "rotated"
    random = np.random.default_rng(seed)
    shapes, of = strange_boxes(random, count), np.sort(random.integers(0, groups, count))
    if rotated:
        shapes = np.concatenate([shapes, random.uniform(-2, 2, (count, 1)).astype(np.float32)], axis=1)
    overlap = Overlap(gaussian_overlap, of_boxes=False) if rotated else BOX_OVERLAP
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        if way == "NumPy":
            patch.setattr(suppression, "loaded", lambda *_: None)
        elif way == "compiled" and suppression.loaded(suppression._SOURCE, "") is None:
            pytest.skip("no C compiler here")
        found = suppress(shapes, of, threshold, most, overlap)
        expected = one_by_one(shapes, of, threshold, most, gaussian_overlap if rotated else float32_overlap)
    assert found.tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=20), st.integers(1, 4))
def test_the_best_of_each_row_are_kept(found: list[tuple[int, int]], most: int) -> None:
    scores, rows = (np.array([each[k] for each in found], dtype) for k, dtype in ((0, np.float32), (1, np.int64)))
    expected = []
    for row in range(3):
        mine = [number for number, each in enumerate(found) if each[1] == row]
        expected += sorted(mine, key=lambda number: -found[number][0])[:most]
    assert best_of_rows(by_group(scores, rows), rows, most).tolist() == expected


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
