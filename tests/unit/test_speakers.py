"""Speakers: bands of sound, voices by a small network, clusters, and segments cut where the speaker changes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.operators.speakers import Speakers
from engines.outputs import speakers
from engines.outputs.speakers import labels_of
from engines.part import Part, no_tick
from engines.ragged import Ragged
from engines.speech.bands import bands_of
from engines.speech.voices import SCALE, spans_of
from schemas.errors import MediaError, ModelError, OutputError, PipelineError
from schemas.model import BandsSpec, ModelSpec, TensorSpec
from schemas.pipeline import OperatorStage
from tests.speech import RATE, sound_part
from tests.unit.outputs_parts import assemble, format_of
from tests.unit.test_outputs_transcript import LABELS, MEDIA, part_of

MEL = BandsSpec(kind="mel", level_db=-30)
FBANK = BandsSpec(kind="fbank", window="hamming", gain=32768, centre=True)
STAGE = OperatorStage(kind="speakers", name="speakers", model="voices", max_batch=4)


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def network(length: int | str = "T", bands: int = 40, spec: BandsSpec = MEL) -> tuple[ModelSpec, OnnxRuntimeSession]:
    """The mean of the rows, through a fixed matrix to 8 numbers."""
    weights = np.eye(bands, 8, dtype=np.float32) + np.eye(bands, 8, -8, np.float32) + np.eye(bands, 8, -16, np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voices",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["n", length, bands])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    body = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    card = ModelSpec(
        name="voices",
        inputs=(TensorSpec(name="mel", dtype="float32", shape=("n", length, bands), bands=spec),),
        outputs=(TensorSpec(name="embedding", dtype="float32", shape=("n", 8)),),
        sha256="0" * 64,
    )
    return card, OnnxRuntimeSession(body, card)


def test_bands_peak_where_a_tone_is() -> None:
    """The band of a tone by each scale; a quiet tone is made louder; bands of Kaldi have no mean."""
    mel, fbank = bands_of(tone(1000, 1), MEL, 40), bands_of(tone(1000, 1), BandsSpec(kind="fbank"), 80)
    assert (mel.shape, fbank.shape) == ((101, 40), (98, 80))
    assert set(mel[2:-2].argmax(axis=1)) == {13}
    assert set(fbank.argmax(axis=1)) == {27}
    assert np.allclose(bands_of(tone(300, 1) / 1000, MEL, 40), bands_of(tone(300, 1) / 100, MEL, 40), rtol=1e-4)
    assert np.abs(bands_of(tone(300, 1), FBANK, 80).mean(axis=0)).max() < 1e-4
    for sound in (np.zeros(0, np.float32), np.zeros(1, np.float32), np.zeros(9000, np.float32)):
        for spec in (MEL, FBANK):
            found = bands_of(sound, spec, 40 if spec is MEL else 80)
            assert len(found) >= 1
            assert np.isfinite(found).all()


def test_windows_cover_a_run() -> None:
    assert spans_of(10, 10, 5) == [(0, 10)]
    assert spans_of(3, 10, 5) == [(0, 3)]
    assert spans_of(20, 10, 5) == [(0, 10), (5, 15), (10, 20)]
    assert spans_of(22, 10, 5) == [(0, 10), (5, 15), (10, 20), (12, 22)]


def chunk_part(*runs: tuple[float, np.ndarray]) -> Part:
    """One chunk of runs of speech that begin at these seconds."""
    sound = np.concatenate([each for _, each in runs])
    pieces = np.array([[start, start + len(each) / RATE] for start, each in runs])
    return sound_part([sound], [runs[0][0]], pieces=Ragged.of([pieces]))


@pytest.mark.parametrize("length", ["T", 160])
def test_voices_of_a_chunk_are_those_of_its_windows(length: int | str) -> None:
    """Times on the media's clock; no window has two runs; the same vectors whatever is computed at a time."""
    card, session = network(length)
    part = chunk_part((10.0, tone(300, 2.25)), (20.0, tone(1500, 1.0)), (30.0, np.zeros(8000, np.float32)))
    made = []
    for batch in (1, 4, 64):
        stage = STAGE.model_copy(update={"max_batch": batch})
        [found] = Speakers(stage, card).run([part], session, no_tick)
        assert isinstance(found, Part)
        assert set(found.arrays) == {"sound", "pieces", "voices", "heard"}
        assert found.arrays["heard"].row(0).tolist() == [[10, 11.5], [10.75, 12.25], [20, 21], [30, 30.5]]
        made.append(found.arrays["voices"].row(0))
    assert all(np.array_equal(each, made[0]) for each in made)
    assert np.abs(np.linalg.norm(made[0][:3].astype(float), axis=1) / SCALE - 1).max() < 1e-3
    assert not made[0][3].any() or length == "T"
    cosines = made[0].astype(float) @ made[0].astype(float).T / SCALE**2
    assert cosines[0, 1] > 0.99
    assert cosines[0, 2] < 0.5


def test_parts_and_models_that_do_not_fit_are_refused() -> None:
    card, session = network()
    [found] = Speakers(STAGE, card).run([sound_part([tone(300, 1)])], session, no_tick)
    assert isinstance(found, MediaError)
    other = card.model_copy(update={"inputs": (card.inputs[0].model_copy(update={"bands": None}),)})
    with pytest.raises(ModelError, match="no network of speakers"):
        Speakers(STAGE, other)
    with pytest.raises(PipelineError, match="runs no model"):
        Speakers(STAGE.model_copy(update={"model": None}), None)


def voices(*centres: int, noise: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = np.eye(16)[list(centres)] + rng.normal(0, noise / 4, (len(centres), 16))
    return np.rint(made / np.linalg.norm(made, axis=1, keepdims=True) * SCALE).astype(np.int16)


def test_clusters_of_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbered by first speech; a few odd windows join others; a known number; many are compared by groups."""
    pattern = [3] * 6 + [1] * 5 + [3] * 2 + [2] * 7 + [1]
    wanted = [0] * 6 + [1] * 5 + [0] * 2 + [2] * 7 + [1]
    given = voices(*pattern)
    assert labels_of(given, 0.6).tolist() == wanted
    assert len(set(labels_of(given, 0.6, 2).tolist())) == 2
    assert labels_of(given, -1).tolist() == [0] * len(given)
    assert labels_of(voices(3, 3, 3, 3, 3, 7, 3), 0.6).tolist() == [0] * 7
    assert labels_of(voices(3), 0.6).tolist() == [0]
    assert labels_of(np.zeros((4, 16), np.int16), 0.6).tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(speakers, "_AT_ONCE", 5)
    assert labels_of(given, 0.6).tolist() == wanted
    assert len(set(labels_of(given, 0.6, 2).tolist())) == 2


def with_voices(part: Part, *heard: tuple[float, float, int]) -> Part:
    """A part with the voices of windows (from, to, centre), all in its first chunk."""
    count = len(part.meta.pts)
    offsets = np.array([0, *[len(heard)] * count], np.int64)
    seconds = np.array([each[:2] for each in heard], np.float64).reshape(-1, 2)
    vectors = voices(*(each[2] for each in heard)) if heard else np.zeros((0, 16), np.int16)
    return part.with_arrays({**part.arrays, "voices": Ragged(vectors, offsets), "heard": Ragged(seconds, offsets)})


def test_segments_are_cut_where_the_speaker_changes(tmp_path: Path) -> None:
    """In two parts; the second speaker of one is the first of the other."""
    first = with_voices(part_of((0.0, " One two <three> four.", 0)), (0, 0.9, 5), (1.0, 2.0, 2))
    second = with_voices(part_of((9.0, " Five.", 0), (12.0, "", 0), number=1), (9.0, 9.5, 2))
    options: dict[str, Any] = {"files": "srt, vtt, txt, tsv, json", "alike": 0.6}
    files = assemble(format_of("transcript", LABELS, **options), tmp_path / "a", MEDIA, [first, second])
    found = {path.suffix[1:]: path.read_text() for path in files}
    assert found["srt"] == (
        "1\n00:00:00,000 --> 00:00:01,000\nspeaker 1: One two\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nspeaker 2: <three> four.\n\n"
        "3\n00:00:09,000 --> 00:00:09,500\nFive.\n\n"
    )
    assert found["vtt"].count("<v speaker 2>") == 2
    assert "<v speaker 1>One two\n" in found["vtt"]
    assert "<v speaker 2>&lt;three&gt; four.\n" in found["vtt"]
    assert found["txt"] == "speaker 1: One two\nspeaker 2: <three> four.\nspeaker 2: Five.\n"
    assert found["tsv"].splitlines()[:2] == ["start\tend\ttext\tspeaker", "0\t1000\tOne two\tspeaker 1"]
    segments = json.loads(found["json"])["segments"]
    assert [(each["speaker"], each["start"], each["end"], len(each["words"])) for each in segments] == [
        ("speaker 1", 0.0, 1.0, 2),
        ("speaker 2", 1.0, 2.0, 2),
        ("speaker 2", 9.0, 9.5, 1),
    ]


def test_a_chunk_without_words_has_the_speaker_of_most_of_it(tmp_path: Path) -> None:
    part = with_voices(part_of((0.0, " a b c d", 0), words=False), (0, 0.5, 5), (0.6, 1.1, 2), (1.2, 2, 2))
    [path] = assemble(format_of("transcript", LABELS, files="txt"), tmp_path / "a", MEDIA, [part])
    assert path.read_text() == "speaker 2: a b c d\n"
    silent = with_voices(part_of((0.0, " a", 0)))
    [path] = assemble(format_of("transcript", LABELS, files="txt"), tmp_path / "b", MEDIA, [silent])
    assert path.read_text() == "a\n"


def test_forged_voices_are_refused(tmp_path: Path) -> None:
    given = with_voices(part_of((0.0, " a", 0)), (0, 1, 5))
    arrays = dict(format_of("transcript", LABELS).encode(given).arrays)
    for change in (
        {"voices": np.zeros((1, 16), np.float32)},
        {"heard": np.zeros((2, 2))},
        {"heard": np.array([[0, np.nan]])},
        {"voices": np.zeros(3, np.int16)},
    ):
        assembler = format_of("transcript", LABELS).assemble(tmp_path / "a", MEDIA)
        with pytest.raises(OutputError, match="voices of another form"):
            assembler.add(given.meta, arrays | change, {})
        assembler.abort()
    assert not list(tmp_path.iterdir())
