"""Tries models from outside in a process of their own."""

import resource
import sys
from typing import TYPE_CHECKING

from engines.inference.heads import Heads
from engines.inference.session import zeros_of
from engines.inference.states import without_state
from engines.machine import memory_bytes
from schemas.errors import ModelError

if TYPE_CHECKING:
    from engines.inference.onnxruntime import OnnxRuntimeSession

HINT = "ONNX Runtime fails on its graph: export it in fp32, or with another opset"
_NO_FREE_BATCH = "export it with a free batch, or write a model card whose inputs have 1 as their first dimension"


def limit_memory() -> None:
    """Make allocations beyond this machine's memory fail, so that the kernel does not end a process."""
    limit = memory_bytes()
    if limit and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def check_rows(session: "OnnxRuntimeSession") -> None:
    """Raise ModelError unless the model gives one row for each row. A model with other free dimensions is not checked.

    A model with a state takes one row a run. An output with a head may have other rows, if the head makes a row for
    each.
    """
    heads = Heads(without_state(session.spec))
    spec = session.spec
    for rows in (1, 2):
        zeros = zeros_of(spec, rows)
        if zeros is None:
            return
        try:
            heads.try_on(session.run(zeros), rows)
        except ModelError as error:
            if rows == 1:
                raise
            what = f"model `{spec.name}` declares a free batch and takes only one row ({error.what})"
            raise ModelError(what, _NO_FREE_BATCH) from error
