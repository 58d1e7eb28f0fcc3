"""chat and complete: answers of a tiny language model equal those of GenAI's own loop, from any fleet."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest

from engines.content import ModelFiles
from engines.inference.genai_folder import limits_of
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from schemas.results import Delta
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.language import language_folder
from workers.definitions import find_models, register

og = pytest.importorskip("onnxruntime_genai")
pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]
PROMPTS = [f"question {number} of {'many ' * (number % 7)}" for number in range(30)]
TOKENS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("model") / "chat-model")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Path]:
    """A home where the model is kept."""
    home = tmp_path_factory.mktemp("home")
    done = rigflow("model", "add", folder, "--yes", HOME=str(home))
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def library(folder: Path) -> "Library":
    return Library(folder)


class Library:
    """GenAI's own loop, as its examples have it."""

    def __init__(self, folder: Path) -> None:
        self.model = og.Model(str(folder))
        self.tokenizer = og.Tokenizer(self.model)

    def chat(self, text: str, tokens: int = TOKENS) -> str:
        message = json.dumps([{"role": "user", "content": text}])
        return self.complete(self.tokenizer.apply_chat_template(message, add_generation_prompt=True), tokens)

    def complete(self, text: str, tokens: int = TOKENS) -> str:
        asked = self.tokenizer.encode(text)
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=len(asked) + tokens, do_sample=False)
        generator, stream, answer = og.Generator(self.model, params), self.tokenizer.create_stream(), ""
        generator.append_tokens(asked)
        while not generator.is_done():
            generator.generate_next_token()
            token = generator.get_next_tokens()[0]
            answer += "" if token in self.tokenizer.eos_token_ids else stream.decode(token)
        return answer


def pipeline(name: str = "chat", **options: Any) -> PipelineSpec:
    return builtin_pipeline(name).with_fields({f"{name}.{key}": value for key, value in options.items()})


def asked(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_equal_the_librarys_from_any_fleet(home: Path, library: Library, tmp_path: Path) -> None:
    drawn = [{"prompt": text, "temperature": 3.0, "top_k": 20} for text in PROMPTS[:6]]  # by seeds of their own places
    given = asked(tmp_path / "q.jsonl", [{"prompt": text} for text in PROMPTS] + drawn)
    written = []
    for name, workers in (("one", 1), ("three", 3)):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache") as fleet:
            [outcome] = fleet.run(pipeline(max_tokens=TOKENS), [given], tmp_path / name)
        assert outcome.ok, outcome
        written.append((tmp_path / name / "q.chat.jsonl").read_bytes())
    found = rows(tmp_path / "one" / "q.chat.jsonl")
    assert [row["text"] for row in found[:30]] == [library.chat(text) for text in PROMPTS]
    assert {row["finish"] for row in found} == {"stop", "length"}
    assert [row["tokens"] for row in found] == [len(row["text"]) for row in found], "a letter a token"
    assert outcome.done is not None
    assert outcome.done.tokens == sum(row["tokens"] + row["prompt_tokens"] for row in found)
    assert len({row["text"] for row in found[30:]}) > 3, "short ones may be alike by chance"
    assert [row["text"] for row in found[30:]] != [row["text"] for row in found[:6]]
    assert written[0] == written[1]


def test_a_model_whose_answers_differ_in_a_batch_answers_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of GenAI 0.18 gives other answers where positions are an input of the graph."""
    folder = language_folder(tmp_path / "placed", positions=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rigflow("model", "add", folder, "--yes", HOME=str(tmp_path)).returncode == 0
    given, library = asked(tmp_path / "q.jsonl", [{"prompt": text} for text in PROMPTS]), Library(folder)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        fleet.run(pipeline(max_tokens=TOKENS).with_model("placed"), [given], tmp_path)
    assert [row["text"] for row in rows(tmp_path / "q.chat.jsonl")] == [library.chat(text) for text in PROMPTS]


def test_items_fail_alone_and_texts_are_continued(home: Path, library: Library, tmp_path: Path) -> None:
    lines = [
        {"id": "good", "prompt": "abc"},
        {"id": "long", "prompt": "x" * 600},
        {"id": "much", "prompt": "x", "max_tokens": 600},
        {"id": "odd", "prompt": "x", "temperature": "hot"},
        {"id": "schema", "prompt": "x", "json_schema": {"type": 3}},
        {"id": "turns", "messages": [{"role": "user", "content": "a"}]},
        {"id": "stopped", "prompt": "abc", "stop": library.complete("abc")[3:5]},
        {"id": "lengthy", "prompt": "ab " * 120},
        {"id": "object", "prompt": "x", "max_tokens": 40, "json_schema": {"type": "string", "const": "yes"}},
    ]
    given = asked(tmp_path / "q.jsonl", lines)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(pipeline("complete", max_tokens=TOKENS), [given], tmp_path)
    assert outcome.done is not None
    found = {row["name"]: row for row in rows(tmp_path / "q.complete.jsonl")}
    assert list(found) == [line["id"] for line in lines]
    assert found["good"]["text"] == library.complete("abc")
    assert found["stopped"]["text"] == library.complete("abc")[:3]
    assert found["stopped"]["finish"] == "stop"
    assert found["lengthy"]["text"] == library.complete("ab " * 120), "it is read in pieces"
    assert "error" not in found["object"], found["object"]
    assert json.loads(found["object"]["text"]) == "yes"
    errors = {name: row["error"] for name, row in found.items() if "error" in row}
    assert errors == {
        "long": "its text has 600 tokens, and 60 more are wanted: model chat-model holds 512 together: "
        "shorten the text, or lower max_tokens",
        "much": "its text has 1 tokens, and 600 more are wanted: model chat-model holds 512 together: "
        "shorten the text, or lower max_tokens",
        "odd": "temperature: should be a valid number: see docs/chat.md",
        "schema": "model chat-model failed: Error creating grammar: type must be a string or array of strings: "
        "correct the request",
        "turns": "it has messages, and this stage continues a text: use the pipeline `chat`",
    }
    assert len(outcome.done.failures) == 5
    assert outcome.done.lost == 5


def test_a_person_waits_for_no_bulk_answer_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = language_folder(tmp_path / "endless", ends=False)
    assert rigflow("model", "add", folder, "--yes", HOME=str(tmp_path)).returncode == 0
    spec = pipeline(max_tokens=400).with_model("endless")
    [(card, content)] = find_models(spec, None).values()
    assert isinstance(content, ModelFiles)
    two_texts = 2 * limits_of(content, card, 1 << 40).slot_bytes

    async def ended(fleet: Fleet) -> list[str]:
        """Jobs in the order in which they end."""
        async with Broker.connected(fleet.settings, name="test") as broker:
            await register(broker, fleet.settings, spec, find_models(spec, None))
        client, jobs = await nats.connect(fleet.settings.nats), []
        results = await client.subscribe("rigflow.results.main.chat.*")
        for number in range(12):
            headers = {"Rigflow-Job": f"bulk-{number}"}
            await client.jetstream().publish("rigflow.media.main.chat.bulk", b"hello %d" % number, headers=headers)
        while not jobs:
            jobs += await next_done(results)
        headers = {"Rigflow-Job": "person"}
        await client.jetstream().publish("rigflow.media.main.chat", b"hello", headers=headers)
        while "person" not in jobs:
            jobs += await next_done(results)
        await client.close()
        return jobs

    with Fleet(ONE_WORKER, tmp_path / "cache", kv_bytes=float(two_texts)) as fleet:
        assert len(asyncio.run(ended(fleet))) < 9, "of two answers at a time one is never of bulk"


def test_a_text_of_standard_input_is_answered_on_standard_output(home: Path, library: Library, tmp_path: Path) -> None:
    def answered(text: str, *options: str) -> Any:
        command = [sys.executable, "-m", "cli", "run", "chat", "-", "--workers", "1", *options]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=os.environ)

    limit = ("--set", f"chat.max_tokens={TOKENS}")
    done = answered("hello", *limit)
    assert (done.stdout, done.returncode) == (library.chat("hello") + "\n", 0), done.stderr
    lines = answered('{"prompt": "hello"}\n{"prompt": "x", "max_tokens": 9999}\n{"prompt": "abc"}\n', *limit)
    assert lines.stdout == f"{library.chat('hello')}\n{library.chat('abc')}\n"
    assert lines.returncode != 0
    assert "9999 more are wanted" in lines.stderr
    kept = answered("hello", "--out", str(tmp_path / "answers"), *limit)
    [path] = (tmp_path / "answers").iterdir()
    assert (path.name, kept.returncode) == ("stdin.chat.jsonl", 0), kept.stderr
    assert json.loads(path.read_text())["text"] == library.chat("hello")
    nothing = answered(" \n")
    assert (nothing.stdout, nothing.returncode != 0) == ("", True)
    assert nothing.stderr.startswith("rigflow: standard input has nothing in it: give a text")


async def next_done(results: Any) -> list[str]:
    message = await results.next_msg(120)
    return [message.subject.rpartition(".")[2]] if message.headers["Rigflow-Type"] == "done" else []


async def follow(fleet: Fleet, deltas: list[Delta], subject: str = "rigflow.deltas.>") -> nats.NATS:
    """Gather deltas, as a program that has only NATS gets them."""
    client = await nats.connect(fleet.settings.nats)

    async def take(message: Any) -> None:
        delta, _ = decode(message.data)
        assert isinstance(delta, Delta)
        assert message.headers["Rigflow-Type"] == "delta"
        deltas.append(delta)

    await client.subscribe(subject, cb=take)
    await client.flush()
    return client


def test_text_comes_as_it_is_written_and_a_killed_worker_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = language_folder(tmp_path / "endless", ends=False)
    assert rigflow("model", "add", folder, "--yes", HOME=str(tmp_path)).returncode == 0
    given = asked(tmp_path / "q.jsonl", [{"id": f"q{n}", "prompt": text} for n, text in enumerate(PROMPTS[:8])])
    spec, deltas = pipeline(max_tokens=300).with_model("endless"), []

    async def run(fleet: Fleet, kill: bool) -> bytes:
        client = await follow(fleet, deltas)
        running = asyncio.create_task(fleet.run_async(spec, [given], tmp_path / str(kill)))
        if kill:
            while not deltas:
                assert not running.done(), "the answers ended without a delta"
                await asyncio.sleep(0.002)
            fleet.workers[0].send_signal(signal.SIGKILL)
            fleet.workers[0].wait()
            fleet.workers[0] = fleet._spawn(0)
        [outcome] = await running
        assert outcome.ok, outcome
        await client.flush()
        await client.close()
        return (tmp_path / str(kill) / "q.chat.jsonl").read_bytes()

    results = []
    for kill in (False, True):
        deltas.clear()
        with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=3.0) as fleet:
            results.append(asyncio.run(run(fleet, kill)))
            texts: dict[tuple[str, int], str] = defaultdict(str)
            for delta in deltas:
                assert delta.number or not texts[delta.name, delta.generation]
                texts[delta.name, delta.generation] += delta.text
            found = {row["name"]: row["text"] for row in map(json.loads, results[-1].splitlines())}
            for (name, _), text in texts.items():
                assert found[name].startswith(text), "each generation writes the same answer"
            for name, text in found.items():
                assert text in (each for (other, _), each in texts.items() if other == name)
            assert not kill or max(generation for _, generation in texts) > 1
            assert asyncio.run(stored(fleet)) == [], "no stream keeps them"
    assert results[0] == results[1]


async def stored(fleet: Fleet) -> list[str]:
    """Subjects of deltas in the stream of results."""
    async with Broker.connected(fleet.settings, name="test") as broker:
        info = await broker.api(f"STREAM.INFO.{broker.names.results_stream}", {"subjects_filter": ">"})
        return [subject for subject in info["state"].get("subjects", {}) if "deltas" in subject]
