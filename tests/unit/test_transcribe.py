"""The stages speech and transcribe on networks that are written here: chunks, batches, languages, times, failures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from engines.models.sounds import with_sound
from engines.operators.speech import Speech
from engines.operators.transcribe import Transcribe
from engines.outputs.format import load_format
from engines.part import Part, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.speech.model import Aligned, Generated, Search
from engines.speech.network import arrays_of
from engines.speech.tokens import LANGUAGES, Tokens
from engines.texts import text_tensor
from pipelines.registry import builtin_pipeline
from schemas.errors import MediaError, ModelError, PipelineError
from schemas.model import ModelSpec, SoundSpec, StateSpec, TensorSpec
from schemas.pipeline import EncodeStage, OperatorStage
from tests.speech import RATE, Array, silence, sound_part

SPECIAL = ["endoftext", "startoftranscript", "transcribe", "translate", "startofprev", "notimestamps"]
WORDS = [" zero", " one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " very", "."]
BAD = 7  # seconds of a chunk that the network fails on


class Vocabulary:
    """The part of a tokenizers.Tokenizer that is used: words, then special tokens."""

    special = tuple(f"<|{name}|>" for name in (*SPECIAL, *LANGUAGES))

    def token_to_id(self, name: str) -> int | None:
        return len(WORDS) + self.special.index(name) if name in self.special else None

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = [WORDS.index(f" {word}") for word in text.split() if f" {word}" in WORDS]
        return type("Encoding", (), {"ids": ids or [len(WORDS) - 1]})

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(WORDS[each] for each in ids)


class Network:
    """Says how many seconds of sound it got, a digit a word: `features` have zeros behind the sound."""

    tokenizer = Vocabulary()
    batch_bytes = 1 << 20

    def __init__(self, precision: str = "int8_float32", tokens: int = 51_865, any_batch: bool = True) -> None:
        self.any_batch = any_batch
        inputs, outputs = arrays_of(80, 8, tokens)
        self.spec = ModelSpec(name="w", precision=precision, inputs=inputs, outputs=outputs, sha256="0" * 64)
        self.batches: list[int] = []
        self.prompts: list[list[int]] = []

    def encode(self, features: Array) -> Array:
        seconds = np.rint((features != 0).any(axis=1).sum(axis=1) / 100).astype(int)
        if BAD in seconds:
            raise ModelError("model w failed: it cannot be")
        return seconds

    def generate(self, states: Array, prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        self.batches.append(len(states))
        self.prompts += map(list, prompts)
        return [self.said(int(seconds), search) for seconds in states]

    def said(self, seconds: int, search: Search) -> Generated:
        digits = tuple(int(digit) for digit in str(seconds))
        if seconds == 9 and search.no_repeat != 3:  # it repeats itself
            return Generated((9,) * 60, -0.1, 0.1)
        return Generated((*digits, 11), -2.0 if seconds == 8 else -0.25, 0.9 if seconds == 8 else 0.1)

    def align(
        self, states: Array, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Aligned]:
        """A word takes half a second."""
        return [
            Aligned((0.5,) * len(text), tuple((number, 25 * number) for number in range(len(text) + 1)))
            for text in texts
        ]

    def languages(self, states: Array) -> list[list[tuple[str, float]]]:
        return [[("de", 0.75), ("en", 0.25)] if seconds % 2 else [("en", 0.5)] for seconds in states]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def chunk(seconds: float) -> Array:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def stage_of(model: str = "w", batch: int = 4, **options: Any) -> OperatorStage:
    return OperatorStage(kind="transcribe", name="say", model=model, max_batch=batch, options=options)


def said(network: Network, *parts: Part, batch: int = 4, **options: Any) -> list[Any]:
    return Transcribe(stage_of(batch=batch, **options), network.spec).run(parts, network, no_tick)  # type: ignore[arg-type]


def texts(part: Part) -> list[str]:
    return [part.arrays["text"].row(number).tobytes().decode() for number in range(len(part.meta.pts))]  # type: ignore[union-attr]


def part_of(*seconds: float, number: int = 0) -> Part:
    """Chunks of these lengths, 10 s from begin to begin."""
    return sound_part([chunk(each) for each in seconds], [10.0 * n for n in range(len(seconds))], number)


@pytest.mark.parametrize(
    ("precision", "any_batch", "batches"),
    [("int8_float32", True, [4, 1]), ("float32", True, [3, 2]), ("int8_float32", False, [3, 2])],
)
def test_chunks_share_batches_where_that_changes_nothing(precision: str, any_batch: bool, batches: list[int]) -> None:
    network = Network(precision, any_batch=any_batch)
    first, second = said(network, part_of(1, 2, 3), part_of(4, 5, number=1))
    assert (texts(first), texts(second)) == ([" one.", " two.", " three."], [" four.", " five."])
    assert network.batches == batches


def test_a_language_is_that_of_the_first_chunk_of_a_window() -> None:
    network, parts = Network(), [part_of(1, 2), part_of(4, 5, number=1)]
    codes = [part.arrays["language"].tolist() for part in said(network, *parts)]
    assert [[LANGUAGES[code] for code in each] for each in codes] == [["de", "de"], ["en", "en"]]
    codes = [part.arrays["language"].tolist() for part in said(network, *parts, each_chunk=True)]
    assert [[LANGUAGES[code] for code in each] for each in codes] == [["de", "en"], ["en", "de"]]
    [given] = said(network, part_of(1), language="fr")
    assert given.arrays["quality"][0, 3] == 1.0
    tokens = Tokens(network.tokenizer, True)
    assert network.prompts[-1] == tokens.prompt("fr", "transcribe")
    [english] = said(Network(tokens=51_864), part_of(1))
    assert LANGUAGES[english.arrays["language"][0]] == "en"


def test_a_media_that_begins_with_speech_has_one_language() -> None:
    """That of its `head`, which is encoded once; a part without it has the language of its first chunk."""
    network = Network()
    head = Ragged(chunk(3), np.array([0, 3 * RATE, 3 * RATE]))
    parts = [part_of(2, 4).with_arrays({**part_of(2, 4).arrays, "head": head}), part_of(2, 5, number=1)]
    operator = Transcribe(stage_of(), network.spec)
    made = operator.run([*parts, parts[0]], network, no_tick)  # type: ignore[arg-type]
    codes = [part.arrays["language"].tolist() for part in made]  # type: ignore[union-attr]
    assert [[LANGUAGES[code] for code in each] for each in codes] == [["de", "de"], ["en", "en"], ["de", "de"]]
    assert len(operator._recogniser._languages) == 1  # type: ignore[attr-defined]


def test_prompt_and_hot_words_stand_before_the_text() -> None:
    network = Network()
    said(network, part_of(1), language="de", task="translate", prompt="one two", hot_words="nine")
    id_of = network.tokenizer.token_to_id
    names = ("startofprev", "startoftranscript", "de", "translate", "notimestamps")
    before, start, language, task, no_times = (id_of(f"<|{name}|>") for name in names)
    assert network.prompts == [[before, 9, 1, 2, start, language, task, no_times]]


def test_words_have_the_media_s_times() -> None:
    """A chunk of two runs, at 100 s and at 200 s, with 0.6 s in the first."""
    pieces = Ragged.of([np.array([[100.0, 100.6], [200.0, 211.4]])])
    part = sound_part([chunk(12)], [100.0], pieces=pieces)
    [made] = said(Network(), part)
    text, rows = texts(made)[0], made.arrays["words"].row(0)
    assert text == " one two."
    assert [text.encode()[int(a) : int(b)].decode() for *_, a, b in rows] == [" one", " two."]
    assert rows[:, 0].tolist() == pytest.approx([100.0, 199.9])  # the second word begins at 0.5 s of the chunk
    assert rows[:, 1].tolist() == pytest.approx([100.5, 200.4])
    assert made.arrays["span"].tolist() == [[rows[0, 0], rows[1, 1]]]
    [without] = said(Network(), part, words=False)
    assert "words" not in without.arrays
    assert without.arrays["span"].tolist() == [[100.0, 211.4]]


def test_silence_has_no_text_and_repetitions_are_searched_again() -> None:
    network = Network()
    [made] = said(network, part_of(8, 9, 2))
    assert texts(made) == ["", " nine.", " two."]
    assert network.batches == [3, 1, 1]
    assert made.arrays["span"][0].tolist() == [0.0, 8.0]
    [kept] = said(Network(), part_of(8, 9), no_speech=1.0, compression=99.0)
    assert texts(kept) == [" eight.", " nine" * 60]


def test_the_failure_of_a_part_is_its_own() -> None:
    long, bad = sound_part([chunk(31)]), part_of(BAD, number=1)
    outcomes = said(Network(), part_of(1), long, bad, part_of(2, number=3))
    assert [type(outcome) for outcome in outcomes] == [Part, MediaError, ModelError, Part]
    assert "Whisper takes 30 s" in str(outcomes[1])
    assert texts(outcomes[3]) == [" two."]


def test_a_part_without_chunks_has_empty_arrays() -> None:
    empty = Ragged(np.zeros(0, np.float32), np.zeros(1, np.int64))
    part = sound_part([silence(0)]).with_arrays({"sound": empty}, pts=())
    [made] = said(Network(), part)
    assert {name: len(value) for name, value in made.arrays.items()} == dict.fromkeys(
        ("text", "span", "language", "quality", "words"), 0
    )


SOUND = {"sound": Tensor("float32", ("W", "count"), ragged=True)}


@pytest.mark.parametrize(
    ("tokens", "options", "arrays", "words"),
    [
        (51_864, {"language": "de"}, SOUND, "knows English alone, it cannot take de"),
        (51_864, {"task": "translate"}, SOUND, "knows English alone, it cannot translate"),
        (51_865, {"language": "klingon"}, SOUND, "there is no language klingon"),
        (51_865, {"task": "sing"}, SOUND, "there are the tasks transcribe and translate"),
        (51_865, {}, {"pixels": Tensor("uint8", ("F", 4, 4, 3))}, "wants sound of one channel"),
        (51_865, {"beams": 3}, SOUND, "has no option `beams`"),
    ],
)
def test_wrong_options_are_refused(tokens: int, options: dict[str, Any], arrays: dict[str, Tensor], words: str) -> None:
    with pytest.raises(PipelineError) as refused:
        Transcribe(stage_of(**options), Network(tokens=tokens).spec).plan(arrays)
    assert words in str(refused.value)


def test_what_is_said_is_text_for_other_stages_and_formats() -> None:
    planned = Transcribe(stage_of(), Network(tokens=51_865).spec).plan(dict(SOUND))
    assert planned["text"] == text_tensor()
    load_format(EncodeStage(kind="encode", format="text")).check(planned, ["audio"])


class Detector:
    """A network of Silero's form: speech is what is louder than 0.05; its state counts windows."""

    batch_bytes = 1 << 20

    def __init__(self, many: bool) -> None:
        rows: int | str = 1 if many else "batch"
        sound = SoundSpec(rate=RATE, samples=512, context=64)
        self.spec = ModelSpec(
            name="v",
            inputs=(
                TensorSpec(name="x", dtype="float32", shape=("N", 576), sound=sound),
                TensorSpec(name="s", dtype="float32", shape=(rows, 1), state=StateSpec(output="t")),
            ),
            outputs=(
                TensorSpec(name="p", dtype="float32", shape=("N", 1)),
                TensorSpec(name="t", dtype="float32", shape=(rows, 1)),
            ),
            sha256="0" * 64,
        )  # fmt: skip
        self.runs: list[int] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert inputs["s"].tolist() == [[sum(self.runs)]]
        self.runs.append(len(inputs["x"]))
        loud = np.abs(inputs["x"][:, 64:]).max(axis=1, keepdims=True) > 0.05
        return {"p": loud.astype(np.float32), "t": inputs["s"] + len(inputs["x"])}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("many", [True, False])
def test_speech_is_packed_with_its_times(many: bool) -> None:
    window = np.concatenate([silence(2), chunk(3), silence(2), chunk(4), silence(1), chunk(5), silence(3)])
    stage = OperatorStage(kind="speech", name="v", model="v", options={"longest_s": 9, "pad_ms": 0})
    detector = Detector(many)
    [made] = Speech(stage, detector.spec).run([sound_part([window], [100.0])], detector, no_tick)  # type: ignore[arg-type]
    assert isinstance(made, Part)
    assert detector.runs == ([len(window) // 512 + 1] if many else [1] * (len(window) // 512 + 1))
    sound, pieces = made.arrays["sound"], made.arrays["pieces"]
    assert isinstance(sound, Ragged)
    assert isinstance(pieces, Ragged)
    assert [len(pieces.row(number)) for number in range(len(pieces))] == [2, 1]
    assert pieces.values.ravel().tolist() == pytest.approx([102, 105, 107, 111, 112, 117], abs=0.04)
    assert list(made.meta.pts) == [int(1000 * pieces.values[0, 0]), int(1000 * pieces.values[2, 0])]
    first, last = (np.rint((pieces.values[0] - 100) * RATE)).astype(int)
    assert np.array_equal(sound.row(0)[: last - first], window[first:last])
    assert len(sound.row(0)) == round(float(np.diff(pieces.row(0), axis=1).sum()) * RATE)


def test_the_first_speech_of_the_media_goes_with_the_first_chunk() -> None:
    stage, detector = OperatorStage(kind="speech", name="v", model="v", options={"pad_ms": 0}), Detector(False)
    window = np.concatenate([silence(1), chunk(2), silence(1), chunk(2)])
    first = np.concatenate([silence(1.5), chunk(3), silence(1)])
    part = sound_part([window], [50.0])
    part = part.with_arrays({**part.arrays, "head": Ragged.of([first])})
    operator = Speech(stage.model_copy(update={"options": {"pad_ms": 0, "longest_s": 3}}), detector.spec)
    assert set(operator.plan({**SOUND, "head": SOUND["sound"]})) == {"sound", "pieces", "head"}
    detector.runs.clear()
    [made] = operator.run([part], Fresh(detector), no_tick)  # type: ignore[arg-type, list-item]
    assert isinstance(made, Part)
    head = made.arrays["head"]
    assert isinstance(head, Ragged)
    assert len(head) == len(made.meta.pts)
    assert not any(len(head.row(number)) for number in range(1, len(head)))
    assert len(head.row(0)) == pytest.approx(3 * RATE, abs=600)
    runs = len(detector.runs)
    other = part.with_arrays({**part.arrays, "head": Ragged.of([silence(9)])})
    [again] = operator.run([other], Fresh(detector), no_tick)  # type: ignore[arg-type, list-item]
    assert again.arrays["head"].row(0).tobytes() == head.row(0).tobytes(), "it is found once for a media"  # type: ignore[union-attr]
    assert len(detector.runs) <= runs


@pytest.mark.parametrize(
    ("tokens", "options", "head_s"),
    [
        (51_865, {}, 60.0),
        (51_865, {"first_s": 20}, 20.0),
        (51_865, {"language": "de"}, None),
        (51_865, {"each_chunk": True}, None),
        (51_864, {}, None),
    ],
)
def test_segments_have_the_first_seconds_where_the_language_is_searched(
    tokens: int, options: dict[str, Any], head_s: float | None
) -> None:
    """A Whisper of English alone needs none; what the decode stage says itself counts."""
    spec = builtin_pipeline("transcribe").with_fields({f"transcribe.{key}": value for key, value in options.items()})
    models = {"faster-whisper-base": Network(tokens=tokens).spec, "silero-vad": Detector(True).spec}
    assert with_sound(spec, models).decode.options.get("head_s") == head_s
    given = spec.with_fields({"decode.head_s": 5.0})
    assert with_sound(given, models).decode.options["head_s"] == 5.0


class Fresh:
    """A detector whose state is not checked."""

    def __init__(self, detector: Detector) -> None:
        self.spec, self._detector = detector.spec, detector

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._detector.runs.clear()
        return self._detector.run({**inputs, "s": np.zeros((1, 1))})


def test_a_window_without_speech_has_no_chunks() -> None:
    stage, detector = OperatorStage(kind="speech", name="v", model="v"), Detector(True)
    part = sound_part([silence(3), silence(0)], [0.0, 3.0])
    [made] = Speech(stage, detector.spec).run([part], detector, no_tick)  # type: ignore[arg-type]
    assert isinstance(made, Part)
    assert made.meta.pts == ()
    assert [len(made.arrays[name]) for name in ("sound", "pieces")] == [0, 0]


def test_speech_refuses_what_it_cannot_use() -> None:
    stage, spec = OperatorStage(kind="speech", name="v", model="v"), Detector(True).spec
    with pytest.raises(PipelineError, match="keeps `sound`"):
        Speech(stage.model_copy(update={"keeps": ("sound",)}), spec).plan(SOUND)
    with pytest.raises(PipelineError, match="wants sound of one channel"):
        Speech(stage, spec).plan({"sound": Tensor("float32", ("W", "count", 2), ragged=True)})
    with pytest.raises(ModelError, match="it is no network of Silero's form"):
        Speech(stage, Network().spec)
    with pytest.raises(PipelineError, match="runs no model"):
        Speech(stage.model_copy(update={"model": None}), None)
