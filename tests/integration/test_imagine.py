"""imagine: pictures of a tiny Stable Diffusion are the same from one worker, and from three of which one is killed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.registry import builtin_pipeline
from schemas.pipeline import PipelineSpec
from tests.cases import files_under, stills
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing
from tests.lora_files import lora_of, write_safetensors
from tests.stable import decoder, stable_folder, unet
from tests.unit.test_lora import CONV, TO_K, UNET, named

GOOD = [{"id": f"p{number}", "prompt": f"a red cat {number}", "steps": 3 + number % 3} for number in range(10)]
LINES: list[dict[str, Any]] = [
    *GOOD,
    {"id": "seeded", "prompt": "a dog", "seed": 7},
    {"id": "again", "prompt": "a dog", "seed": 7},
    {"id": "wide", "prompt": "a dog", "width": 64, "height": 16},
    {"id": "other", "prompt": "a dog", "scheduler": "euler-a", "guidance": 2, "negative": "red"},
    {"id": "long", "prompt": "cat " * 100},
    {"id": "bad-seed", "prompt": "a dog", "seed": -1},
    {"id": "no-steps", "prompt": "a dog", "steps": 0},
    {"id": "magic", "prompt": "a dog", "scheduler": "magic"},
    {"id": "odd", "prompt": "a dog", "width": 33},
    {"id": "many", "prompt": "a dog", "scheduler": "lcm", "steps": 60},
]
BAD = {
    "bad-seed": "seed: ",
    "no-steps": "steps: ",
    "magic": "there is no scheduler magic, only ddim, euler",
    "odd": "width: ",
    "many": "60 steps are not possible with lcm",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home where the model is kept."""
    home = tmp_path_factory.mktemp("home")
    folder = stable_folder(tmp_path_factory.mktemp("given") / "tiny")
    added = rigflow("model", "add", folder, "--name", "stable-diffusion", "--yes", HOME=str(home))
    assert added.returncode == 0, added.stderr
    assert "Stable Diffusion: pictures of words; scheduler pndm" in added.stdout
    assert 'drew "a photo of a dog" in 2 steps, 32x32' in added.stdout
    preview = home / ".cache" / "rigflow" / "previews" / "stable-diffusion.png"
    assert pixels(preview.read_bytes()).shape == (32, 32, 3)
    broken = stable_folder(tmp_path_factory.mktemp("broken") / "tiny", graphs={"vae_decoder": decoder(broken=True)})
    refused = rigflow("model", "add", broken, "--name", "broken", "--yes", HOME=str(home))
    assert "broken: vae_decoder gave numbers that are none" in refused.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home


def pipeline(name: str = "imagine", **options: Any) -> PipelineSpec:
    return builtin_pipeline(name).with_fields({f"imagine.{key}": value for key, value in options.items()})


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pictures_are_the_same_from_any_fleet(home: Path, tmp_path: Path) -> None:
    given = tmp_path / "prompts.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(pipeline(batch=3), [given], tmp_path / "one")
        pictures = stills(tmp_path)
        drawn = pipeline("restyle", prompt="a cat", width=32, height=32, steps=4)
        [anew] = fleet.run(drawn, pictures, tmp_path / "anew")
    found = {Path(name).stem: data for name, data in files_under(tmp_path / "one").items()}
    assert set(found) == {line["id"] for line in LINES} - set(BAD)
    assert outcome.done is not None
    for name, text in BAD.items():
        assert any(name in failure and text in failure for failure in outcome.done.failures), outcome.done.failures
    assert any("a prompt has more than 75 tokens" in note for note in outcome.done.notes), outcome.done.notes
    assert found["seeded"] == found["again"]
    assert len({found[line["id"]] for line in GOOD}) == len(GOOD)
    assert pixels(found["wide"]).shape == (16, 64, 3)
    assert pixels(found["p0"]).shape == (32, 32, 3)
    assert anew.ok, anew
    assert {pixels(data).shape for data in files_under(tmp_path / "anew").values()} == {(32, 32, 3)}
    assert len(set(files_under(tmp_path / "anew").values())) == 3

    with Fleet(ONE_WORKER * 3, tmp_path / "cache", ack_wait_s=3.0) as fleet:
        fleet.run(pipeline(batch=3), [given], tmp_path / "three", Killing(fleet))
    assert files_under(tmp_path / "one") == files_under(tmp_path / "three")


def test_what_cannot_work_is_refused_before_any_work(home: Path, tmp_path: Path) -> None:
    given = tmp_path / "cat.txt"
    given.write_text("a cat")
    for options, text in (
        (["--set", "imagine.steps=0"], "steps"),
        (["--set", "imagine.scheduler=magic"], "there is no scheduler magic"),
        (["--set", "imagine.size=4"], "size"),
        (["--model", "none"], "model none is missing"),
    ):
        done = rigflow("run", "imagine", given, *options, HOME=str(home))
        assert done.returncode != 0
        assert text in done.stderr, done.stderr
    missing = rigflow("run", "imagine", given, HOME=str(tmp_path))
    assert "get a folder of Stable Diffusion, as ONNX files or as that of diffusers" in missing.stderr


def test_a_lora_makes_a_model_of_its_own(home: Path, tmp_path: Path) -> None:
    folder = stable_folder(tmp_path / "tiny", graphs={"unet": named(unet(), CONV, TO_K)})
    lora = write_safetensors(tmp_path / "style.safetensors", lora_of(UNET))
    added = rigflow("model", "add", folder, "--lora", f"{lora}:0.8", "--yes", HOME=str(home))
    assert added.returncode == 0, added.stderr
    assert "kept tiny-style@1" in added.stdout
    assert "with LoRA style at 0.8" in rigflow("model", "show", "tiny-style", HOME=str(home)).stdout
    refused = rigflow("model", "add", folder, "--lora", tmp_path / "none.safetensors", "--yes", HOME=str(home))
    assert refused.returncode != 0
    assert "none.safetensors: No such file or directory: check the path" in refused.stderr
