"""The model `lanczos2x`, against plain NumPy and on real clips."""

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines.part import Array
from tests.clips import real_clip
from tests.unit.builtin import CLIPS, run


def lanczos_by_hand(plane: Array) -> Array:
    """`[H, W]` -> `[2H, 2W]` float64, not yet rounded."""

    def doubled(rows: Array) -> Array:
        padded = np.pad(rows, ((0, 0), (3, 3)), "edge")
        out = np.zeros((len(rows), 2 * rows.shape[1]))
        for phase, centre in enumerate((-0.25, 0.25)):
            distances = centre - np.arange(-3, 4)
            weights = [np.sinc(d) * np.sinc(d / 3) if abs(d) < 3 else 0.0 for d in distances]
            for tap, weight in enumerate(weights):
                out[:, phase::2] += weight / sum(weights) * padded[:, tap : tap + rows.shape[1]]
        return out

    return doubled(doubled(plane.astype(float)).T).T


@settings(max_examples=40)
@given(
    count=st.integers(1, 3),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    binary=st.booleans(),
    seed=st.integers(0, 99),
)
@example(count=1, height=1, width=1, binary=True, seed=0)
@example(count=2, height=16, width=33, binary=True, seed=1)
def test_lanczos_is_its_formula(count: int, height: int, width: int, binary: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 256, (count, height, width), dtype=np.uint8)
    planes = (planes // 128 * 255).astype(np.uint8) if binary else planes  # the ringing of edges is clipped
    answer = run("lanczos2x")(planes)
    assert answer.dtype == np.uint8
    expected = np.clip([lanczos_by_hand(plane) for plane in planes], 0, 255)
    assert np.abs(answer - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("clip", CLIPS)
def test_lanczos_is_within_rounding_of_the_float_reference(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    with av.open(real_clip(clip)) as container:
        frame = next(container.decode(video=0))
        luma = frame.reformat(format="gray").to_ndarray()
    answer = run("lanczos2x")(luma[None])[0]
    psnr = 10 * np.log10(255**2 / np.mean((np.clip(lanczos_by_hand(luma), 0, 255) - answer) ** 2))
    with capsys.disabled():
        print(f"\n{clip}, upscaled luma against float64: {psnr:.1f} dB")
    assert psnr > 58  # rounding alone leaves 58.9


def test_lanczos_keeps_flat_pictures_flat() -> None:
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(5, axis=1).repeat(21, axis=2)
    np.testing.assert_array_equal(run("lanczos2x")(levels), levels.repeat(2, axis=1).repeat(2, axis=2))
