"""Stable Diffusions of PyTorch, converted by `rigflow model add`, beside diffusers over the same weights."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.diffusion.drawing import Drawing
from engines.diffusion.noise import normal
from engines.models.files import NewFiles
from engines.models.stable_files import exported
from schemas.errors import ModelError
from tests.cli import rigflow
from tests.integration.test_diffusers import NEGATIVE, PROMPT, SEED, SHAPE, Beside
from tests.stable_single import SIDE, folder_of, networks, single_of

# PyTorch and diffusers warn; a busy machine takes minutes
pytestmark = [pytest.mark.models, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"


@pytest.fixture
def new(tmp_path: Path) -> Iterator[NewFiles]:
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    with NewFiles(tmp_path / "store", lambda: None) as made:
        yield made


class Converted(Beside):
    """What was converted, and diffusers' own pipeline over the networks that it was made of."""

    def __init__(self, given: Path, new: NewFiles, kind: str, made: dict[str, Any]) -> None:
        folder = exported(given, new)
        assert folder is not None
        self.compare(folder, kind, made)


def check(beside: Converted, monkeypatch: pytest.MonkeyPatch, most_apart: float = 0.6) -> None:
    torch = pytest.importorskip("torch")
    wish = Drawing(PROMPT, NEGATIVE, (2 * SIDE, 2 * SIDE), steps=4, guidance=4.0, seed=SEED)
    worst, mean, most = beside.pictures(monkeypatch, wish, latents=torch.tensor(normal(SEED, 0, SHAPE)))
    assert worst < (1e-5 if most_apart < 1 else 5e-3), (worst, mean, most)
    assert most < most_apart, "but for rounding to bytes"


@pytest.mark.parametrize(("version", "kind"), [("1", SD), ("2", SD), ("xl", XL)])
def test_a_single_file_draws_as_diffusers(
    version: str, kind: str, new: NewFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = networks(version)
    path = single_of(made, tmp_path / "tiny.safetensors", version)
    beside = Converted(path, new, kind, made)
    schedule = json.loads((beside.folder / "scheduler" / "scheduler_config.json").read_text())
    assert (schedule["prediction_type"] if version == "2" else "v_prediction") == "v_prediction"
    check(beside, monkeypatch)


@pytest.mark.parametrize(("version", "kind"), [("1", SD), ("xl", XL)])
def test_a_folder_of_diffusers_draws_as_diffusers(
    version: str, kind: str, new: NewFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = networks(version)
    folder = folder_of(made, tmp_path / "tiny", kind, _class_name="EulerDiscreteScheduler")
    check(Converted(folder, new, kind, made), monkeypatch)


def test_weights_in_float16_stay_so_but_those_of_the_vae(
    new: NewFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    made = networks("1")
    folder = folder_of({name: each.half() for name, each in made.items()}, tmp_path / "tiny", SD, variant="fp16")
    beside = Converted(folder, new, SD, {name: each.float() for name, each in made.items()})
    kinds = {}
    for name in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        graph = onnx.load(beside.folder / name / "model.onnx", load_external_data=False).graph
        kinds[name] = graph.output[0].type.tensor_type.elem_type
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds == {"text_encoder": half, "unet": half, "vae_decoder": full, "vae_encoder": full}
    check(beside, monkeypatch, most_apart=3.0)


def test_model_add_takes_a_single_file_and_draws(new: NewFiles, tmp_path: Path) -> None:
    path = single_of(networks("1"), tmp_path / "tiny.safetensors", "1")
    home = tmp_path / "home"
    home.mkdir()
    added = rigflow("model", "add", path, "--yes", HOME=str(home))
    assert added.returncode == 0, added.stderr
    assert "kept tiny@" in added.stdout
    (tmp_path / "cat.txt").write_text("a red cat")
    sizes = [each for side in ("width", "height") for each in ("--set", f"imagine.{side}=32")]
    command = ("run", "imagine", tmp_path / "cat.txt", "--model", "tiny", "--set", "imagine.steps=2", *sizes)
    drawn = []
    for out in ("one", "two"):
        done = rigflow(*command, "--out", tmp_path / out, HOME=str(home))
        assert done.returncode == 0, done.stderr
        drawn.append(hashlib.sha256((tmp_path / out / "cat.imagine.png").read_bytes()).hexdigest())
    assert drawn[0] == drawn[1]
    left = [each for each in Path(str(home)).rglob("*") if "convert" in each.name]
    assert not left


def test_what_is_of_another_kind_is_refused_in_a_line(new: NewFiles, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = networks("1")
    path = single_of(made, tmp_path / "tiny.safetensors", "1")
    state = load_file(path)
    last = "model.diffusion_model.middle_block.2.out_layers.3.weight"
    cases = {
        "no-vae": ({k: v for k, v in state.items() if not k.startswith("first_stage")}, "lacks"),
        "no-text": ({k: v for k, v in state.items() if not k.startswith("cond")}, "has no text encoder"),
        "one-less": ({k: v for k, v in state.items() if k != last}, "has other tensors than its kind"),
    }
    for name, (tensors, words) in cases.items():
        file = tmp_path / f"{name}.safetensors"
        save_file(tensors, file)
        with pytest.raises(ModelError, match=words) as raised:
            exported(file, new)
        assert "\n" not in str(raised.value)
    inpaints = folder_of(networks("1", channels=9), tmp_path / "inpaints", SD)
    with pytest.raises(ModelError, match="takes 9 channels"):
        exported(inpaints, new)
