"""The model `simulated`: answers that can be checked, in the time it was told to take, without work."""

import time
import zlib

import numpy as np
import pytest
from rigflow_simulated import CARD, SimulatedSession

from schemas.errors import ModelError


def test_it_answers_each_row_with_its_checksum_whatever_the_pace() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 6), np.uint8)
    expected = [zlib.crc32(row.tobytes()) for row in pixels]
    for pace_ms in (0.0, 1.0):
        answers = SimulatedSession(CARD, pace_ms).run({"pixels": pixels})["crc32"]
        assert answers.dtype == np.uint32
        assert answers.tolist() == expected
    turned = np.asfortranarray(pixels)
    assert SimulatedSession(CARD, 0.0).run({"pixels": turned})["crc32"].tolist() == expected


def test_it_takes_its_time_for_each_row_and_no_cpu() -> None:
    session = SimulatedSession(CARD, 20.0)
    started, used = time.monotonic(), time.thread_time()
    session.run({"pixels": np.zeros((5, 4, 4), np.uint8)})
    assert time.monotonic() - started >= 0.1
    assert time.thread_time() - used < 0.05


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ModelError, match="got no input `pixels`"):
        SimulatedSession(CARD, 0.0).run({})
    with pytest.raises(ModelError, match=r"expected uint8 \[N, H, W\], found float32 \[1, 2, 3\]"):
        SimulatedSession(CARD, 0.0).run({"pixels": np.zeros((1, 2, 3), np.float32)})
