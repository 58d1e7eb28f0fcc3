"""The model `fingerprint`, against plain NumPy and on real clips."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines.part import Array
from tests.clips import real_clip
from tests.unit.builtin import CLIPS, cosine, run, windows


def fingerprint_by_hand(pixels: Array) -> Array:
    """The formula of docs/models.md, frequency by frequency."""
    place = np.arange(32)
    answers = np.zeros((len(pixels), 64))
    for window, images in enumerate(pixels.astype(float)):
        for image in images:
            balanced = np.zeros((8, 8))
            for u in range(8):
                for v in range(8):
                    down, across = (np.cos(np.pi * f * (2 * place + 1) / 64) for f in (u, v))
                    scale = np.sqrt((1 if u == 0 else 2) * (1 if v == 0 else 2)) / 32
                    balanced[u, v] = np.hypot(u, v) * scale * (down @ image @ across) / 32
            balanced[0, 0] = 1.0
            answers[window] += balanced.ravel() / np.linalg.norm(balanced)
    return answers / np.linalg.norm(answers, axis=1, keepdims=True)


@settings(max_examples=20)
@given(count=st.integers(1, 3), length=st.integers(1, 6), spread=st.integers(0, 127), seed=st.integers(0, 99))
@example(count=1, length=1, spread=0, seed=0)
def test_fingerprint_is_its_formula(count: int, length: int, spread: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(128 - spread, 129 + spread, (count, length, 32, 32)).astype(np.uint8)
    answer = run("fingerprint")(pixels)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, fingerprint_by_hand(pixels), atol=3e-5)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-6)


def reencoded(source: Path, target: Path, codec: str, scale: float, **options: str) -> Path:
    """The picture of `source`, coded anew."""
    with av.open(source) as old, av.open(target, "w") as new:
        stream = old.streams.video[0]
        stream.thread_type = "NONE"
        video = new.add_stream(codec, rate=stream.average_rate, options=options)
        video.width, video.height = (int(size * scale) // 2 * 2 for size in (stream.width, stream.height))
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for frame in old.decode(stream):
            small = reformatter.reformat(frame, width=video.width, height=video.height, format="yuv420p")
            small.pict_type = 0
            new.mux(video.encode(small))
        new.mux(video.encode())
    return target


RECODINGS = {
    "low.mp4": ("libx264", 1.0, {"crf": "38", "preset": "ultrafast"}),
    "small.mkv": ("libx264", 0.25, {"crf": "30", "preset": "veryfast"}),
    "half.avi": ("mpeg4", 0.5, {"b": "200k"}),
    "third.webm": ("libvpx-vp9", 0.375, {"crf": "45", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_descriptors_survive_another_bitrate_size_codec_and_container(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = run("fingerprint")(windows(real_clip(clip)))
    least = {}
    for name, (codec, scale, options) in RECODINGS.items():
        copy = windows(reencoded(real_clip(clip), tmp_path / name, codec, scale, **options))
        least[name] = cosine(original, run("fingerprint")(copy)).min()
    with capsys.disabled():
        print(f"\n{clip}, least cosine of a window with its copy:", *(f"{k} {v:.4f}" for k, v in least.items()))
    assert min(least.values()) > 0.98


def test_descriptors_of_different_clips_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [run("fingerprint")(windows(real_clip(clip))) for clip in CLIPS]
    between = np.concatenate([(answers[a] @ answers[b].T).ravel() for a, b in ((0, 1), (0, 2), (1, 2))])
    with capsys.disabled():
        print(f"\nwindows of different clips, cosine: mean {between.mean():.2f}, highest {between.max():.2f}")
    assert between.max() < 0.6
    assert abs(between.mean()) < 0.2


def test_descriptors_do_not_mind_brightness_and_contrast() -> None:
    for clip in CLIPS:
        pixels = windows(real_clip(clip))
        changed = np.rint(pixels * 0.7 + 30).astype(np.uint8)
        assert cosine(run("fingerprint")(pixels), run("fingerprint")(changed)).min() > 0.995


def test_a_still_picture_has_one_descriptor_however_long_it_is_shown() -> None:
    still = windows(real_clip("bikes"))[:1, :1]
    answers = [run("fingerprint")(still.repeat(length, axis=1)) for length in (1, 5)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_flat_pictures_are_alike_and_unlike_any_other() -> None:
    black, white = np.zeros((1, 5, 32, 32), np.uint8), np.full((1, 5, 32, 32), 255, np.uint8)
    noisy = black + np.random.default_rng(0).integers(0, 2, black.shape, dtype=np.uint8)
    flat = [run("fingerprint")(each) for each in (black, white, noisy)]
    assert cosine(flat[0], flat[1]) > 0.9999
    assert cosine(flat[0], flat[2]) > 0.9
    assert cosine(flat[0], run("fingerprint")(windows(real_clip("bikes")))).max() < 0.2
