"""Checks the names of stages that a rig or a worker is to run."""

import asyncio
from collections.abc import Collection

from engines.registry import names
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline, builtin_pipelines, hosted_pipelines
from schemas.errors import UsageError
from schemas.pipeline import PipelineSpec
from schemas.rig import ALL_STAGES
from schemas.subjects import COLLECT, SPLIT
from schemas.text import did_you_mean


def kinds_of_stages() -> tuple[str, ...]:
    """All kinds of stages that this machine can run."""
    return (*ALL_STAGES, SPLIT, "decode", *names("operators"), "encode", COLLECT)


async def check_stages(broker: Broker, stages: Collection[str], source: str) -> None:
    """Raise UsageError for the first that no pipeline has: it is no kind of stage, and no name of one.

    The pipelines are those that come with rigflow, and those that the fleet knows. `source` names the file or the
    option in the error.
    """
    unknown = [stage for stage in stages if stage not in kinds_of_stages()]
    if not unknown:
        return
    builtin = await asyncio.to_thread(lambda: [builtin_pipeline(name) for name in builtin_pipelines()])
    known = {*kinds_of_stages(), *_stages_of(builtin), *_stages_of(await hosted_pipelines(broker))}
    for stage in unknown:
        if stage not in known:
            raise UsageError(f"{source}: no pipeline has a stage {stage}", _hint(stage, known))


def _stages_of(specs: Collection[PipelineSpec]) -> set[str]:
    return {stage.name for spec in specs for stage in spec.stage}


def _hint(stage: str, known: Collection[str]) -> str:
    otherwise = f"publish a pipeline that has it first; kinds are {', '.join(kinds_of_stages())}"
    return did_you_mean(stage, known) or otherwise
