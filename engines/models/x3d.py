"""Exports `x3d_s`: X3D-S of PyTorchVideo, from its official checkpoint to ONNX.

The network is PyTorchVideo's own (Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", 2020);
it is not written here a second time. torch and pytorchvideo are imported only where they are used: they come with the
extra `export`, and running a model does not need them.
"""

import hashlib
import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from engines.extras import install_extra
from engines.models.graph import OPSET
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

FRAMES, SIDE = 13, 182
MEAN, STD = 0.45, 0.225  # of each colour, for pixels of 0 ... 1
_SEED = 0
_BUILT_FOR_SIDE = (
    160  # the head's pooling is built for training's crops; larger pictures give several outputs, averaged
)


def export_x3d_s(weights: Path | None = None) -> tuple[ModelSpec, bytes]:
    """Return model card and ONNX file of X3D-S: `pixels [N, 13, 182, 182, 3] uint8` -> `features [N, 2048]`, `scores`.

    `scores` is `[N, classes]`.

    `weights` is a checkpoint of PyTorchVideo's model zoo, a file of torch with `model_state`; without one the weights
    are random, the same each time. `features` is the input of the last layer, averaged over the picture, and `scores`
    are its probabilities, as the official network gives them. Raises ModelError: the extra is not installed, or the
    file is not a checkpoint of X3D-S.
    """
    torch, create_x3d = _official()
    state = None if weights is None else _read(torch, weights)
    network = _network(torch, create_x3d, state, weights)
    body = _onnx(torch, _wrapped(torch, network))
    classes = network.blocks[-1].proj.out_features
    spec = ModelSpec(
        name="x3d_s",
        version="random" if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()[:12],
        description="X3D-S with random weights, for trials only" if weights is None else f"X3D-S, {weights.name}",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", FRAMES, SIDE, SIDE, 3)),),
        outputs=(
            TensorSpec(name="features", dtype="float32", shape=("N", 2048)),
            TensorSpec(name="scores", dtype="float32", shape=("N", classes)),
        ),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return spec, body


def build_network(weights: Path | None = None) -> Any:
    """Return the official network in evaluation mode, a torch module of `[N, 3, 13, H, W]` float32, for the export."""
    torch, create_x3d = _official()
    return _network(torch, create_x3d, None if weights is None else _read(torch, weights), weights)


def _official() -> tuple[Any, Any]:
    try:
        import torch

        with _without_torchvision(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytorchvideo uses old interfaces
            from pytorchvideo.models.x3d import create_x3d
    except ImportError as error:
        raise ModelError(f"exporting needs torch and pytorchvideo ({error})", install_extra("export")) from error
    return torch, create_x3d


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Import pytorchvideo's networks if torchvision is missing, or does not fit torch (for example a build for CUDA).

    The package imports every network at once, and detection heads need torchvision's RoIAlign. X3D does not.
    """
    if "torchvision" in sys.modules:
        yield
        return
    package, operations = ModuleType("torchvision"), ModuleType("torchvision.ops")
    operations.RoIAlign = None  # type: ignore[attr-defined]
    package.ops = operations  # type: ignore[attr-defined]
    stand_ins = {"torchvision": package, "torchvision.ops": operations}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _read(torch: Any, weights: Path) -> Mapping[str, Any]:
    """Return the tensors of a checkpoint by name; no code in the file is run."""
    hint = "give the official X3D_S.pyth of PyTorchVideo's model zoo, or a file that torch.save made of {'model_state'}"
    try:
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {weights}: {error.strerror or error}", "check the path") from error
    except Exception as error:  # torch raises many kinds of errors of its readers, pickle and zip
        raise ModelError(f"{weights} is not a checkpoint, or is damaged, or holds more than tensors", hint) from error
    state = checkpoint.get("model_state") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise ModelError(f"{weights} has no `model_state`", hint)
    return state


def _network(torch: Any, create_x3d: Any, state: Mapping[str, Any] | None, weights: Path | None) -> Any:
    """Return the network with the tensors of `state`, or with random ones."""
    head = None if state is None else state.get("blocks.5.proj.weight")
    classes = 400 if head is None else len(head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = create_x3d(input_clip_length=FRAMES, input_crop_size=_BUILT_FOR_SIDE, model_num_class=classes)
    if state is not None:
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in state.items()}
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            first = f"the first is `{wrong[0]}`, {found.get(wrong[0], 'missing')} for {expected.get(wrong[0], 'none')}"
            raise ModelError(f"{weights} is not of X3D-S: {len(wrong)} tensors differ, {first}", "give X3D_S.pyth")
        network.load_state_dict(state)
    return network.eval()


def _wrapped(torch: Any, network: Any) -> Any:
    """Return the network with bytes of preprocess as input, and both outputs."""

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = network.blocks[:-1]
            self.head = network.blocks[-1]

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            clip = pixels.permute(0, 4, 1, 2, 3).to(torch.float32) * (1 / (255 * STD)) - MEAN / STD
            for block in self.body:
                clip = block(clip)
            pooled = self.head.pool(clip)
            places = self.head.proj(pooled.permute(0, 2, 3, 4, 1))
            return pooled.mean((2, 3, 4)), self.head.activation(places.permute(0, 4, 1, 2, 3)).mean((2, 3, 4))

    return Wrapped().eval()


def _onnx(torch: Any, module: Any) -> bytes:
    file = io.BytesIO()
    example = torch.zeros(1, FRAMES, SIDE, SIDE, 3, dtype=torch.uint8)
    names = ["features", "scores"]
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of the tracing exporter, the only one that writes an opset this old
        torch.onnx.export(
            module,
            (example,),
            file,
            input_names=["pixels"],
            output_names=names,
            dynamic_axes={name: {0: "N"} for name in ("pixels", *names)},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()
