"""Finds what arrays of tensors the models of a pipeline take, and has its decode stage say so."""

import re
from collections.abc import Mapping

from engines.planned import Arrays, Tensor
from engines.registry import load
from schemas.model import ModelSpec, describe
from schemas.pipeline import PipelineSpec

_WORD = re.compile(r"\w+")


def with_tensors(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> PipelineSpec:
    """Return the pipeline whose decode stage declares the inputs of its models that no stage before them makes.

    `models` has the card of each model by its name in a stage. Raises PipelineError, ModelError as operators do.
    """
    known = {each for kind in spec.media for each in load("media", kind).options_class.model_fields}
    if "inputs" not in known or spec.decode.options.get("inputs"):
        return spec
    wanted: dict[str, str] = {}
    arrays: Arrays = {}
    for stage in spec.operators:
        if stage.model is None or stage.model not in models:
            continue
        model = models[stage.model]
        for tensor in model.inputs:
            name = stage.reads.get(tensor.name, tensor.name)
            if name not in arrays and not (stage.items or stage.each):
                wanted[name] = describe(tensor.dtype, _shown(tensor.shape))
                arrays[name] = Tensor(tensor.dtype, ("W", *tensor.shape[1:]))
        arrays |= stage.named(load("operators", stage.kind)(stage, model).plan(arrays))
    return spec.with_fields({f"{spec.decode.name}.inputs": dict(wanted)}) if wanted else spec


def _shown(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return a shape with a number of rows that is free; names of others that are no word become `free`."""
    inner = (size if isinstance(size, int) or _WORD.fullmatch(size) else "free" for size in shape[1:])
    return (shape[0] if isinstance(shape[0], int) and shape[0] != 1 else "N", *inner) if shape else ()
