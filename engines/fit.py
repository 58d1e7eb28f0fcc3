"""Whether the stages of a pipeline and the models they name fit together, before any work is sent."""

from collections.abc import Mapping
from typing import TypeAlias

from engines.inference.batch import View, view_of
from engines.inference.session import fits
from engines.outputs.format import load_format
from engines.part import holds_frames
from schemas.errors import ModelError, PipelineError
from schemas.pipeline import InferStage, ModelSpec, PipelineSpec, PreprocessStage, TensorSpec, describe

Arrays: TypeAlias = dict[str, TensorSpec]  # what a part holds at some point


def check_fits(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> None:
    """Follow the arrays through the stages of `spec`; `models` has the model card of each model a stage names.

    Raises ModelError when a model is missing or its inputs do not fit (rank, fixed dimensions, dtype), PipelineError
    when a stage reads or keeps what is not there, or its format cannot encode what the last one leaves.
    """
    arrays = _preprocessed(spec.preprocess)
    for stage in spec.infers:
        model = models.get(stage.model)
        if model is None:
            known = ", ".join(models) or "none"
            raise ModelError(f"stage `{stage.name}`: no model `{stage.model}`, there is {known}", "see docs/models.md")
        arrays = _each(stage, model, arrays) if stage.each else _inferred(stage, model, arrays)
    encode = spec.encode
    output = load_format(encode)
    try:
        output.check(arrays, spec.media)
    except PipelineError as error:
        raise PipelineError(f"stage `{encode.name}`: {error.what}", error.hint) from error


def _preprocessed(stage: PreprocessStage) -> Arrays:
    index = _array("index", "int32", "W", stage.window.frames)
    if stage.size is None:
        return {"index": index} | {f"plane{n}": _array(f"plane{n}", "uint8", "F", "H", "W") for n in range(4)}
    colours = (3,) if stage.layout == "rgb" else ()
    return {"index": index, "pixels": _array("pixels", "uint8", "F", *stage.size, *colours)}


def _array(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def _inferred(stage: InferStage, model: ModelSpec, arrays: Arrays) -> Arrays:
    unknown = set(stage.reads) - {tensor.name for tensor in model.inputs}
    if unknown:
        inputs = ", ".join(f"`{tensor.name}`" for tensor in model.inputs)
        raise PipelineError(f"stage `{stage.name}`: model `{model.name}` has no input `{min(unknown)}`, only {inputs}")
    rows: int | str = "W"
    for tensor in model.inputs:
        name = stage.reads.get(tensor.name, tensor.name)
        array = _find(stage, name, arrays, f'map it by reads = {{ {tensor.name} = "..." }}')
        seen = _seen(array, tensor, arrays)
        _check(stage, model, tensor, seen)
        rows = seen.shape[0]
    for tensor in model.outputs:
        if holds_frames(tensor.name) or tensor.name == "index":
            raise ModelError(
                f"model `{model.name}`: its output `{tensor.name}` bears the name of an array that decode made",
                "give that output another name",
            )
    outputs = {tensor.name: _array(tensor.name, tensor.dtype, rows, *tensor.shape[1:]) for tensor in model.outputs}
    return _kept(stage, arrays) | outputs


def _each(stage: InferStage, model: ModelSpec, arrays: Arrays) -> Arrays:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"stage `{stage.name}`: `each` needs a model of one input and one output", f"not `{model.name}`"
        )
    for name in stage.each:
        _check(stage, model, model.inputs[0], _find(stage, name, arrays, "correct `each`"))
    output = model.outputs[0]
    return _kept(stage, arrays) | {name: _array(name, output.dtype, *output.shape) for name in stage.each}


def _seen(array: TensorSpec, tensor: TensorSpec, arrays: Arrays) -> TensorSpec:
    """An array as a model's input sees it."""
    frames = arrays["index"].shape[1] if "index" in arrays else 0
    assert isinstance(frames, int)
    view = view_of(array.name, len(array.shape), len(tensor.shape), frames)
    if view is View.WINDOWS:
        return _array(array.name, array.dtype, "W", frames, *array.shape[1:])
    if view is View.SINGLES:
        return _array(array.name, array.dtype, "W", *array.shape[1:])
    return array


def _check(stage: InferStage, model: ModelSpec, tensor: TensorSpec, array: TensorSpec) -> None:
    if tensor.shape and isinstance(tensor.shape[0], int) and tensor.shape[0] != 1:
        raise ModelError(
            f"model `{model.name}`, input `{tensor.name}`: {describe(tensor.dtype, tensor.shape)} has no free batch",
            'export it with a first dimension that is free, or 1; or say batch = "none" in its model card',
        )
    if not fits(tensor, array.dtype, array.shape):
        raise ModelError(
            f"stage `{stage.name}`: model `{model.name}` wants `{tensor.name}` as "
            f"{describe(tensor.dtype, tensor.shape)}, and `{array.name}` is {describe(array.dtype, array.shape)}",
            "change size, layout or window of the preprocess stage, or the model; see docs/models.md",
        )


def _kept(stage: InferStage, arrays: Arrays) -> Arrays:
    return {name: _find(stage, name, arrays, "correct `keeps`") for name in stage.keeps}


def _find(stage: InferStage, name: str, arrays: Arrays, hint: str) -> TensorSpec:
    if name not in arrays:
        there = ", ".join(f"`{array}`" for array in sorted(arrays))
        raise PipelineError(f"stage `{stage.name}` wants array `{name}`, and there is only {there}", hint)
    return arrays[name]
