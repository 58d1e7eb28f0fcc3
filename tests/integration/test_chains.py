"""Chains of models: speech, its summary, and answers read aloud, by a tiny language model on any fleet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.registry import builtin_pipeline
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.cases import written
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing, Silent
from tests.language import language_folder
from tests.sounds import file_of, voice
from tests.voices import write_piper

og = pytest.importorskip("onnxruntime_genai")
pytest.importorskip("jinja2")  # without it no worker takes the work
pytestmark = pytest.mark.models
RATE = 16000
PROMPT = "Sum up."
STAGES = f"""
[[stage]]
kind = "spelled"
pace_s = 0.02

[[stage]]
kind = "join"

[[stage]]
kind = "summarise"
model = "chat-model"
prompt = "{PROMPT}"
max_tokens = 40

[[stage]]
kind = "encode"
format = "jsonl"
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a language model and a voice."""
    folder = tmp_path_factory.mktemp("home")
    language = language_folder(folder / "chat-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        for model in (language, write_piper(folder)):
            done = rigflow("model", "add", model, "--yes", HOME=str(folder))
            assert done.returncode == 0, done.stderr
        yield folder


def answer(home: Path, text: str, tokens: int) -> str:
    """GenAI's own loop."""
    model = og.Model(str(home / "chat-model"))
    tokenizer = og.Tokenizer(model)
    message = json.dumps([{"role": "user", "content": text}])
    asked = tokenizer.encode(tokenizer.apply_chat_template(message, add_generation_prompt=True))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(asked) + tokens, do_sample=False)
    generator, stream, found = og.Generator(model, params), tokenizer.create_stream(), ""
    generator.append_tokens(asked)
    while not generator.is_done():
        generator.generate_next_token()
        token = generator.get_next_tokens()[0]
        found += "" if token in tokenizer.eos_token_ids else stream.decode(token)
    return found


def row(path: Path) -> dict[str, Any]:
    [line] = path.read_text().splitlines()
    return dict(json.loads(line))


def summarising(folder: Path) -> PipelineSpec:
    path = written(folder, STAGES, f"rate = {RATE}\nwindow_s = 2.0", '"audio"', "summed")
    return parse_pipeline(path.read_text(), path.name)


def test_films_are_summarised_alike_by_any_fleet(home: Path, tmp_path: Path) -> None:
    spec, films = summarising(tmp_path), {"short": 9, "long": 101}
    for name, seconds in films.items():
        (tmp_path / f"{name}.wav").write_bytes(file_of(voice(seconds, RATE), RATE))
    files = [tmp_path / f"{name}.wav" for name in films]
    made: dict[str, dict[str, bytes]] = {}
    for label, workers in (("one", 1), ("three", 3), ("killed", 2)):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache", ack_wait_s=3.0) as fleet:
            listener = Killing(fleet) if label == "killed" else Silent()
            outcomes = fleet.run(spec, files, tmp_path / label, listener)
        assert all(outcome.ok for outcome in outcomes), outcomes
        made[label] = {path.name: path.read_bytes() for path in (tmp_path / label).iterdir()}
    assert made["one"] == made["three"] == made["killed"]
    spoken = "\n".join(f"second {at}" for at in range(0, 9, 2))
    short, long = (row(tmp_path / "one" / f"{name}.summed.jsonl") for name in films)
    assert short["text"] == answer(home, f"{PROMPT}\n\n{spoken}", 40)
    assert long["prompt_tokens"] > 512, "it was read in stretches: the model holds so many"
    assert long["tokens"] > 40


def test_what_no_summary_has_room_for_is_an_error_in_words(tmp_path: Path) -> None:
    spec = summarising(tmp_path).with_fields({"summarise.max_tokens": 300})
    (tmp_path / "long.wav").write_bytes(file_of(voice(101, RATE), RATE))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(spec, [tmp_path / "long.wav"], tmp_path)
    assert outcome.done is not None
    [failure] = outcome.done.failures
    assert failure.startswith("0.00 to 101.00 s, summarise: its text has 505 tokens, and model chat-model holds 512: ")
    assert "too few to make summaries of 300 of it: lower max_tokens" in failure


def test_answers_are_read_aloud(home: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    lines = [{"id": name, "prompt": text} for name, text in (("first", "abc"), ("second", "x y z"), ("bad", "x" * 600))]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = builtin_pipeline("chat-aloud").with_fields({"speak.model": "tones", "chat.max_tokens": 20})
    made: list[dict[str, bytes]] = []
    for workers in (1, 3):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache") as fleet:
            [outcome] = fleet.run(spec, [asked], tmp_path / str(workers))
        assert outcome.done is not None
        assert ["bad" in failure for failure in outcome.done.failures] == [True]
        made.append({path.name: path.read_bytes() for path in (tmp_path / str(workers)).rglob("*.wav")})
    assert set(made[0]) == {"first.wav", "second.wav"}
    assert made[0] == made[1]
