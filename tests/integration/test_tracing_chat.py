"""Traces of language models: an answer is one span, however many steps wrote it."""

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime_genai")

from pipelines.registry import builtin_pipeline
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.integration.test_tracing import until
from tests.language import language_folder
from tests.otlp import facts_of, receiver

pytestmark = pytest.mark.models


def test_an_answer_is_one_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = language_folder(tmp_path / "chat-model")
    assert rigflow("model", "add", folder, "--yes", HOME=str(tmp_path)).returncode == 0
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "q.jsonl").write_text('{"prompt": "why?"}\n')
    with receiver() as received, Fleet(ONE_WORKER, tmp_path / "cache", otlp=received.url) as fleet:
        spec = builtin_pipeline("chat").with_fields({"chat.max_tokens": 60})
        [outcome] = fleet.run(spec, [tmp_path / "q.jsonl"], tmp_path / "out")
        assert outcome.ok, outcome.error
        for name in ("chat", "encode", "job chat"):
            until(received, name)
    [answer] = received.named("chat")
    assert facts_of(answer)["rigflow.job"] == outcome.job.id
    [encode] = received.named("encode")
    assert answer.start_time_unix_nano < answer.end_time_unix_nano <= encode.start_time_unix_nano
    assert len(received.traces()) == 1
