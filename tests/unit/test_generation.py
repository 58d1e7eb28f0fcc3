"""Answers as they grow, what lines choose for themselves, and seeds that do not depend on the fleet."""

import pytest

from engines.generation.answer import Answer
from engines.generation.answer_request import Choices, Sampling, grammar_of, line_choices, sampling_of
from engines.plan import plan_pipeline
from engines.registry import load
from schemas.errors import MediaError, PipelineError
from schemas.jobs import JobRef, Key
from schemas.messages import decode
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import OperatorStage, PipelineSpec, parse_pipeline
from schemas.requests import TextRequest
from schemas.results import Delta

KEY = Key(job=JobRef(id="j", pipeline="chat", revision="0"), segment=2)
TOKENS = ModelSpec(
    name="m",
    backend="onnxruntime-genai",
    inputs=(TensorSpec(name="tokens", dtype="int32", shape=("N", 64)),),
    outputs=(),
    sha256="0" * 64,
)


def grown(text: str, *stop: str) -> tuple[Answer, list[str]]:
    """An answer to which a text is added letter by letter, and what was new in it each time."""
    answer, news = Answer(piece=chr, stop=stop), []
    for letter in text:
        if answer.add(ord(letter)):
            break
        news.append(answer.news())
    answer.end("length")
    return answer, [*news, answer.news()]


@pytest.mark.parametrize(
    ("text", "stop", "kept", "finish"),
    [
        ("one two three", ("two",), "one ", "stop"),
        ("one two three", ("ee", "three"), "one two ", "stop"),
        ("aab", ("ab",), "a", "stop"),
        ("one tw", ("two",), "one tw", "length"),
        ("one", (), "one", "length"),
    ],
)
def test_an_answer_ends_before_a_stop_text_of_which_nobody_sees_the_beginning(
    text: str, stop: tuple[str, ...], kept: str, finish: str
) -> None:
    answer, news = grown(text, *stop)
    assert (answer.text, answer.finish) == (kept, finish)
    assert "".join(news) == kept
    for number in range(len(news)):
        assert kept.startswith("".join(news[: number + 1]))


def test_an_answer_ends_once() -> None:
    answer = Answer(piece=chr)
    answer.fail(MediaError("no"))
    answer.end("stop")
    assert (answer.done, answer.finish) == (True, "")


def line(**fields: object) -> TextRequest:
    return TextRequest.model_validate({"prompt": "x", **fields})


def test_a_line_chooses_over_its_stage() -> None:
    stage = Choices(max_tokens=7, temperature=0.5, stop=("a",))
    made = line_choices(line(temperature=0, stop="b", seed=3, colour="red", json_schema={"type": "object"})).over(stage)
    assert (made.max_tokens, made.temperature, made.stop, made.seed) == (7, 0, ("b",), 3)
    assert grammar_of(made) == '{"type": "object"}'
    assert line_choices(None).over(stage) == stage
    for fields, words in (
        ({"temperature": -1}, "temperature: should be greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens: should be greater than or equal to 1"),
        ({"stop": [""]}, "stop.0: string should have at least 1 character"),
        ({"stop": 5}, "stop: should be a valid list"),
        ({"stop": ["a"] * 99}, "stop: list should have at most 16 items, not 99: "),
        ({"json_schema": 3}, "json_schema: should be a valid dictionary"),
        ({"top_p": float("nan")}, "top_p: should be a finite number"),
        ({"max_tokens": True}, "max_tokens: should be a valid integer"),
        ({"max_tokens": "3"}, "max_tokens: should be a valid integer"),
        ({"temperature": "0.5"}, "temperature: should be a valid number"),
    ):
        with pytest.raises(MediaError, match=words):
            line_choices(line(**fields))


def test_a_seed_follows_from_job_item_and_stage_alone() -> None:
    drawn = Choices(temperature=0.5, seed=1)
    first = sampling_of(drawn, False, KEY, 0)
    assert first == Sampling(0.5, 1.0, 0, 1_123_897_995), "an answer must not change from release to release"
    again = KEY.model_copy(update={"job": KEY.job.model_copy(update={"generation": 3, "revision": "9"})})
    assert sampling_of(drawn, False, again, 0) == first
    others = [
        sampling_of(drawn, False, KEY, 1),
        sampling_of(drawn, False, KEY.model_copy(update={"segment": 3}), 0),
        sampling_of(Choices(temperature=0.5), False, KEY, 0),
    ]
    assert len({each.seed for each in [first, *others] if each}) == 4
    assert sampling_of(drawn, True, KEY, 5) == Sampling(0.5, 1.0, 0, 1)
    assert sampling_of(Choices(seed=1), False, KEY, 0) is None


def chat(**stage: object) -> OperatorStage:
    return OperatorStage.model_validate({"kind": "chat", "model": "m", **stage})


def pipeline(text: str = "") -> PipelineSpec:
    return parse_pipeline(
        'name = "p"\nmedia = "text"\n[[stage]]\nkind = "decode"\n[[stage]]\nkind = "chat"\nmodel = "m"\n'
        f'{text}\n[[stage]]\nkind = "encode"\nformat = "jsonl"\n',
        "p",
    )


def test_a_pipeline_is_planned_from_text_to_text() -> None:
    arrays = plan_pipeline(pipeline('keeps = ["request"]'), {"m": TOKENS}).arrays["chat"]
    assert {name: (each.text, each.dtype) for name, each in arrays.items()} == {
        "request": (True, "uint8"),
        "text": (True, "uint8"),
        "finish": (True, "uint8"),
        "tokens": (False, "int32"),
        "prompt_tokens": (False, "int32"),
    }
    with pytest.raises(PipelineError, match="stage `chat`: model `m` is no language model: add a folder of ONNX"):
        plan_pipeline(pipeline(), {"m": TOKENS.model_copy(update={"backend": None})})
    with pytest.raises(PipelineError, match="stage `chat` needs texts as `texts`, and there is `text`, `request`"):
        plan_pipeline(pipeline('reads = { text = "texts" }'), {"m": TOKENS})
    with pytest.raises(
        PipelineError, match=r"chat has no option `temperatur`: did you mean temperature\? its options are: max_tokens"
    ):
        load("operators", "chat")(chat(temperatur=1), TOKENS)
    with pytest.raises(PipelineError, match="option temperature: should be greater"):
        load("operators", "chat")(chat(temperature=-1), TOKENS)
    with pytest.raises(PipelineError, match="complete has no option `system`"):
        load("operators", "complete")(chat(kind="complete", system="x"), TOKENS)


def test_a_delta_is_a_message() -> None:
    given = Delta(key=KEY, generation=2, row=1, name="q1", number=0, text="Grüße")
    assert decode(given.encode()) == (given, [])
