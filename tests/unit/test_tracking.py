"""Tracking: the assignment is the best there is, the filter is the textbook's, and tracks are those of ByteTrack."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.part import Array
from engines.tracking.assignment import assign
from engines.tracking.bytetrack import MOST, ByteTrack, Limits
from engines.tracking.kalman import Motion
from engines.tracking.media import Boxes, MediaTracker, TrackOptions
from schemas.jobs import Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from tests.clips import real_clip
from tests.unit.outputs_parts import JOB, VIDEO


def most(worth: Array) -> float:
    """What the best assignment is worth, by scipy, which takes long to import."""
    from scipy.optimize import linear_sum_assignment

    return float(worth[linear_sum_assignment(worth, maximize=True)].sum())


@settings(max_examples=150)
@given(st.data())
def test_the_assignment_is_worth_as_much_as_scipys(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 0.5, 1.0]) | st.floats(-1, 1)
    given_ = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    worth = np.array(given_, np.float64).reshape(rows, columns)
    pairs = assign(worth)
    assert sum(worth[pair] for pair in pairs) == pytest.approx(most(np.maximum(worth, 0)))
    assert len({row for row, _ in pairs}) == len(pairs) == len({column for _, column in pairs})
    assert all(worth[pair] > 0 for pair in pairs)


def test_a_large_assignment_is_worth_as_much_as_scipys() -> None:
    worth = np.random.default_rng(0).random((60, 45))
    pairs = assign(worth)
    assert sum(worth[pair] for pair in pairs) == pytest.approx(most(worth))


def test_the_filter_is_that_of_eight_numbers_and_an_8x8_covariance() -> None:
    """SORT's, with matrices, for one box that is seen in two frames of three."""
    random = np.random.default_rng(1)
    moves, sees = np.eye(8) + np.eye(8, k=4), np.eye(4, 8)
    seen = np.array([100, 80, 0.5, 60]) + random.normal(0, 1, (30, 4)) * [3, 3, 0.01, 2]
    motion, mean = Motion.begun(seen[:1]), np.concatenate([seen[0], np.zeros(4)])

    def noise(height: float, position: float, velocity: float, ratio: float) -> Array:
        first, second = height / 20 * position, height / 160 * velocity
        return np.array([first, first, ratio, first, second, second, 1e-5, second]) ** 2

    covariance = np.diag(noise(seen[0, 3], 2, 10, 1e-2))
    for number, box in enumerate(seen[1:]):
        grown = np.diag(noise(mean[3], 1, 1, 1e-2))
        mean, covariance = moves @ mean, moves @ covariance @ moves.T + grown
        motion.predict(np.array([0]))
        if number % 3:
            spread = sees @ covariance @ sees.T + np.diag(noise(mean[3], 1, 1, 1e-1)[:4])
            gain = covariance @ sees.T @ np.linalg.inv(spread)
            mean, covariance = mean + gain @ (box - sees @ mean), covariance - gain @ spread @ gain.T
            motion.correct(np.array([0]), box[None])
        np.testing.assert_allclose(motion.position[0], mean[:4], rtol=1e-9)
        np.testing.assert_allclose(motion.velocity[0], mean[4:], rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(motion.variance[0], np.diag(covariance)[:4], rtol=1e-7)
        np.testing.assert_allclose(motion.velocity_variance[0], np.diag(covariance)[4:], rtol=1e-7)


def crossing(frames: int = 60) -> Iterator[tuple[int, Array]]:
    """Two boxes that pass each other, one of them hidden for 9 frames where they meet."""
    for frame in range(frames):
        left, right = 5.0 * frame, 300 - 5.0 * frame
        boxes = np.array([[left, 100, left + 40, 180], [right, 124, right + 40, 204]])
        yield frame, boxes[:1] if 26 <= frame < 35 else boxes


def test_objects_that_cross_keep_their_numbers() -> None:
    tracker = ByteTrack(Limits())
    for frame, boxes in crossing():
        found = tracker.update(boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes), int))
        assert found.tolist() == [1, 2][: len(boxes)], frame


def test_a_track_begins_with_a_sure_box_and_goes_on_with_unsure_ones() -> None:
    box, tracker = np.array([[10.0, 10, 50, 90]]), ByteTrack(Limits(high=0.5, begin=0.6))
    seen = [tracker.update(box + number, np.array([score]), np.array([0])).tolist()[0] for number, score in enumerate(
        (0.55, 0.65, 0.55, 0.3, 0.11, 0.05, 0.9)
    )]  # fmt: skip
    # unsure, begins, is confirmed, two of the second round, too unsure, found again
    assert seen == [0, 0, 1, 1, 1, 0, 1]


def test_a_lost_track_ends_and_other_classes_have_other_tracks() -> None:
    box, sure = np.array([[10.0, 10, 50, 90]]), np.array([0.9])
    for gap, number in ((4, 1), (5, 0)):
        tracker = ByteTrack(Limits(lost=3))
        assert tracker.update(box, sure, np.array([0])).tolist() == [1]
        for _ in range(gap - 1):
            tracker.update(box[:0], sure[:0], np.zeros(0, int))
        assert tracker.update(box, sure, np.array([0])).tolist() == [number], gap
    for aware in (True, False):
        tracker = ByteTrack(Limits(class_aware=aware))
        tracker.update(box, sure, np.array([0]))
        assert tracker.update(box, sure, np.array([1])).tolist() == [0 if aware else 1]


def test_numbers_that_are_none_and_too_many_boxes_break_nothing() -> None:
    tracker = ByteTrack(Limits())
    count = MOST + 500
    places = np.stack(np.divmod(np.arange(count), 40), axis=1) * 100.0
    boxes, scores = np.concatenate([places, places + 50], axis=1), np.linspace(0.99, 0.7, count)
    assert np.flatnonzero(tracker.update(boxes, scores, np.zeros(count, int)) == 0).tolist() == [*range(MOST, count)]
    boxes[3, 2], scores[4] = np.nan, np.nan
    boxes[5] = [9, 9, 9, 9]
    found = tracker.update(boxes, scores, np.zeros(count, int))
    assert not found[[3, 4]].any()
    assert found[[0, 1, 2, 6]].tolist() == [1, 2, 3, 7]


# where frames are lost


def part(number: int, pts: Sequence[int], lost: int = 0, segment: int = 0, last: bool = False) -> PartMeta:
    return PartMeta(key=Key(job=JOB, segment=segment, part=number, last=last), media=VIDEO, pts=tuple(pts), lost=lost)


def steps(parts: Sequence[PartMeta], media: MediaInfo = VIDEO) -> list[int]:
    """The numbers of the parts' frames."""
    tracker, none = MediaTracker(TrackOptions(), media), Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    return [tracker.frame for meta in parts for _ in tracker.number(meta, [none] * len(meta.pts))]


@pytest.mark.parametrize(
    ("parts", "numbers"),
    [
        ([part(0, [0, 1, 5, 9]), part(1, [10, 30])], [1, 2, 3, 4, 5, 6]),  # a variable frame rate: a frame is a step
        ([part(0, [0, 1, 5, 6], lost=3)], [1, 2, 6, 7]),
        ([part(0, [0, 1], lost=2), part(1, [4, 5])], [1, 2, 5, 6]),  # lost at the end of the first
        ([part(0, [0, 1]), part(2, [10, 11, 15])], [1, 2, 11, 12, 13]),  # the part between failed
        ([part(0, [0, 1], last=True), part(0, [2, 3], segment=1)], [1, 2, 3, 4]),
        ([part(0, [0, 1], last=True), part(0, [50, 51], segment=2)], [1, 2, 51, 52]),  # a segment failed
        ([part(0, []), part(1, [7, 8])], [1, 2]),
        ([part(0, [0, 1]), part(2, [-40, -39])], [1, 2, 3, 4]),  # forged times
    ],
)
def test_a_frame_is_a_step_and_so_is_a_lost_one(parts: Sequence[PartMeta], numbers: list[int]) -> None:
    assert steps(parts) == numbers


def test_forged_times_and_rates_take_no_time() -> None:
    media = VIDEO.model_copy(update={"frame_rate": (2_000_000_000, 1), "time_base": (1, 1)})
    tracker = MediaTracker(TrackOptions(), media)
    box = Boxes(np.array([[0.0, 0, 40, 40]]), np.array([0.9]), np.array([0]))
    meta = part(0, [10**9 * number for number in range(2000)], lost=1)
    assert [found.tolist() for found in tracker.number(meta, [box] * 2000)] == [[1], *[[0]] * 1999]


def test_a_track_moves_on_while_frames_are_lost() -> None:
    """A box that moves by most of its width a frame is found again behind a gap, and without it is not."""
    speed, media = 12.0, VIDEO

    def box(time: int) -> Boxes:
        return Boxes(np.array([[speed * time, 10, speed * time + 40, 90]]), np.array([0.9]), np.array([0]))

    for lost, number in ((9, 1), (0, 0)):
        tracker = MediaTracker(TrackOptions(), media)
        times = [*range(20), 29]
        meta = part(0, times, lost=lost)
        assert [found.tolist() for found in tracker.number(meta, [box(time) for time in times])][-1] == [number]


# beside another implementation


def reference(high: float) -> Any:
    """ByteTrack of the package supervision 0.27 (MIT), which remembers the box that each track was last seen in."""
    why = "the extra test-models has supervision 0.27"
    tracker = pytest.importorskip("supervision.tracker.byte_tracker.core", reason=why, exc_type=ImportError)
    track = pytest.importorskip("supervision.tracker.byte_tracker.single_object_track").STrack

    class Remembering(track):  # type: ignore[misc, valid-type]
        def update(self, new_track: Any, frame_id: int) -> None:
            self.box = new_track.box
            super().update(new_track, frame_id)

        def re_activate(self, new_track: Any, frame_id: int) -> None:
            self.box = new_track.box
            super().re_activate(new_track, frame_id)

        def __init__(self, tlwh: Array, *rest: Any) -> None:
            super().__init__(tlwh, *rest)
            self.box = self._tlwh.copy()

    tracker.STrack = Remembering
    return tracker.ByteTrack(track_activation_threshold=high, lost_track_buffer=30, frame_rate=30)


def check_beside(high: float, frames: Sequence[tuple[Array, Array]]) -> int:
    """Both give the boxes of a track one number, each its own; how many boxes have one."""
    tracker, other = ByteTrack(Limits(high=high, begin=high + 0.1, class_aware=False)), reference(high)
    named, count = dict[int, int](), 0
    for boxes, scores in frames:
        found = tracker.update(boxes, scores, np.zeros(len(boxes), int))
        expected = np.zeros(len(boxes), int)
        for track in other.update_with_tensors(np.column_stack([boxes, scores])):
            if track.frame_id == other.frame_id:
                expected[np.abs(boxes[:, :2] - track.box[:2]).sum(axis=1).argmin()] = track.internal_track_id + 1
        assert [named.setdefault(number, there) for number, there in zip(found.tolist(), expected, strict=True)] == [
            *expected
        ]
        count += np.count_nonzero(found)
    assert len(set(named.values())) == len(named)
    return count


@pytest.mark.models
def test_tracks_of_boxes_that_move_at_random_are_those_of_another_implementation() -> None:
    count = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        objects = random.integers(2, 14)
        place, speed = random.random((objects, 2)) * [600, 400], random.normal(0, 4, (objects, 2))
        size = 20 + 60 * random.random((objects, 2))
        frames = []
        for _ in range(120):
            speed += random.normal(0, 0.3, (objects, 2))
            place = place + speed + random.normal(0, 1, (objects, 2))
            seen = random.random(objects) > 0.12
            boxes = np.concatenate([place, place + size + random.normal(0, 1, (objects, 2))], axis=1)[seen]
            scores = np.clip(random.normal(0.7, 0.25, objects), 0.02, 0.99)[seen]
            order = np.argsort(-scores)
            frames.append((boxes[order], scores[order]))
        count += check_beside(0.5, frames)
    assert count > 5_000


@pytest.mark.models
@pytest.mark.parametrize("clip", ["bikes", "carphone_pristine"])
def test_tracks_of_a_real_clip_are_those_of_another_implementation(clip: str) -> None:
    from tests import plain_models
    from tests.weights import weights

    run = plain_models.session(weights("nanodet_g_416.onnx"))
    frames = []
    for rgb in plain_models.rgb_of(real_clip(clip), set(range(0, 250, 3))).values():
        found = plain_models.nanodet(run, rgb)
        boxes, scores = [box for box, _, _ in found], [score for _, score, _ in found]
        frames.append((np.array(boxes).reshape(-1, 4), np.array(scores)))
    assert check_beside(0.25, frames) > 50
