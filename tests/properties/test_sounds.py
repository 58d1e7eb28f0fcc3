"""However a file of sound is made and cut, its windows are those of one pass."""

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.grid import Grid
from schemas.model import SoundSpec, TensorSpec
from tests.sounds import begins, decoded, file_of, joined, voice

CODECS = {  # rates at which each encodes
    ("wav", "pcm_s16le"): (8000, 11025, 44100, 96000),
    ("matroska", "flac"): (16000, 44100),
    ("mp3", "libmp3lame"): (8000, 22050, 44100),
    ("ogg", "libopus"): (16000, 48000),
    ("matroska", "libopus"): (48000,),
    ("mp4", "aac"): (16000, 44100),
    ("ogg", "vorbis"): (44100,),
    ("asf", "wmav2"): (22050,),
    ("mpegts", "aac"): (44100,),
}
FILES = st.sampled_from(sorted(CODECS)).flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.sampled_from(CODECS[kind]), st.sampled_from([0.3, 20.0, 23.7]), st.booleans()
    )
)


@cache
def made(kind: tuple[str, str], rate: int, seconds: float, stereo: bool) -> bytes:
    channels = 2 if stereo or kind[1] == "vorbis" else 1
    return file_of(voice(seconds, rate, channels=channels), rate, *kind, 64000)


@settings(max_examples=5)
@given(
    file=FILES,
    rate=st.sampled_from([8000, 16000, 22050]),
    window_s=st.sampled_from([0.032, 0.975, 6.5, 25.0]),
    reach=st.sampled_from([0.0, 0.2, 0.49]),
    segment_s=st.sampled_from([0.1, 21.0]),
)
def test_windows_of_sound(
    file: tuple[tuple[str, str], int, float, bool], rate: int, window_s: float, reach: float, segment_s: float
) -> None:
    data = made(*file)
    options = {"rate": rate, "window_s": window_s, "reach_s": round(reach * window_s, 3)}
    one = decoded(data, segment_s=1000.0, **options)
    assert len({part.meta.key.segment for part in one}) == 1
    cut = decoded(data, segment_s=segment_s, **options)
    assert begins(cut) == begins(one)
    np.testing.assert_array_equal(joined(cut), joined(one))
    assert len(joined(cut)) == one[0].meta.media.end - one[0].meta.media.origin
    for name in ("frames", "lost"):
        assert sum(getattr(part.meta, name) for part in cut) == sum(getattr(part.meta, name) for part in one)


@settings(max_examples=4)
@given(
    file=FILES,
    spec=st.builds(
        SoundSpec,
        rate=st.sampled_from([8000, 16000]),
        samples=st.sampled_from([512, 15600, 400_000]),
        context=st.integers(0, 700),
    ),
    warm_up=st.sampled_from([0, 1, 40]),
    segment_s=st.sampled_from([0.1, 21.0]),
)
def test_windows_of_models(
    file: tuple[tuple[str, str], int, float, bool], spec: SoundSpec, warm_up: int, segment_s: float
) -> None:
    """Each has its context in front, and a segment those of its warm-up; the reference cuts the whole sound."""
    data, name = made(*file), "sound@vad.x"
    tensor = TensorSpec(name="x", dtype="float32", shape=("N", 1, spec.width), sound=spec)
    options = {"rate": spec.rate, "samples": spec.samples, "context": spec.context}
    sound = joined(decoded(data, segment_s=1000.0, rate=spec.rate, window_s=30.0))
    count = -(-len(sound) // spec.samples)
    padded = np.zeros(spec.context + count * spec.samples, np.float32)
    padded[spec.context :][: len(sound)] = sound
    parts = decoded(data, segment_s, {name: tensor}, grid=Grid(warm_up=warm_up), **options)
    seen = []
    for part in parts:
        rows = part.arrays[name]
        assert rows.shape == (len(part.meta.pts), 1, spec.width)
        for row, pts in zip(rows, part.meta.pts, strict=True):
            at = pts - part.meta.media.origin
            np.testing.assert_array_equal(row[0], padded[at : at + spec.width])
        seen += begins([part])[part.meta.warm_up :]
        assert set(part.arrays) == {name}
    assert seen == [number * spec.samples for number in range(count)]
