"""Loads a model in a process of its own first, for ONNX Runtime ends the process that loads some graphs.

A worker has no need of it: its supervisor starts it again and quarantines the model.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

from schemas.errors import ModelError
from schemas.pipeline import TensorSpec

Tensors = tuple[TensorSpec, ...]


def read_tensors(model: bytes, name: str, simulate: bool = False) -> tuple[Tensors, Tensors]:
    """`(inputs, outputs)` as the graph of an ONNX file declares them, once a process has loaded it.

    `name` is for the errors; `simulate` is that of OnnxRuntimeSession. Raises ModelError when it cannot be loaded.
    """
    command = [sys.executable, "-P", "-m", __name__, name, *(["simulate"] if simulate else [])]
    child = subprocess.run(command, input=model, capture_output=True, check=False)
    if child.returncode:
        how = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
        raise ModelError(
            f"model `{name}` ends the process that loads it ({how})",
            "ONNX Runtime fails on its graph: export it in fp32, or with another opset",
        )
    answer = json.loads(child.stdout)
    if "error" in answer:
        raise ModelError(answer["error"], answer["hint"])
    inputs, outputs = (tuple(map(TensorSpec.model_validate, answer[side])) for side in ("inputs", "outputs"))
    return inputs, outputs


def main(name: str, options: Sequence[str]) -> None:
    """Load the model on standard input; print its tensors or the error as JSON."""
    from engines.inference.onnxruntime import load, tensors_of

    try:
        inputs, outputs = tensors_of(load(sys.stdin.buffer.read(), name, "simulate" in options))
    except ModelError as error:
        print(json.dumps({"error": error.what, "hint": error.hint}))
        return
    sides = {"inputs": inputs, "outputs": outputs}
    print(json.dumps({side: [each.model_dump(mode="json") for each in tensors] for side, tensors in sides.items()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
