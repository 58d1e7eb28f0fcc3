"""clip-features held against PyTorchVideo itself: its transforms and its network, on real clips.

Runs where torch, torchvision and pytorchvideo are: `pip install -e '.[export,test]' torchvision`.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.models.catalogue import save_model
from engines.models.x3d import FRAMES, MEAN, SIDE, STD, build_network, export_x3d_s
from engines.part import Array
from pipelines.registry import builtin_pipeline
from schemas.errors import ModelError
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.own_pass import looks_of
from tests.reference import frames_of, rows_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are older than the Python they run on
CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import torchvision.transforms._functional_tensor as tensor_functions

        # what pytorchvideo calls it; torchvision gave it another name in 0.17
        sys.modules["torchvision.transforms.functional_tensor"] = tensor_functions
        from pytorchvideo.transforms import ApplyTransformToKey, ShortSideScale
        from torchvision.transforms import Compose, Lambda
        from torchvision.transforms._transforms_video import CenterCropVideo, NormalizeVideo
except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision is of another build than torch
    pytest.skip(f"needs the extra `export` and torchvision: {error}", allow_module_level=True)


def official_windows(name: str) -> list[Any]:
    """`[3, 13, 182, 182]` float32 of each window, by PyTorchVideo's transforms and the colours PyAV reads."""
    spec = builtin_pipeline("clip-features")
    frames, time_base, _ = frames_of(real_clip(name))
    _, windows_rows = rows_of([pts for pts, _ in frames], time_base, looks_of(spec))
    transform = ApplyTransformToKey(
        key="video",
        transform=Compose(
            [
                Lambda(lambda clip: clip / 255.0),
                NormalizeVideo([MEAN] * 3, [STD] * 3),
                ShortSideScale(size=SIDE),
                CenterCropVideo(crop_size=(SIDE, SIDE)),
            ]
        ),
    )
    windows = []
    for rows in windows_rows:
        pixels = np.stack([frames[row][1].to_ndarray(format="rgb24") for row in rows])
        windows.append(transform({"video": torch.from_numpy(pixels).permute(3, 0, 1, 2).float()})["video"])
    return windows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the official format that tell windows apart: random ones would give nearly equal features for all.

    Every normalisation gets the statistics of the real clips, as training would give it.
    """
    network = build_network()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        torch.nn.init.normal_(norm.bias, std=0.3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.train()(torch.stack([window for name in CLIPS for window in official_windows(name)[:2]]))
    path = tmp_path_factory.mktemp("weights") / "X3D_S.pyth"
    torch.save({"model_state": network.state_dict(), "epoch": 300}, path)
    return path


@pytest.fixture(scope="module")
def found(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Array]]]:
    """What the pipeline says of each clip, through a real broker and worker."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        save_model(home / ".local" / "share" / "rigflow" / "models", *export_x3d_s(checkpoint))
        with Fleet(ONE_WORKER, home / "cache") as fleet:
            outcomes = fleet.run(builtin_pipeline("clip-features"), [real_clip(name) for name in CLIPS], home / "out")
        results = {}
        for name, outcome in zip(CLIPS, outcomes, strict=True):
            assert outcome.ok, outcome.error
            with np.load(f"{outcome.target}.npz") as file:
                results[name] = {array: file[array] for array in file.files}
        yield results


def cosines(a: Array, b: Array) -> Array:
    a, b = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (a, b))
    return np.asarray((a * b).sum(-1))


@pytest.mark.parametrize("name", CLIPS)
def test_the_whole_chain_is_the_official_one(name: str, checkpoint: Path, found: dict[str, dict[str, Array]]) -> None:
    network = build_network(checkpoint)
    pooled: list[Any] = []
    network.blocks[-1].pool.register_forward_hook(lambda module, given, made: pooled.append(made))
    with torch.no_grad():
        scores = torch.cat([network(window[None]) for window in official_windows(name)]).numpy()
    features = torch.cat(pooled).mean((2, 3, 4)).numpy()
    ours = found[name]
    same, other = cosines(ours["features"], features), cosines(ours["features"][:-1], features[1:])
    by_scores = cosines(ours["scores"], scores)
    print(
        f"{name}: cosine of features {same.min():.6f} at least, of scores {by_scores.min():.6f};"
        f" of neighbouring windows {other.min():.3f} to {other.max():.3f}"
    )
    assert len(same) == len(official_windows(name)) > 3
    assert same.min() > 0.999
    assert by_scores.min() > 0.999


def test_the_pixels_are_the_official_ones() -> None:
    from tests.plans import converter

    preprocess = converter(builtin_pipeline("clip-features"))
    for name in CLIPS:
        frame = frames_of(real_clip(name))[0][0][1]
        rgb = frame.to_ndarray(format="rgb24")
        clip = torch.from_numpy(rgb).permute(2, 0, 1)[:, None].float()
        official = CenterCropVideo((SIDE, SIDE))(ShortSideScale(SIDE)(clip))[:, 0].permute(1, 2, 0).numpy()
        frame = type(frame).from_ndarray(rgb, "rgb24")
        assert np.abs(preprocess.convert(frame)["pixels"] - official).max() < 0.6, name


def test_random_weights_are_the_same_each_time() -> None:
    (card, body), (_, again) = export_x3d_s(), export_x3d_s()
    assert body == again
    assert card.version == "random"
    assert card.inputs[0].shape == ("N", FRAMES, SIDE, SIDE, 3)


def test_what_is_no_checkpoint_is_refused_in_a_line(tmp_path: Path, checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)["model_state"]
    path = tmp_path / "weights.pyth"
    for content, words in (
        ({"state": state}, "has no `model_state`"),
        ({"model_state": {"blocks.0": torch.zeros(3)}}, "is not of X3D-S"),
        ({"model_state": state | {"blocks.5.proj.bias": torch.zeros(7)}}, "1 tensors differ, the first is `blocks.5"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=words) as caught:
            export_x3d_s(path)
        assert "\n" not in str(caught.value)
    path.write_text("not a checkpoint")
    with pytest.raises(ModelError, match="is not a checkpoint, or is damaged"):
        export_x3d_s(path)
    with pytest.raises(ModelError, match="No such file"):
        export_x3d_s(tmp_path / "none.pyth")
