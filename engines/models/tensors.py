"""Pipelines that run models as their graphs are, and the arrays of tensors that they take."""

import re
from collections.abc import Callable, Mapping

from engines.planned import Arrays, Tensor
from engines.registry import load
from schemas.errors import PipelineError
from schemas.model import ModelSpec, describe
from schemas.pipeline import OperatorStage, PipelineSpec

_INPUTS = "inputs"  # the option of a decode stage
_WORD = re.compile(r"\w+")


def as_run(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """Return the cards by which the stages run their models: of stages that say `raw` those of the graphs, and those of
    the text towers.

    `models` has the card of each model by its name in a stage. Raises PipelineError if two stages run one model in
    different ways, or a `raw` one also has options of a head.
    """
    ways: dict[str, Callable[[ModelSpec], ModelSpec] | None] = {}
    for stage in spec.operators:
        if stage.raw and stage.head:
            raise PipelineError(f"pipeline {spec.name}, stage {stage.name}: `head` and `raw`", "leave one of them out")
        if stage.model is not None and ways.setdefault(stage.model, _way(stage)) is not _way(stage):
            what = f"pipeline {spec.name}: two stages run model {stage.model}, and one of them `raw`, or its texts"
            raise PipelineError(what, "keep the model under a second name, or make two pipelines")
    made = ((name, card, ways.get(name)) for name, card in models.items())
    return {name: card if way is None else way(card) for name, card, way in made}


def runs_as_added(stage: OperatorStage) -> bool:
    """Return whether a stage runs its model by the card with which it was added."""
    return _way(stage) is None


def _way(stage: OperatorStage) -> Callable[[ModelSpec], ModelSpec] | None:
    """Return what makes the card by which a stage runs its model; None for the card itself."""
    if stage.raw:
        return ModelSpec.of_graph
    return ModelSpec.of_texts if getattr(load("operators", stage.kind), "of_texts", False) else None


def without_tensors(wanted: PipelineSpec, known: PipelineSpec, models: Mapping[str, ModelSpec]) -> PipelineSpec:
    """Return `wanted`, a changed `known`, for it to get declarations of its own: without those that follow from the
    `models` of `known`.
    """
    given = known.decode.options.get(_INPUTS)
    follows = given and with_tensors(_bare(known), models).decode.options.get(_INPUTS) == given
    return _bare(wanted) if follows and wanted.decode.options.get(_INPUTS) == given else wanted


def _bare(spec: PipelineSpec) -> PipelineSpec:
    options = {name: value for name, value in spec.decode.options.items() if name != _INPUTS}
    return spec.model_copy(update={"stage": (spec.decode.model_copy(update={"options": options}), *spec.stage[1:])})


def with_tensors(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> PipelineSpec:
    """Return the pipeline whose decode stage declares the inputs of its models that no stage before them makes.

    `models` has the card of each model by its name in a stage. Raises PipelineError, ModelError as operators do.
    """
    known = {each for kind in spec.media for each in load("media", kind).options_class.model_fields}
    if _INPUTS not in known or spec.decode.options.get(_INPUTS):
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
    return spec.with_fields({f"{spec.decode.name}.{_INPUTS}": dict(wanted)}) if wanted else spec


def _shown(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return a shape with a number of rows that is free; names of others that are no word become `free`."""
    inner = (size if isinstance(size, int) or _WORD.fullmatch(size) else "free" for size in shape[1:])
    return (shape[0] if isinstance(shape[0], int) and shape[0] != 1 else "N", *inner) if shape else ()
