"""FunASR's networks in transcribe: their front end, their folders, their tokens and times, what they refuse."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from engines.content import graph_of
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.speech_trial import written
from engines.models.card_text import card_toml
from engines.models.listening import listening
from engines.models.proposal import propose
from engines.models.reading import travelling_form
from engines.models.store import find, new_files
from engines.operators.transcribe import Transcribe
from engines.part import Part, no_tick
from engines.planned import Tensor
from engines.speech.fbank import fbank, stacked
from engines.speech.funasr import times_of_fires
from engines.speech.pieces import Piece, words_of_bpe
from schemas.errors import MediaError, ModelError, PipelineError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage
from tests.listeners import BPE, VOICE, Array, sound, write_paraformer, write_sensevoice
from tests.speech import RATE, sound_part


def mel_of(hertz: float) -> float:
    return 1127 * float(np.log(1 + hertz / 700))


@cache
def triangles() -> Array:
    """`[80, 256]`: the weight of each line of the Fourier transform in each band, one at a time."""
    step = (mel_of(8000) - mel_of(20)) / 81
    weights = np.zeros((80, 256))
    for band in range(80):
        left = mel_of(20) + band * step
        for line in range(256):
            at = mel_of(line * 16000 / 512)
            if left < at < left + 2 * step:
                weights[band, line] = ((at - left) if at <= left + step else (left + 2 * step - at)) / step
    return weights


def bands_of(samples: Array) -> Array:
    """Kaldi's bands in its own steps, with a Fourier transform that is a product of matrices."""
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(512)) / 512)
    rows = []
    for begin in range(0, len(samples) - 399, 160):
        frame = samples[begin : begin + 400].astype(np.float64) * 32768
        frame = frame - frame.mean()
        for place in range(399, 0, -1):
            frame[place] -= 0.97 * frame[place - 1]
        frame[0] -= 0.97 * frame[0]
        rows.append(np.pad(frame * window, (0, 112)))
    power = np.abs(np.array(rows) @ waves.T) ** 2
    return np.log(np.maximum(power @ triangles().T, 1.1920929e-07))


def stacks_of(frames: Array) -> Array:
    """FunASR's stacks of 7 frames, 6 apart, row by row."""
    padded = np.concatenate([np.repeat(frames[:1], 3, axis=0), frames])
    rows = []
    for row in range(-(-len(frames) // 6)):
        taken = padded[row * 6 : row * 6 + 7]
        taken = np.concatenate([taken, np.repeat(padded[-1:], 7 - len(taken), axis=0)])
        rows.append(taken.reshape(-1))
    return np.array(rows)


def raw(path: Path, samples: Array, **more: int) -> dict[str, Array]:
    """The outputs of a network as it was published, for features that are made here."""
    lines = (path.parent / "am.mvn").read_text().splitlines()
    shift, scale = (np.array(line.split("[")[1].split("]")[0].split(), float) for line in lines if "Learn" in line)
    features = ((stacks_of(bands_of(samples)) + shift) * scale).astype(np.float32)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {"speech": features[None], "speech_lengths": np.array([len(features)], np.int32)}
    feed |= {name: np.array([number], np.int32) for name, number in more.items()}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def opened(path: Path) -> OnnxRuntimeSession:
    """A session of a model, as `rigflow model add` and a worker make it."""
    found = listening(path.read_bytes(), path)
    assert found is not None
    card = propose(path, found[0], path.parent.name).card()
    spec, body = travelling_form(found[0], card.name, card)
    return OnnxRuntimeSession(body, spec)


def said(session: OnnxRuntimeSession, *parts: Part, **options: Any) -> list[Any]:
    stage = OperatorStage(kind="transcribe", name="say", model="m", max_batch=4, options=options)
    return Transcribe(stage, session.spec).run(parts, session, no_tick)


def texts(part: Any) -> list[str]:
    return [part.arrays["text"].row(number).tobytes().decode() for number in range(len(part.meta.pts))]


def test_bands_are_kaldi_s() -> None:
    samples = np.concatenate([sound(0.3), np.zeros(700, np.float32)])
    expected = bands_of(samples)
    found = fbank(samples)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (1 + (len(samples) - 400) // 160, 80)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)
    assert found[-1].tolist() == [np.float32(np.log(np.float32(1.1920929e-07)))] * 80
    assert [len(fbank(samples[:count])) for count in (0, 1, 399, 400, 559, 560)] == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 10, 12, 13, 31])
def test_stacks_are_funasr_s(count: int) -> None:
    frames = np.random.default_rng(count).normal(size=(count, 80)).astype(np.float32)
    np.testing.assert_array_equal(stacked(frames, 7, 6), stacks_of(frames))


def test_a_paraformer_writes_its_network_s_tokens(tmp_path: Path) -> None:
    """The network as published, on features of another program, gives the same tokens; words have FunASR's times."""
    path, samples = write_paraformer(tmp_path / "large"), sound(2.5)
    outputs = raw(path, samples)
    ids = outputs["logits"][0].argmax(axis=1).tolist()
    assert ids[-1] == 2
    assert len(ids) == outputs["token_num"][0] > 8
    pieces = [Piece(BPE[each]) for each in ids[:-1]]
    [made] = said(opened(path), sound_part([samples], [100.0]))
    assert texts(made) == ["".join(word.text for word in words_of_bpe(pieces))]
    fires = np.flatnonzero(outputs["us_cif_peak"][0] > 1 - 1e-4)
    assert len(fires) == len(ids)
    rows = made.arrays["words"].row(0)
    begins = [100 + max(0, (fire - 1.5) * 0.02) for fire in fires]
    assert rows[:, 0].tolist() == pytest.approx([begin for begin, piece in zip(begins, pieces, strict=False)])
    assert rows[:-1, 1].tolist() == pytest.approx(begins[1:-1])
    mean = float(np.mean(outputs["logits"][0].max(axis=1)[:-1]))
    assert made.arrays["quality"][0].tolist() == pytest.approx([mean, 0, made.arrays["quality"][0, 2], 1], abs=1e-4)


def test_plain_paraformers_have_no_times(tmp_path: Path) -> None:
    samples = sound(2.5)
    [plain] = said(opened(write_paraformer(tmp_path / "plain", times=False)), sound_part([samples], [10.0]))
    [large] = said(opened(write_paraformer(tmp_path / "large")), sound_part([samples], [10.0]))
    assert texts(plain) == texts(large)
    assert len(plain.arrays["words"].row(0)) == 0
    assert plain.arrays["span"].tolist() == [[10.0, 12.5]]


@pytest.mark.parametrize(("options", "query", "norm", "tag"), [
    ({}, 0, 14, "ja"), ({"language": "en"}, 4, 14, "en"), ({"language": "yue", "itn": False}, 7, 15, "yue"),
])  # fmt: skip
def test_a_sensevoice_writes_its_network_s_tokens(
    tmp_path: Path, options: dict[str, Any], query: int, norm: int, tag: str
) -> None:
    path, samples = write_sensevoice(tmp_path / "voice"), sound(2.5)
    outputs = raw(path, samples, language=query, textnorm=norm)
    ids = outputs["ctc_logits"][0].argmax(axis=1)
    assert [VOICE[each] for each in ids[:4]] == [
        f"<|{tag}|>", "<|HAPPY|>", "<|Speech|>", "<|withitn|>" if norm == 14 else "<|woitn|>",
    ]  # fmt: skip
    kept = [n for n in range(4, len(ids)) if ids[n] and (n == 4 or ids[n] != ids[n - 1])]
    assert len(kept) > 8
    [made] = said(opened(path), sound_part([samples], [100.0]), **options)
    assert texts(made) == ["".join(VOICE[ids[n]] for n in kept).replace("▁", " ")]
    labels = Transcribe(stage_of(**options), opened(path).spec).plan(SOUND)
    found = {name: labels[name].labels[int(made.arrays[name][0])] for name in ("language", "emotion", "event")}
    assert found == {"language": tag, "emotion": "HAPPY", "event": "Speech"}
    begins = [100 + 0.06 * (n - 4) for n in kept]
    assert set(made.arrays["words"].row(0)[:, 0].round(3)) <= set(np.round(begins, 3))
    assert made.arrays["words"].row(0)[0, 0] == pytest.approx(begins[0])


SOUND = {"sound": Tensor("float32", ("W", "count"), ragged=True)}


def stage_of(**options: Any) -> OperatorStage:
    return OperatorStage(kind="transcribe", name="say", model="m", options=options)


@pytest.mark.parametrize("write", [write_paraformer, write_sensevoice])
def test_folders_of_sherpa_onnx_give_the_same(tmp_path: Path, write: Callable[..., Path]) -> None:
    """`model.onnx` with metadata and `tokens.txt`, against FunASR's files."""
    made = []
    for layout in ("funasr", "sherpa"):
        path = write(tmp_path / layout, sherpa=layout == "sherpa")
        session = opened(path)
        made.append((texts(said(session, sound_part([sound(3)]))[0]), session.spec.recogniser))
        assert made[-1][0] != [""]
    assert made[0] == made[1]


def test_a_folder_is_added_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_sensevoice(tmp_path / "SenseVoiceSmall")
    (path.parent / "model_quant.onnx").write_bytes(path.read_bytes())
    for given in (path.parent, path.parent / "model_quant.onnx"):
        with new_files() as new:
            found = find(given, new)
            assert found.name == "SenseVoiceSmall"
            card = propose(found.path, found.content, found.name).card()
        assert card.recogniser is not None
        assert card.recogniser.tokens == tuple(VOICE)
        assert (card.recogniser.family, card.recogniser.stack, card.recogniser.hop) == ("sensevoice", 7, 6)
        spec, body = travelling_form(graph_of(found.content), card.name, card)
        assert [tensor.name for tensor in spec.inputs] == ["features", "frames", "language", "textnorm"]
        assert [tensor.name for tensor in spec.outputs] == ["tokens", "log_probs"]
        assert "[recogniser]" in card_toml(spec)
        assert "writes zh, en, yue, ja, ko" in written(spec, body)


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "am.mvn").unlink(), "am.mvn is not beside it: download the whole folder"),
        (lambda folder: (folder / "tokens.json").unlink(), "no tokens.json or tokens.txt is beside it"),
        (changed("tokens.json", '"hello", ', ""), "knows 46 tokens, and tokens.json has 45"),
        (changed("tokens.json", "[", "{"), "is no JSON"),
        (lambda folder: (folder / "tokens.json").write_text("[" * 99_999), "tokens.json is no JSON: maximum recursion"),
        (changed("am.mvn", "<Rescale>", "<Nothing>"), "has no <Rescale> with numbers"),
        (changed("am.mvn", "0 [ ", "0 [ x "), "<AddShift>: could not convert string to float: 'x'"),
        (changed("am.mvn", "0 [ -", "0 [ nan -"), "am.mvn has a number that is not finite"),
        (changed("config.yaml", "lfr_m: 7", "lfr_m: 5"), "features have 80 x 5"),
        (changed("config.yaml", "lfr_m: 7", "lfr_m: seven"), "config.yaml have invalid literal"),
        (changed("config.yaml", "fs: 16000", "fs: 8000"), "frontend_conf.fs: rigflow hears with 16000, not with 8000"),
        (changed("config.yaml", "hamming", "hanning"), "frontend_conf.window: hanning"),
        (changed("config.yaml", "bias: 1", "bias: 99"), "tail: should be less than or equal to 8"),
        (changed("config.yaml", "bias: 1", "bias: one"), "invalid literal for int() with base 10: 'one'"),
        (lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe"), "config.yaml: 'utf-8' codec can't decode"),
    ],
    ids=range(15),
)  # fmt: skip
def test_damaged_folders_are_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    path = write_paraformer(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError) as refused:
        listening(path.read_bytes(), path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damaged_folders_of_sherpa_onnx_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write_sensevoice(tmp_path, sherpa=True)
    body, tokens = path.read_bytes(), tmp_path / "tokens.txt"
    for old, new, words in (
        (b"lang_zh\x12\x013", b"lang_zh\x12\x01x", "invalid literal for int() with base 10: 'x'"),
        (b"normalize_samples\x12\x010", b"normalize_samples\x12\x01?", "invalid literal for int() with base 10: '?'"),
        (b"inv_stddev", b"inv_nothin", "am.mvn is not beside it"),
    ):
        assert old in body
        with pytest.raises(ModelError) as refused:
            listening(body.replace(old, new), path)
        assert words in str(refused.value)
    tokens.write_text(tokens.read_text().replace("<s> 1", "<s> 2"))
    with pytest.raises(ModelError, match=r"its numbers are not 0, 1, 2 \.\.\."):
        listening(body, path)


def test_paraformers_that_need_more_runs_are_refused(tmp_path: Path) -> None:
    path = write_paraformer(tmp_path)
    model = onnx.load(str(path))
    hot = onnx.helper.make_tensor_value_info("bias_embed", onnx.TensorProto.FLOAT, ["N", "H", 512])
    model.graph.input.append(hot)
    with pytest.raises(ModelError, match="with the input bias_embed: one for hot words"):
        listening(model.SerializeToString(), path)


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (write_paraformer, {"task": "translate"}, "model `m` is a Paraformer, which has no task: leave it out"),
        (write_paraformer, {"itn": False}, "which has no itn"),
        (write_paraformer, {"hot_words": "a"}, "which has no hot_words"),
        (write_paraformer, {"each_chunk": True}, "which has no each_chunk"),
        (write_paraformer, {"language": "de"}, "model `m` knows zh, it cannot take de"),
        (write_sensevoice, {"beam": 1}, "model `m` is a SenseVoice, which has no beam"),
        (write_sensevoice, {"prompt": "x"}, "which has no prompt"),
        (write_sensevoice, {"language": "de"}, "knows zh, en, yue, ja, ko, it cannot take de"),
    ],
    ids=range(8),
)
def test_options_that_a_model_lacks_are_refused(
    tmp_path: Path, write: Callable[..., Path], options: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "m")
    found = listening(path.read_bytes(), path)
    assert found is not None
    card = propose(path, found[0], "m").card()
    spec, _ = travelling_form(found[0], "m", card)
    with pytest.raises(PipelineError) as refused:
        Transcribe(stage_of(**options), spec)
    assert words in str(refused.value)
    Transcribe(stage_of(beam=5, task="transcribe"), spec)  # what all models do anyway


def test_a_chunk_s_answer_does_not_depend_on_others(tmp_path: Path) -> None:
    """Bit for bit, whichever chunks and parts are beside it."""
    session = opened(write_sensevoice(tmp_path))
    chunks = [sound(seconds, seed) for seed, seconds in enumerate((1, 3, 0.7, 5, 2))]
    alone = [said(session, sound_part([chunk]))[0] for chunk in chunks]
    together = said(session, sound_part(chunks, [0, 10, 20, 30, 40]), sound_part(chunks[::-1], [0, 10, 20, 30, 40], 1))
    for number, one in enumerate(alone):
        for part, row in ((together[0], number), (together[1], 4 - number)):
            assert texts(one) == [texts(part)[row]]
            assert one.arrays["quality"][0].tobytes() == part.arrays["quality"][row].tobytes()
            assert one.arrays["words"].row(0)[:, 2:].tobytes() == part.arrays["words"].row(row)[:, 2:].tobytes()


def test_sound_that_is_too_short_or_too_long(tmp_path: Path) -> None:
    session = opened(write_sensevoice(tmp_path))
    short, long, silent = sound_part([sound(1)[:399]]), sound_part([sound(1)[:1]]), sound_part([np.zeros(32000)])
    assert [texts(part) for part in said(session, short, long)] == [[""], [""]]
    assert len(texts(said(session, silent)[0])) == 1
    outcomes = said(session, sound_part([np.zeros(61 * RATE)]), short)
    assert [type(outcome) for outcome in outcomes] == [MediaError, Part]
    assert "a chunk of 61.0 s, and SenseVoice takes 60 s" in str(outcomes[0])


class Failing:
    """A session that fails, as exports of Paraformer do on sound without a token, and counts its runs."""

    batch_bytes = 1

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.runs = spec, 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        raise ModelError("model `m` failed: a dimension is 0")


def test_a_run_that_fails_gives_no_text_and_a_note(tmp_path: Path) -> None:
    failing = Failing(opened(write_paraformer(tmp_path)).spec)
    [made] = said(failing, sound_part([sound(1), sound(2)], [0, 1]))  # type: ignore[arg-type]
    assert texts(made) == ["", ""]
    assert made.meta.notes == ("model `m` failed: a dimension is 0: a chunk has no text",)


def test_times_of_fires() -> None:
    """A token lasts to the next fire, at most 30 units of 20 ms; the last one half of what follows, if that is long."""
    peaks = np.full(100, 0.5, np.float32)
    peaks[[10, 20, 60, 80]] = 1.0
    units = [(8.5, 18.5), (18.5, 48.5), (58.5, (100 + 78.5) / 2)]
    # the last token is between the last two fires, and ends in the middle of the rest
    found = times_of_fires(peaks, peaks, 3, 2.0)
    assert np.ravel(found).tolist() == pytest.approx([0.02 * each for each in np.ravel(units)])
    peaks[[0, 97]] = 1.0
    found = times_of_fires(peaks, peaks, 5, 1.9)
    assert found[0] == pytest.approx((0.0, 0.17))
    assert found[-1] == pytest.approx((1.57, 1.9))  # to the end of the sound, less than 5 units later
    # other numbers of tokens: where the sum of alphas, scaled to 4, passes 1, 2, 3 and 4
    alphas = np.full(100, 0.2, np.float32)
    found = times_of_fires(peaks, alphas, 3, 2.0)
    assert [start for start, _ in found] == pytest.approx([0.02 * (place - 1.5) for place in (24, 49, 74)])
    assert times_of_fires(peaks, np.zeros(100, np.float32), 1, 2.0)[0][1] <= 2.0
