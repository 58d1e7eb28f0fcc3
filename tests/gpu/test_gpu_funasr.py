"""FunASR's networks on a GPU: the texts and times of a CPU, and equal files however chunks lie."""

from pathlib import Path

import pytest

from schemas.pipeline import parse_pipeline
from tests.fleet import ONE_WORKER, Fleet
from tests.listeners import PIPELINE, RATE, add_listeners, sound
from tests.sounds import file_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def test_texts_and_times_of_a_gpu_are_those_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    add_listeners(tmp_path)
    (tmp_path / "talk.wav").write_bytes(file_of(sound(40)[None], RATE))
    spec = parse_pipeline(PIPELINE, "dictate.toml")
    made: dict[str, dict[str, bytes]] = {}
    for name, device, workers in (("cpu", "cpu", 1), ("gpu", "cuda:0", 1), ("gpus", "cuda:0", 2)):
        out = tmp_path / name
        with Fleet(ONE_WORKER * workers, tmp_path / f"cache-{name}", devices=[device]) as fleet:
            for model in ("paraformer-zh", "SenseVoiceSmall"):
                (outcome,) = fleet.run(spec.with_model(model), [tmp_path / "talk.wav"], out / model)
                assert outcome.ok, outcome.error
        made[name] = {
            f"{path.parent.name}/{path.name}": path.read_bytes() for path in out.rglob("*.*") if path.is_file()
        }
    assert made["gpu"] == made["gpus"]
    texts = {name: {file: body for file, body in files.items() if ".json" not in file} for name, files in made.items()}
    assert texts["cpu"] == texts["gpu"]  # of the json, probabilities may differ in the last digits
