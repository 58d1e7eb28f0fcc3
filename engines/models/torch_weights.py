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

from engines.extras import install_extra
from engines.models.graph import OPSET
from engines.own_process import in_own_process
from schemas.errors import ModelError

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_ONNX = "export it to ONNX where it was trained"
_SIDE = 64  # of the traced picture, at least
_FIXED_SIDE = 192  # of a network that gets one size, which is that of its tiles


def convert(weights: Path) -> bytes:
    """Return the ONNX file of a network: `input [n, C, h, w]`, 0 ... 1 -> `output [n, C', h', w']`, float32, opset 17.

    Networks with one fixed size keep it, and those whose trace answers otherwise at another size get one. No code in
    the file is run. Raises ModelError: the extra is not installed, or spandrel does not know a network with such
    tensors.
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
        raise ModelError(what, install_extra("convert")) from error
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
    """Trace the network of a descriptor: with free sides, if the trace is right at another size than its own."""
    needs = found.size_requirements
    if not needs.square and needs.minimum <= _SIDE:
        side = _SIDE + -_SIDE % needs.multiple_of
        body = _traced(torch, found, side, free=True)
        if _is_right(torch, found, body, side + needs.multiple_of, side + 3 * needs.multiple_of):
            return body
    side = max(_FIXED_SIDE, needs.minimum)
    return _traced(torch, found, side + -side % needs.multiple_of, free=False)


def _is_right(torch: Any, found: Any, body: bytes, height: int, width: int) -> bool:
    """Whether an ONNX file answers as its network does for a picture of that size."""
    import numpy as np
    import onnxruntime

    picture = np.random.default_rng(0).random((1, found.input_channels, height, width)).astype(np.float32)
    try:
        session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
        answer = session.run(None, {"input": picture})[0]
    except Exception:  # the runtime's own classes share no base
        return False
    with torch.inference_mode():
        wanted = _first(found.model.eval()(torch.from_numpy(picture))).numpy()
    return answer.shape == wanted.shape and bool(np.allclose(answer, wanted, atol=1e-4))


def _first(answer: Any) -> Any:
    return answer[0] if isinstance(answer, (tuple, list)) else answer


def _traced(torch: Any, found: Any, side: int, free: bool) -> bytes:
    """Trace the network on a square picture."""

    class Picture(torch.nn.Module):  # type: ignore[misc]
        """The network with the picture as its only output."""

        def __init__(self) -> None:
            super().__init__()
            self.network = found.model.eval()

        def forward(self, picture: Any) -> Any:
            return _first(self.network(picture))

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
