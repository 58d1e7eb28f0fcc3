"""Ray Data, as its user guide for batch inference recommends: `map_batches` with a class, so that an actor loads once.

A row is a unit of work. Ray Data starts its actors again for each data set, which is timed. An actor asks for half a
core: with whole cores no core of two is left for the reading tasks, and nothing starts.
"""

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.chain import Arrived, Chain, Task, units_of, write


class Infer:
    """An actor: the whole chain over each row."""

    def __init__(self, task: Task) -> None:
        self._chain = Chain(task)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of pickled units to rows of pickled answers."""
        made = [pickle.dumps(self._chain(pickle.loads(unit))) for unit in batch["unit"]]
        return {"finished": np.array(made, dtype=object)}


class RayData:
    """A local Ray with `workers` actors a data set."""

    def __init__(self, task: Task, workers: int, split: bool) -> None:
        self._task = task
        self._workers = workers
        self._split = split

    async def start(self) -> None:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        rows = [{"unit": pickle.dumps(unit)} for unit in units_of(self._task, paths, self._split)]
        answers = ray.data.from_items(rows).map_batches(
            Infer,
            fn_constructor_args=(self._task,),
            batch_size=1,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=self._workers),
        )
        finished = []
        for row in answers.iter_rows():
            arrived()
            finished.append(pickle.loads(row["finished"]))
        write(self._task, paths, finished, out)

    async def stop(self) -> None:
        ray.shutdown()

    def broker_bytes(self) -> int:
        return 0


make = RayData
