"""How many parts a piece of a job has, and how many of them a worker computes together."""

import math

from engines.media.pieces import windows_per_part
from engines.plan import plan_pipeline
from engines.workload import MediaFacts, Models, windows_of
from placement.costs import Work
from schemas.pipeline import OperatorStage, PipelineSpec


def parts_of(spec: PipelineSpec, models: Models, facts: MediaFacts, work: Work) -> tuple[int, int]:
    """Parts of a piece, and of a batch of the first model. Raises as `plan_pipeline`."""
    plan = plan_pipeline(spec, {name: card for name, (card, _) in models.items()})
    parts = 1
    if facts.media.timed and facts.media.width:
        parts = max(1, math.ceil(windows_of(spec, facts) / windows_per_part(plan.decode, facts.media)))
    rows = {stage.name: stage.rows / parts for stage in work.stages if stage.rows}
    first = next((stage for stage in spec.stage if isinstance(stage, OperatorStage) and stage.name in rows), None)
    return parts, max(1, int(first.max_batch / max(1.0, rows[first.name]))) if first else 1
