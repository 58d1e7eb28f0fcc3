"""FunASR's networks through fleets: one worker, three, and one that is killed write equal files."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from schemas.pipeline import parse_pipeline
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing
from tests.listeners import PIPELINE, RATE, add_listeners, sound
from tests.sounds import file_of


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        add_listeners(folder)
        yield


def test_one_worker_three_and_a_kill_give_equal_files(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(file_of(sound(24)[None], RATE))
    (tmp_path / "short.flac").write_bytes(file_of(sound(1)[None, :300], RATE, "flac", "flac"))
    files, spec = [tmp_path / "talk.wav", tmp_path / "short.flac"], parse_pipeline(PIPELINE, "dictate.toml")
    voice = spec.with_model("SenseVoiceSmall")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        outcomes = fleet.run(spec, files, tmp_path / "one")
        fleet.run(voice, files[:1], tmp_path / "voice")
    assert all(outcome.ok for outcome in outcomes)
    with Fleet(ONE_WORKER * 3, tmp_path / "cache") as fleet:
        fleet.run(spec, files, tmp_path / "three", Killing(fleet))
    made = {path.name: path.read_bytes() for path in sorted((tmp_path / "one").iterdir()) if path.is_file()}
    assert made == {path.name: path.read_bytes() for path in sorted((tmp_path / "three").iterdir()) if path.is_file()}
    assert sorted(made) == [f"{name}.dictate.{kind}" for name in ("short", "talk") for kind in ("json", "srt", "txt")]
    assert made["short.dictate.txt"] == b""
    segments = json.loads(made["talk.dictate.json"])["segments"]
    assert len(segments) > 6
    assert all(first["end"] <= second["start"] + 1e-6 for first, second in pairwise(segments))
    assert made["talk.dictate.srt"].count(b" --> ") >= len(segments)
    [heard] = [json.loads(path.read_text()) for path in (tmp_path / "voice").glob("*.json")]
    assert {segment["emotion"] for segment in heard["segments"]} == {"HAPPY"}


def test_the_command_says_what_is_missing_and_what_a_model_lacks(tmp_path: Path) -> None:
    (tmp_path / "dictate.toml").write_text(PIPELINE)
    (tmp_path / "talk.wav").write_bytes(file_of(sound(2)[None], RATE))
    run = ("run", tmp_path / "dictate.toml", tmp_path / "talk.wav", "--out", tmp_path / "out")
    missing = rigflow(*run, "--model", "paraformer-large")
    assert "download a folder of FunASR as ONNX, as https://huggingface.co/funasr/paraformer-large" in missing.stderr
    refused = rigflow(*run, "--set", "transcribe.task=translate")
    assert "model `paraformer-zh` is a Paraformer, which has no task: leave it out" in refused.stderr
    other = rigflow(*run, "--model", "fingerprint")
    assert "model `fingerprint` is no Whisper, Paraformer or SenseVoice" in other.stderr


@pytest.mark.models
@pytest.mark.skipif(find_spec("faster_whisper") is None, reason="make test-models installs Silero's network")
def test_the_pipeline_transcribe_runs_them_behind_silero_s_network(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(file_of(sound(20)[None], RATE))
    for model in ("paraformer-zh", "SenseVoiceSmall"):
        done = rigflow(
            "run", "transcribe", tmp_path / "talk.wav", "--model", model, "--set", "speech.threshold=0.01",
            "--out", tmp_path / model,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        [made] = (tmp_path / model).glob("*.json")
        assert json.loads(made.read_text())["duration"] == 20.0
