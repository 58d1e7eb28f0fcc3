"""Chat and completions by OpenAI's own client: answers of a tiny language model equal those of a plain run."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("onnxruntime_genai")

from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cli import rigflow  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.language import language_folder  # noqa: E402
from workers.definitions import find_models, register  # noqa: E402

pytestmark = pytest.mark.models
QUESTION = [{"role": "user", "content": "what is this?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("home")
    folder = language_folder(tmp_path_factory.mktemp("model") / "chat-model")
    assert rigflow("model", "add", folder, "--yes", HOME=str(home)).returncode == 0
    with pytest.MonkeyPatch.context() as patch, Fleet(ONE_WORKER, home / "cache") as fleet:
        patch.setenv("HOME", str(home))
        asyncio.run(_register(fleet.settings))
        with Gateway(fleet.settings) as gateway, opened(gateway.url) as client:
            yield client


def opened(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def _register(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        for name in ("chat", "complete"):
            spec = builtin_pipeline(name)
            await register(broker, settings, spec, find_models(spec, None))


def plain(tmp_path: Path, pipeline: str, **line: Any) -> str:
    """The answer that `rigflow run` gives."""
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    done = rigflow("run", pipeline, tmp_path / "q.jsonl", "--out", tmp_path, "--workers", "1", "--overwrite")
    assert done.returncode == 0, done.stderr
    return str(json.loads((tmp_path / f"q.{pipeline}.jsonl").read_text())["text"])


def test_an_answer_is_that_of_a_plain_run_whole_or_streamed(client: Any, tmp_path: Path) -> None:
    expected = plain(tmp_path, "chat", messages=QUESTION, max_tokens=40)
    whole = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, max_tokens=40)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.completion_tokens == len(expected), "a letter a token"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    options = {"include_usage": True}
    pieces = list(
        client.chat.completions.create(
            model="chat-model", messages=QUESTION, max_tokens=40, stream=True, stream_options=options
        )
    )
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == expected
    assert pieces[0].choices[0].delta.role == "assistant"
    assert all("usage" in piece.model_fields_set and piece.usage is None for piece in pieces[:-1])
    assert pieces[-1].choices == []
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == whole.choices[0].finish_reason
    assert pieces[-1].usage == whole.usage


def test_several_choices_are_drawn_by_their_seeds(client: Any) -> None:
    asked = {"model": "chat", "messages": QUESTION, "n": 3, "temperature": 2.0, "seed": 7, "max_tokens": 30}
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in again.choices]


def test_texts_are_completed_in_their_order(client: Any, tmp_path: Path) -> None:
    texts = ["one", "two words", "three"]
    made = client.completions.create(model="chat-model", prompt=texts, max_tokens=12)
    expected = [plain(tmp_path, "complete", prompt=text, max_tokens=12) for text in texts]
    assert [choice.text for choice in made.choices] == expected
    streamed = client.completions.create(model="chat-model", prompt="one", max_tokens=12, stream=True)
    assert "".join(piece.choices[0].text for piece in streamed) == expected[0]


def test_what_the_model_has_no_room_for_is_said(client: Any) -> None:
    long: Any = [{"role": "user", "content": "many " * 5000}]
    with pytest.raises(openai.APIStatusError, match="holds") as raised:
        client.chat.completions.create(model="chat", messages=long)
    assert raised.value.status_code == 400
