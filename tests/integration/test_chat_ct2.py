"""chat and complete by CTranslate2: answers equal those of the library alone, from any fleet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.registry import builtin_pipeline
from schemas.pipeline import PipelineSpec
from tests.cli import rigflow
from tests.ct2_language import ct2_language_folder
from tests.fleet import ONE_WORKER, Fleet, Killing
from tests.language import END

ct2 = pytest.importorskip("ctranslate2")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
pytestmark = pytest.mark.models
PROMPTS = [f"question {number} of {'many ' * (number % 3)}" for number in range(32)]
TOKENS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ct2_language_folder(tmp_path_factory.mktemp("model") / "chat-model")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Path]:
    """A home where the model is kept."""
    home = tmp_path_factory.mktemp("home")
    done = rigflow("model", "add", folder, "--yes", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert 'backend = "ctranslate2-text"' in done.stdout
    assert 'inputs.0.shape = ["N", 512]' in done.stdout, "its places bound the context"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home


class Library:
    """CTranslate2's own call, for one question."""

    def __init__(self, folder: Path) -> None:
        self._generator = ct2.Generator(str(folder), compute_type="int8_float32", intra_threads=1)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def __call__(self, text: str, tokens: int = TOKENS) -> str:
        asked = self._tokenizer.encode(text, add_special_tokens=False).tokens
        options: dict[str, Any] = {"include_prompt_in_result": False, "sampling_topk": 1, "end_token": [END]}
        [made] = self._generator.generate_batch([asked], max_length=tokens, **options)
        return str(self._tokenizer.decode(made.sequences_ids[0]))

    def chat(self, text: str) -> str:
        return self(f"<user>user:{text}<end><assistant>")

    def drawn(self, text: str, temperature: float, seed: int, most: int) -> str:
        """The text with tokens that are drawn: the whole text is read again for each of them."""
        tokens, made = self._tokenizer.encode(text, add_special_tokens=False).tokens, []
        while len(made) < most:
            [result] = self._generator.generate_batch(
                [tokens], max_length=1, include_prompt_in_result=False, return_logits_vocab=True, end_token=[]
            )
            scores = np.array(result.logits[0][0], np.float64)[: self._tokenizer.get_vocab_size()]
            shares = np.exp((scores - scores.max()) / temperature)
            lot = np.random.Generator(np.random.Philox(key=seed, counter=len(made))).random()
            token = int(np.flatnonzero(np.cumsum(shares) > lot * shares.sum())[0])
            if token == END:
                break
            made.append(token)
            tokens.append(self._tokenizer.id_to_token(token))
        return str(self._tokenizer.decode(made)).rstrip("\ufffd")  # a character that is not complete is no text


def pipeline(name: str = "chat", **options: object) -> PipelineSpec:
    return builtin_pipeline(name).with_fields({f"{name}.{key}": value for key, value in options.items()})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_answers_equal_the_librarys_from_any_fleet(home: Path, folder: Path, tmp_path: Path) -> None:
    given, library = asked(tmp_path / "q.jsonl", [{"prompt": text} for text in PROMPTS]), Library(folder)
    written = []
    for name, workers in (("one", 1), ("three", 3), ("killed", 1)):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache", ack_wait_s=3.0) as fleet:
            listener = Killing(fleet) if name == "killed" else None
            [outcome] = fleet.run(pipeline(max_tokens=TOKENS), [given], tmp_path / name, listener)
            assert outcome.ok, outcome
        written.append((tmp_path / name / "q.chat.jsonl").read_bytes())
    assert written[0] == written[1] == written[2]
    found = rows(tmp_path / "one" / "q.chat.jsonl")
    assert [row["text"] for row in found] == [library.chat(text) for text in PROMPTS]
    assert {row["finish"] for row in found} <= {"stop", "length"}


def test_items_fail_alone_and_texts_are_continued(home: Path, folder: Path, tmp_path: Path) -> None:
    library = Library(folder)
    text = next(text for text in PROMPTS if len(set(library(text)[:6])) == 6)
    lines: list[dict[str, object]] = [
        {"id": "good", "prompt": text},
        {"id": "long", "prompt": "x" * 600},
        {"id": "schema", "prompt": "x", "json_schema": {"type": "object"}},
        {"id": "stopped", "prompt": text, "stop": library(text)[3:5]},
        {"id": "short", "prompt": text, "max_tokens": 3},
    ]
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        given = asked(tmp_path / "q.jsonl", lines)
        [outcome] = fleet.run(pipeline("complete", max_tokens=TOKENS), [given], tmp_path)
    assert outcome.done is not None
    found = {row["name"]: row for row in rows(tmp_path / "q.complete.jsonl")}
    assert found["good"]["text"] == library(text)
    assert (found["stopped"]["text"], found["stopped"]["finish"]) == (library(text)[:3], "stop")
    assert (found["short"]["text"], found["short"]["finish"]) == (library(text)[:3], "length")
    hint = "leave out json_schema, or add the model as a folder of ONNX Runtime GenAI"
    assert {name: row["error"] for name, row in found.items() if "error" in row} == {
        "long": "its text has 600 tokens, and 40 more are wanted: model chat-model holds 512 together: "
        "shorten the text, or lower max_tokens",
        "schema": f"model chat-model writes no answers that fulfil a schema: {hint}",
    }


def test_drawn_answers_follow_from_their_seed_alone(home: Path, folder: Path, tmp_path: Path) -> None:
    own = [{"prompt": text, "temperature": 0.8 + n, "seed": n} for n, text in enumerate(PROMPTS[:6])]
    lines = [*own, *({"prompt": text, "temperature": 1.0, "top_k": 5} for text in PROMPTS[:4])]
    given, library, written = asked(tmp_path / "q.jsonl", lines), Library(folder), []
    for workers in (1, 3):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache") as fleet:
            [outcome] = fleet.run(pipeline("complete", max_tokens=20), [given], tmp_path / str(workers))
        assert outcome.ok, outcome
        written.append((tmp_path / str(workers) / "q.complete.jsonl").read_bytes())
    assert written[0] == written[1]
    found = [row["text"] for row in rows(tmp_path / "1" / "q.complete.jsonl")]
    assert found[:6] == [library.drawn(text, 0.8 + n, n, 20) for n, text in enumerate(PROMPTS[:6])]
    assert found[:6] != [library(text, 20) for text in PROMPTS[:6]]


def test_folders_that_are_not_whole_are_one_line(folder: Path, tmp_path: Path) -> None:
    def added(name: str, change: str, content: bytes | None) -> str:
        broken = tmp_path / name
        broken.mkdir()
        for file in folder.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        (broken / change).unlink(missing_ok=True)
        if content is not None:
            (broken / change).write_bytes(content)
        done = rigflow("model", "add", broken, "--yes", HOME=str(tmp_path))
        assert done.returncode != 0
        return done.stderr

    assert "has no tokenizer.json: download the whole folder" in added("a", "tokenizer.json", None)
    assert "is damaged: it ends within" in added("b", "model.bin", (folder / "model.bin").read_bytes()[:3000])
    loop = b"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert "it does not end within 300,000 steps" in added("c", "chat_template.jinja", loop)
