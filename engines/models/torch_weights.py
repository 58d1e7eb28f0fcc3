"""Converts weights of torch (.pth, .pt, .ckpt, .safetensors) of networks of pictures to ONNX files.

spandrel recognises the network by the names of its tensors: ESRGAN, Compact, SwinIR, HAT, GFPGAN and forty more.
spandrel and torch come with the extra `convert`, and only this module imports them; running the model does not need
them.
"""

import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from engines.models.graph import OPSET
from engines.own_process import in_own_process
from schemas.errors import ModelError

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_ONNX = "export it to ONNX where it was trained"
_SIDE = 64  # of the traced picture, at least


def convert(weights: Path) -> bytes:
    """Return the ONNX file of a network: `input [n, C, h, w]`, 0 ... 1 -> `output [n, C', h', w']`, float32, opset 17.

    Networks with one fixed size keep it. No code in the file is run. Raises ModelError: the extra is not installed, or
    spandrel does not know a network with such tensors.
    """
    return in_own_process(str(weights), "converts", _ONNX, _convert, weights)


def _convert(weights: Path) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import spandrel
            import torch
    except ImportError as error:
        what = f"converting {weights.name} needs torch and spandrel ({error})"
        raise ModelError(what, "install the extra: pip install 'rigflow[convert]'") from error
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_file(weights)
    except OSError as error:
        raise ModelError(f"cannot read {weights}: {error.strerror or error}", "check the path") from error
    except Exception as error:  # errors of the readers of torch, pickle and zip, and an unknown network
        reason = " ".join(str(error).split())[:200]
        what = f"{weights} has weights of no network that spandrel knows" + (f" ({reason})" if reason else "")
        raise ModelError(what, _ONNX) from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise ModelError(f"{weights} is {found.architecture.name}, which wants more than a picture", _ONNX)
    return _onnx(torch, found)


def _onnx(torch: Any, found: Any) -> bytes:
    """Trace the network of a descriptor."""
    needs = found.size_requirements
    side = max(_SIDE, needs.minimum)
    side += -side % needs.multiple_of
    free = not needs.square and needs.minimum <= _SIDE and needs.multiple_of == 1

    class Picture(torch.nn.Module):  # type: ignore[misc]
        """The network with the picture as its only output."""

        def __init__(self) -> None:
            super().__init__()
            self.network = found.model.eval()

        def forward(self, picture: Any) -> Any:
            answer = self.network(picture)
            return answer[0] if isinstance(answer, (tuple, list)) else answer

    file = io.BytesIO()
    axes = {0: "n", **({2: "h", 3: "w"} if free else {})}
    with warnings.catch_warnings(), redirect_stdout(sys.stderr), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracing exporter, the only one that writes an opset this old
        torch.onnx.export(
            Picture().eval(),
            (torch.full((1, found.input_channels, side, side), 0.5),),
            file,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": axes, "output": {key: f"o{name}" if key else name for key, name in axes.items()}},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()
