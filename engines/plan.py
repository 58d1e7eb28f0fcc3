"""Follows the arrays of a pipeline and its models from stage to stage, before any work is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from engines.gathering import check_gathering
from engines.media.medium import decoded_arrays
from engines.models.sounds import with_sound
from engines.models.tensors import as_run, with_tensors
from engines.operators.resize import Resize
from engines.outputs.format import load_format
from engines.part import Part
from engines.planned import (
    FRAME_SIZE,
    INDEX,
    SOURCE_SIZE,
    UTF8,
    Arrays,
    DecodePlan,
    Tensor,
    planned_pictures,
    planned_sounds,
)
from engines.ports import Operator
from engines.registry import load
from schemas.errors import ModelError, PipelineError
from schemas.model import ModelSpec, TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage, PipelineSpec


@dataclass(frozen=True)
class Plan:
    """A pipeline that fits its models. `operators` and `arrays`, which a part has after the stage, by name of stage."""

    spec: PipelineSpec
    decode: DecodePlan
    operators: Mapping[str, Operator]
    arrays: Mapping[str, Arrays]

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of the arrays that are encoded."""
        return labels_of(self.arrays[self.spec.stage[-2].name])

    def resizes(self, stage: str) -> bool:
        """Return whether a stage only makes pictures of frames, which decode can do in one step."""
        return isinstance(self.operators.get(stage), Resize)

    def kept(self, stage: str, before: Part, after: Part) -> Part:
        """Return a part after a stage: the arrays that the stage made, and earlier ones that later stages read.

        The windows of a warm-up are removed after the last stage with a state.
        """
        wanted = self.arrays[stage]
        if names := self._gives.get(stage):
            after = after.with_arrays(names.named(after.arrays))
        kept = {name: array for name, array in before.arrays.items() if name in wanted and name not in after.arrays}
        part = after.with_arrays({**kept, **after.arrays}) if kept else after
        return part.without_warm_up() if stage == self._last_in_order else part

    @cached_property
    def _gives(self) -> dict[str, OperatorStage]:
        return {stage.name: stage for stage in self.spec.operators if stage.gives}

    @cached_property
    def _last_in_order(self) -> str | None:
        return next((name for name in reversed(list(self.operators)) if self.operators[name].in_order), None)


def plan_pipeline(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> Plan:
    """Follow the arrays through the stages of `spec`; `models` has the card of each model by its name in a stage.

    Raises ModelError if a model is missing or its inputs do not fit (rank, fixed dimensions, dtype), PipelineError if a
    stage reads or keeps an array that does not exist, or the format cannot encode the arrays of the last stage.
    """
    models = as_run(spec, models)
    spec = with_tensors(with_sound(spec, models), models)
    decoded = decoded_arrays(spec.decode, spec.media, spec.grid)
    operators: dict[str, Operator] = {}
    for stage in spec.operators:
        if stage.model is not None and stage.model not in models:
            known = ", ".join(models) or "none"
            raise ModelError(f"stage `{stage.name}`: there is no model `{stage.model}`", f"the models are: {known}")
        model = models[stage.model] if stage.model is not None else None
        operators[stage.name] = load("operators", stage.kind)(stage, model)
    if spec.decode.warm_up and not any(operator.in_order for operator in operators.values()):
        what = f"stage `{spec.decode.name}`: warm_up is for models with a state, and no stage runs one"
        raise PipelineError(what, "leave it out")
    check_gathering(spec, operators)
    arrays, resized, of_models, sounds, after = _followed(spec, operators, decoded)
    _check_format(spec, arrays)
    by_source = any(picture.size == "source" for picture in (*resized.values(), *of_models.values())) or any(
        operator.by_source for operator in operators.values()
    )
    decode = DecodePlan(spec.decode, spec.media, spec.grid, resized, of_models, by_source, sounds)
    return Plan(spec, decode, operators, after)


def _followed(
    spec: PipelineSpec, operators: Mapping[str, Operator], decoded: Arrays
) -> tuple[Arrays, dict[str, PictureSpec], dict[str, PictureSpec], dict[str, TensorSpec], dict[str, Arrays]]:
    """Return arrays at the end, pictures of resize stages and of models, sound of models, arrays after each stage."""
    index: Arrays = {name: array for name, array in decoded.items() if name == INDEX}
    arrays: Arrays = dict(decoded)
    resized: dict[str, PictureSpec] = {}
    of_models: dict[str, PictureSpec] = {}
    sounds: dict[str, TensorSpec] = {}
    own: dict[str, set[str]] = {}  # of each stage: the arrays that decode makes for it alone
    after: dict[str, Arrays] = {spec.decode.name: arrays}
    for stage in spec.operators:
        operator = operators[stage.name]
        pictures = operator.pictures(arrays)
        if pictures and not index:
            what = f"stage `{stage.name}` takes pictures, and {' and '.join(spec.media)} has none"
            raise PipelineError(what, "name media with pictures in `media`, or take another operator")
        if isinstance(operator, Resize):
            if set(arrays) - set(decoded) - set(planned_pictures(resized)):
                raise PipelineError(f"stage `{stage.name}`: a resize stage comes before all others", "move it up")
            resized |= pictures
            made = _named(stage, {}) | planned_pictures(pictures)  # decode makes them, by fixed names
            arrays = {**arrays, **made}
        else:
            heard = operator.sounds(arrays)
            if heard and index:
                what = f"stage `{stage.name}` takes sound, and the pipeline's media are decoded to pictures"
                raise PipelineError(what, 'name the medium that has sound: media = ["audio"]')
            of_models |= pictures
            sounds |= heard
            given = {**planned_pictures(pictures), **planned_sounds(heard)}
            own[stage.name] = set(given) | ({INDEX, FRAME_SIZE} if pictures else set())
            made = _named(stage, operator.plan({**arrays, **(index if pictures else {}), **given}))
            arrays = {**_kept(stage, arrays, made), **made}
        after[stage.name] = arrays
    hidden: Arrays = {}
    for name in reversed([stage.name for stage in spec.operators]):
        after[name] = {**hidden, **after[name]}
        hidden |= {array: Tensor("uint8", ("F",)) for array in own.get(name, ())}
    return arrays, resized, of_models, sounds, after


def _kept(stage: OperatorStage, arrays: Arrays, made: Arrays) -> Arrays:
    """Return the arrays that a stage keeps beside those that it makes. Raises PipelineError."""
    if missing := [name for name in stage.keeps if name not in arrays]:
        there = ", ".join(f"`{array}`" for array in sorted(arrays))
        what = f"stage `{stage.name}` wants array `{missing[0]}`, and there is only {there}"
        by_resize = missing[0] == "pixels" or missing[0].startswith("plane")
        hint = "put a resize stage, which makes it, before this one" if by_resize else "correct `keeps`"
        raise PipelineError(what, hint)
    if twice := [name for name in stage.keeps if name in made and name != SOURCE_SIZE]:
        what = f"stage `{stage.name}` keeps `{twice[0]}`, and makes an array of that name itself"
        raise PipelineError(what, "leave it out of `keeps`, or make two pipelines")
    return {name: arrays[name] for name in stage.keeps}


def _named(stage: OperatorStage, made: Arrays) -> Arrays:
    """Return what an operator makes by the names that its stage gives. Raises PipelineError."""
    if unknown := [name for name in stage.gives if name not in made]:
        there = ", ".join(f"`{array}`" for array in sorted(made)) or "pictures of fixed names"
        raise PipelineError(f"stage `{stage.name}` makes no array `{unknown[0]}`, only {there}", "correct `gives`")
    named = stage.named(made)
    if len(named) < len(made):
        raise PipelineError(f"stage `{stage.name}` gives two arrays one name", "correct `gives`")
    return named


def labels_of(arrays: Arrays) -> dict[str, tuple[str, ...]]:
    """Return the labels of arrays that have any, and the categories of labels; `NAME.utf8` of arrays of text."""
    labels = {name: array.labels for name, array in arrays.items() if array.labels}
    labels |= {f"{name}.categories": array.categories for name, array in arrays.items() if array.categories}
    return labels | {f"{name}{UTF8}": () for name, array in arrays.items() if array.text}


def _check_format(spec: PipelineSpec, arrays: Arrays) -> None:
    output = load_format(spec.encode, labels=labels_of(arrays))
    try:
        output.check(arrays, spec.media)
    except PipelineError as error:
        raise PipelineError(f"stage `{spec.encode.name}`: {error.what}", error.hint) from error
