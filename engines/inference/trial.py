"""What a model from outside is like, found out by loading and running it once. Call it by `in_own_process`.

ONNX Runtime is imported in that process only: the command line does without it.
"""

import resource
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from engines.devices import memory_bytes
from engines.inference.session import check_model_card
from schemas.errors import ModelError, format_field_error
from schemas.pipeline import ModelSpec

if TYPE_CHECKING:
    from engines.inference.onnxruntime import OnnxRuntimeSession

HINT = "ONNX Runtime fails on its graph: export it in fp32, or with another opset"
_NO_ROWS = 'give it one row for each row in; for a graph without a batch, say batch = "none" in its model card'
_NO_FREE_BATCH = "export it with a free batch, or write a model card whose inputs have 1 as their first dimension"


def read_model(model: bytes, name: str, card: Mapping[str, Any], source: str) -> ModelSpec:
    """The model card of an ONNX file: `card`, and what it leaves out from the graph; `source` is where it is from.

    The model is run once on one row of zeros and once on two. Raises ModelError when it cannot be loaded, is not what
    its model card says, or does not answer with a row for each row.
    """
    from engines.inference.onnxruntime import OnnxRuntimeSession, load, tensors_of

    limit_memory()
    loaded = load(model, name)
    inputs, outputs = tensors_of(loaded)
    try:
        spec = ModelSpec.model_validate({"inputs": inputs, "outputs": outputs, **card})
    except ValidationError as error:
        raise ModelError(f"{source}, {format_field_error(error.errors()[0])}", "see docs/models.md") from error
    check_model_card(spec, inputs, outputs)
    _check_rows(OnnxRuntimeSession(model, spec, loaded=loaded))
    return spec


def limit_memory() -> None:
    """Have allocations fail that this machine has no memory for, so that the kernel does not have to end a process."""
    limit = memory_bytes()
    if limit and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _check_rows(session: "OnnxRuntimeSession") -> None:
    """Raise ModelError unless the model gives a row for each row. One with other free dimensions is left alone."""
    spec = session.spec
    for rows in (1, 2):
        zeros = session.zeros(rows)
        if zeros is None:
            return
        try:
            for name, array in session.run(zeros).items():
                if array.ndim == 0 or len(array) != rows:
                    what = f"model `{spec.name}`, output `{name}`: shape {list(np.shape(array))} for a batch of {rows}"
                    raise ModelError(what, _NO_ROWS)
        except ModelError as error:
            if rows == 1:
                raise
            what = f"model `{spec.name}` declares a free batch and takes only one row ({error.what})"
            raise ModelError(what, _NO_FREE_BATCH) from error
