"""Checks optional packages before any work begins, for every stage of a pipeline."""

from collections.abc import Mapping

from engines.backends.choice import check_backend
from engines.encoding import Needing
from engines.outputs.format import load_format
from engines.plan import Plan, plan_pipeline
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings


def check_packages(spec: PipelineSpec, models: Mapping[str, ModelSpec], settings: Settings, computes: bool) -> None:
    """Raise PluginMissing where a package is missing that this machine needs for a pipeline.

    `models`: the cards by their names in stages. The machine writes the results, so it needs the packages of the
    format; those of backends only if it `computes`. Operators check their own when the pipeline is planned.
    """
    if computes:
        for card in models.values():
            check_backend(card, settings)
    check_format(plan_pipeline(spec, models))


def check_format(plan: Plan) -> None:
    """Raise PluginMissing where a package is missing that the format of a pipeline writes its results with."""
    output = load_format(plan.spec.encode)
    if isinstance(output, Needing):
        needs = output.needs(plan.arrays[plan.spec.stage[-2].name])
        if needs is not None:
            needs.check(f"format {plan.spec.encode.format} of pipeline {plan.spec.name}")
