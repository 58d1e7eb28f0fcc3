"""The model `shotchange`, against plain NumPy and on real clips."""

import numpy as np
import pytest

from engines.part import Array
from tests.clips import real_clip
from tests.unit.builtin import CLIPS, frames, pairs, run

BIKES_CUTS = (29, 75, 136, 186, 241)  # seen with one's own eyes: the last frame of each shot


def shotchange_by_hand(pixels: Array) -> Array:
    """The formula of docs/models.md, histogram by histogram."""
    scores = []
    for window in pixels.astype(float):
        red, green, blue = np.moveaxis(window.reshape(2, 18, 5, 32, 5, 3).mean((2, 4)), 3, 0)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = [127.5 + (blue - luma) / 1.772, 127.5 + (red - luma) / 1.402]
        colour = 0.0
        for share, channel in zip((0.5, 0.25, 0.25), (luma, *chroma), strict=True):
            for y in range(0, 18, 6):
                for x in range(0, 32, 8):
                    region = channel[:, y : y + 6, x : x + 8].reshape(2, -1) * 7 / 255
                    bins = np.maximum(0, 1 - np.abs(region[:, None] - np.arange(8)[:, None])).mean(2)
                    colour += share / 12 * np.abs(bins[0] - bins[1]).sum() / 2
        a, b = (each - each.mean() for each in luma * 7 / 255)
        structure = 1 - (2 * (a * b).mean() + 0.003) / ((a * a).mean() + (b * b).mean() + 0.003)
        scores.append(1 / (1 + np.exp(-(np.sqrt(colour * np.clip(structure, 0, 1)) - 0.32) / 0.03)))
    return np.array(scores)


def test_shotchange_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    images = np.concatenate([frames(real_clip(clip), (90, 160), "rgb24")[0][::9] for clip in CLIPS])
    mixed = np.stack([rng.permutation(images)[:24], rng.permutation(images)[:24]], axis=1)
    noise = rng.integers(0, 256, (4, 2, 90, 160, 3), dtype=np.uint8)
    for pixels in (mixed, noise, pairs("bikes")[20:40]):
        np.testing.assert_allclose(run("shotchange")(pixels), shotchange_by_hand(pixels), atol=2e-4)


def test_shotchange_finds_the_cuts_of_a_real_clip_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {clip: run("shotchange")(pairs(clip)) for clip in CLIPS}
    cuts = np.flatnonzero(scores["bikes"] > 0.3)
    within = [*np.delete(scores["bikes"], BIKES_CUTS), *scores["bigbuckbunny"], *scores["carphone_pristine"]]
    with capsys.disabled():
        print(f"\nshot changes: least on a cut {scores['bikes'][cuts].min():.3f}, highest elsewhere {max(within):.3f}")
    assert cuts.tolist() == list(BIKES_CUTS)
    assert scores["bikes"][cuts].min() > 0.9
    assert max(within) < 0.1


def score_of(first: Array, second: Array) -> float:
    return float(run("shotchange")(np.stack([first, second])[None])[0])


def test_shotchange_sees_every_cut_between_clips() -> None:
    shots = [frames(real_clip(clip), (90, 160), "rgb24")[0] for clip in CLIPS]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        assert min(score_of(x, y) for x in shots[a][::30] for y in shots[b][::30]) > 0.9
        assert score_of(np.zeros_like(shots[a][0]), shots[b][0]) > 0.9


def test_shotchange_takes_motion_flicker_and_noise_for_one_shot() -> None:
    frame = frames(real_clip("bikes"), (90, 160), "rgb24")[0][40]
    noise = np.random.default_rng(0).normal(0, 15, frame.shape)
    for changed in (frame * 1.25 + 15, frame * 1.8 + 60, frame * 0.5, frame + noise, np.roll(frame, 12, axis=1)):
        assert score_of(frame, np.clip(changed, 0, 255).astype(np.uint8)) < 0.2
    assert score_of(frame, frame) < 1e-4
