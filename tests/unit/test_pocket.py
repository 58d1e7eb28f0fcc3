"""A Pocket TTS, a sound and a consent become a model, which speaks as the published networks do."""

import itertools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st

from engines.content import ModelFiles
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder, save_model
from engines.models.cloning import cloned, reference_sound
from engines.models.proposal import propose
from engines.models.store import find, new_files
from engines.operators.speak import Speak
from engines.speaking.phonemes import symbols_of
from engines.speaking.pieces import split
from engines.speaking.voice import Manner, speak
from schemas.errors import PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage
from schemas.speech import SpeechSpec
from tests.cli import rigflow
from tests.pockets import LATENT, PIECES, RATE, SCORES, SPACE, STEPS, WIDTH, five_sessions, write_pocket
from tests.zipvoices import reference, write_wav

CONSENT = b"I, Ada, allow it. 2026-11-28"
LONG = "The good world, he told the world. "


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def things(folder: Path, end: int = 30) -> tuple[Path, Path, str, Path]:
    """A Pocket TTS, a sound, no words and a consent."""
    (folder / "ada.txt").write_bytes(CONSENT)
    return write_pocket(folder / "pocket", end), write_wav(folder / "ada.wav", reference()), "", folder / "ada.txt"


def added(pocket: Path, sound: Path, words: str, consent: Path) -> tuple[ModelSpec, OnnxRuntimeSession]:
    """The model as `rigflow model add` keeps it, and as a worker opens it."""
    with new_files() as new:
        found, fields = cloned(pocket, sound, words, consent, new)
        card = propose(found.path, found.content, found.name).changed(fields, "").card()
        kept = save_model(models_folder(), card.model_copy(update={"files": found.taken.files}), found.content)
    spec, content = load_model(kept)
    assert isinstance(content, ModelFiles)
    assert [(content.folder / file.sha256).read_bytes() for file in content.files] == [CONSENT]
    return spec, OnnxRuntimeSession(content, spec)


def spoken(
    session: OnnxRuntimeSession, spec: ModelSpec, numbers: list[int], steps: int = STEPS, seed: int = 0
) -> np.ndarray:
    assert spec.speech is not None
    return speak(session, spec.speech, numbers, Manner(noise=spec.speech.noise, steps=steps, seed=seed, trim=False))


@pytest.mark.parametrize(
    ("end", "text", "after"),
    [
        (30, "the good world, hello world he said", 3),  # the decoder gets one run of 10 frames
        (60, LONG * 2, 3),
        (14, "hello", 5),  # few words, and spaces in front of them
        (1, "the world and the good day or", 3),  # it ends at once
        (10_000, "good day good day good", 3),  # it does not end
    ],
)
def test_the_sound_is_that_of_the_published_networks(end: int, text: str, after: int, tmp_path: Path) -> None:
    folder, sound, words, consent = things(tmp_path, end)
    spec, session = added(folder, sound, words, consent)
    speech = spec.speech
    assert speech is not None
    assert [tensor.name for tensor in spec.inputs] == ["symbols", "noise", "steps", "draw"]
    assert (spec.name, speech.rate, speech.alphabet, speech.steps) == ("pocket-ada", RATE, "pieces", 1)
    [numbers] = symbols_of(text, speech, "")
    most = int(np.ceil((len(numbers) / 3 + 2) * 12.5))
    expected = five_sessions(folder, reference_sound(sound, RATE), numbers, after, most)
    made = spoken(session, spec, numbers)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_seed_is_heard_and_the_same_seed_is_the_same_sound(tmp_path: Path) -> None:
    spec, session = added(*things(tmp_path))
    assert spec.speech is not None
    [numbers] = symbols_of("hello the good world day", spec.speech, "")
    seeds = [spoken(session, spec, numbers, 3, seed) for seed in (0, 0, 1)]  # in 3 steps random numbers are heard
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert np.abs(seeds[0] - seeds[2]).max() > 1e-3


def test_other_names_with_a_sentencepiece_model_and_a_bundle(tmp_path: Path) -> None:
    folder, sound, words, consent = things(tmp_path)
    plain, session = added(folder, sound, words, consent)
    assert plain.speech is not None
    other = tmp_path / "english" / "onnx"
    shutil.copytree(folder, other)
    renamed = {"lm_main": "flow_lm_main_int8", "lm_flow": "flow_lm_flow_int8", "encoder": "mimi_encoder"}
    for name, new in {**renamed, "decoder": "mimi_decoder_int8"}.items():
        (other / f"{name}.onnx").rename(other / f"{new}.onnx")
    for name in ("vocab.json", "token_scores.json"):
        (other / name).unlink()
    (other.parent / "tokenizer.model").write_bytes(sentencepiece_model())
    spec, same = added(other.parent, sound, words, consent)
    assert spec.speech is not None
    assert spec.speech.scores == pytest.approx(plain.speech.scores)
    assert (spec.speech.symbols, spec.speech.padded) == (plain.speech.symbols, True)
    [numbers] = symbols_of("hello the good world", spec.speech, "")
    np.testing.assert_array_equal(spoken(same, spec, numbers), spoken(session, plain, numbers))
    np.save(other / "bos.npy", np.full((1, 1, WIDTH), 0.5, np.float32))
    bundle = {"bos_before_voice_file": "bos.npy", "default_temperature": 0.25, "max_token_per_chunk": 40}
    (other / "bundle.json").write_text(json.dumps({**bundle, "model_recommended_frames_after_eos": 7}))
    newer, third = added(other / "flow_lm_main_int8.onnx", sound, words, consent)
    assert newer.speech is not None
    assert (newer.speech.noise[0], newer.speech.most, newer.speech.padded) == (0.5, 40, False)
    made, before = spoken(third, newer, numbers), spoken(session, plain, numbers)
    # the voice is one place longer, so the end is one frame earlier; and 7 frames follow it instead of 5
    assert len(made) - len(before) == (7 - 5 - 1) * 1920


def sentencepiece_model() -> bytes:
    """A file of SentencePiece with the tiny vocabulary: its pieces, and a setting that no code reads."""
    made = b""
    for piece in PIECES:
        kind = 6 if piece.startswith("<0x") else 2 if piece == "<unk>" else 3 if piece in ("<s>", "</s>") else 1
        body = piece.encode()
        body = (
            b"\x0a" + bytes([len(body)]) + body + b"\x15" + struct.pack("<f", SCORES[piece]) + b"\x18" + bytes([kind])
        )
        made += b"\x0a" + bytes([len(body)]) + body
    return made + b"\x12\x03\x18\xa0\x1f"


SPEECH = SpeechSpec(
    rate=RATE, alphabet="pieces", symbols={piece: (n,) for n, piece in enumerate(PIECES)}, scores=SCORES, most=20
)


@given_by(st.text(alphabet=[*"etaohlwdgr.,", SPACE, "é"], max_size=9))
def test_a_text_is_split_into_the_pieces_with_the_largest_sum(text: str) -> None:
    found = [PIECES[number] for number in split(text, SPEECH)]
    assert b"".join(bytes([int(p[3:5], 16)]) if p.startswith("<0x") else p.encode() for p in found).decode() == text
    best = -np.inf
    for cuts in itertools.product((False, True), repeat=max(0, len(text) - 1)):
        edges = [0, *(n + 1 for n, cut in enumerate(cuts) if cut), len(text)]
        parts = [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
        if all(part in SCORES or part == "é" for part in parts):
            best = max(best, sum(SCORES["<0xC3>"] + SCORES["<0xA9>"] if p == "é" else SCORES[p] for p in parts))
    assert sum(SCORES[piece] for piece in found) == pytest.approx(best)


@given_by(st.lists(st.sampled_from(["the", "good", "world,", "hello", "day.", "wé", "x" * 60, "--"]), max_size=40))
def test_sentences_are_cut_into_pieces_that_fit_and_nothing_is_lost(words: list[str]) -> None:
    chunks = symbols_of(" ".join(words), SPEECH, "")
    assert all(0 < len(chunk) <= SPEECH.most for chunk in chunks)
    read = b"".join(
        bytes([int(p[3:5], 16)]) if p.startswith("<0x") else p.encode()
        for c in chunks
        for p in map(PIECES.__getitem__, c)
    )
    letters = "".join(each for each in read.decode().casefold() if each.isalnum())
    spoken_words = words if any(any(map(str.isalnum, word)) for word in words) else []
    assert letters == "".join(each for word in spoken_words for each in word if each.isalnum())


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "decoder": (lambda at: at.joinpath("pocket", "decoder.onnx").unlink(), "is a Pocket TTS without decoder.onnx"),
    "vocabulary": (lambda at: at.joinpath("pocket", "vocab.json").unlink(), "without vocab.json and token_scores.json"),
    "scores": (lambda at: at.joinpath("pocket", "token_scores.json").write_text("{}"), "are no vocabulary"),
    "torn": (lambda at: at.joinpath("pocket", "lm_flow.onnx").write_bytes(b"no graph"), "lm_flow.onnx"),
    "mixed": (
        lambda at: at.joinpath("pocket", "decoder.onnx").write_bytes((at / "pocket/encoder.onnx").read_bytes()),
        "decoder.onnx takes 1 inputs and gives 1 outputs, as none of a Pocket TTS does",
    ),
    "encoder": (
        lambda at: at.joinpath("pocket", "encoder.onnx").write_bytes(
            (at / "pocket/text_conditioner.onnx").read_bytes()
        ),
        "does not read the sound of a voice",
    ),
    "bundle": (
        lambda at: at.joinpath("pocket", "bundle.json").write_text('{"samples_per_frame": 320}'),
        "bundle.json is no bundle of a Pocket TTS: 320 samples a frame at 24000 Hz, not 1920 at 24000",
    ),
    "silent": (lambda at: _silence(at), "ada.wav is silent, or nearly so"),
    "blank": (lambda at: at.joinpath("ada.txt").write_bytes(b""), "ada.txt is empty: write in it who allows what"),
}


def _silence(folder: Path) -> None:
    write_wav(folder / "ada.wav", np.zeros(48000))


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_used_is_a_line(name: str, tmp_path: Path) -> None:
    given = things(tmp_path)
    change, said = CASES[name]
    change(tmp_path)
    with pytest.raises(RigflowError) as raised, new_files() as new:
        cloned(*given, new)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_damaged_tokenizers_are_a_line(tmp_path: Path) -> None:
    folder, sound, words, consent = things(tmp_path)
    (folder / "vocab.json").unlink()
    whole = sentencepiece_model()
    for body in (b"", b"\x0a", whole[:-1], b"\x0a\x05abc", b"\x0f" + whole):
        (folder / "tokenizer.model").write_bytes(body)
        with pytest.raises(RigflowError) as raised, new_files() as new:
            cloned(folder, sound, words, consent, new)
        assert "\n" not in str(raised.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder, sound, _, consent = things(tmp_path)
    needs = "a cloned voice needs --sound, --consent and for a ZipVoice --text, see docs/speak.md"
    for given, said in (
        ((folder, sound, "", None), f"only with the consent of the person whose voice it is: {needs}"),
        ((folder, None, "", consent), f"there is no sound: {needs}"),
        ((folder, sound, "hello", consent), "a Pocket TTS does not take the words of the sound: omit --text"),
    ):
        with pytest.raises(RigflowError) as raised, new_files() as new:
            cloned(*given, new)
        assert said in str(raised.value)
    with pytest.raises(RigflowError) as raised, new_files() as new:
        find(folder, new)
    assert f"is a Pocket TTS, which speaks with the voice of a sound that is given: {needs}" in str(raised.value)


def test_commands_clone_a_voice(tmp_path: Path) -> None:
    folder, sound, _, consent = things(tmp_path)
    made = rigflow("model", "add", folder, "--sound", sound, "--consent", consent, "--name", "ada", "--yes")
    assert made.returncode == 0, made.stderr
    assert "s of sound at 24000 Hz" in made.stdout
    (tmp_path / "story.txt").write_text("Good day. The world, hello.")
    done = rigflow("run", "speak", tmp_path / "story.txt", "--model", "ada", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "synthetic speech, cloned voice ada, consent ada.txt" in " ".join((done.stdout + done.stderr).split())
    assert (tmp_path / "out" / "story.speak.wav").stat().st_size > 2 * RATE


def test_options_that_it_has_no_input_for_are_refused(tmp_path: Path) -> None:
    spec, _ = added(*things(tmp_path))
    for options, said in (
        ({"speed": 1.5}, "model `pocket-ada` has one speed, that of its voice: omit speed"),
        ({"guidance": 2}, "model `pocket-ada` has no guidance: guidance is of voices of ZipVoice: omit it"),
    ):
        with pytest.raises(PipelineError) as raised:
            Speak(OperatorStage(kind="speak", name="speak", model=spec.name, options=options), spec)
        assert said in str(raised.value)
    Speak(OperatorStage(kind="speak", name="speak", model=spec.name, options={"steps": 3, "seed": 4}), spec)


@pytest.mark.models
def test_the_sound_and_the_pieces_are_those_of_sherpa(tmp_path: Path) -> None:
    sherpa = pytest.importorskip("sherpa_onnx")
    folder, sound, words, consent = things(tmp_path)
    spec, session = added(folder, sound, words, consent)
    files = {name: str(folder / f"{name}.onnx") for name in ("lm_main", "lm_flow", "encoder", "decoder")}
    pocket = sherpa.OfflineTtsPocketModelConfig(
        **files,
        text_conditioner=str(folder / "text_conditioner.onnx"),
        vocab_json=str(folder / "vocab.json"),
        token_scores_json=str(folder / "token_scores.json"),
    )
    config = sherpa.OfflineTtsModelConfig(pocket=pocket, num_threads=1)
    tts = sherpa.OfflineTts(sherpa.OfflineTtsConfig(model=config))
    wanted = sherpa.GenerationConfig()
    wanted.reference_audio, wanted.reference_sample_rate = reference_sound(sound, RATE), RATE
    wanted.num_steps, wanted.silence_scale = STEPS, 1.0
    text = "The good world, hello wé to the day."
    expected = np.array(tts.generate(text, wanted).samples, np.float32)
    assert spec.speech is not None
    [numbers] = symbols_of(text, spec.speech, "")
    made = spoken(session, spec, numbers)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert len(expected) > 10 * LATENT
