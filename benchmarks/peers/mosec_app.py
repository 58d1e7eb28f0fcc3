"""The service of `mosec_service`: a stage that prepares one request at a time, and one that infers in batches."""

import json
import os
import pickle
from typing import Any

from mosec import Server, Worker

from benchmarks.chain import Chain, Finished, Task
from benchmarks.peers.mosec_service import ENVIRONMENT

pipeline, models_folder, workers, batch = json.loads(os.environ[ENVIRONMENT])
TASK = Task(pipeline, models_folder)


class Decode(Worker):
    """Decodes the unit of a request into its parts."""

    def __init__(self) -> None:
        super().__init__()
        self._chain = Chain(TASK)

    def deserialize(self, data: Any) -> Any:
        """A unit; the body comes as a bytearray."""
        return pickle.loads(bytes(data))

    def forward(self, data: Any) -> Any:
        """Which unit it is, and its parts."""
        return data.file, data.number, self._chain.decode(data)


class Infer(Worker):
    """Infers the parts of many requests in one batch."""

    def __init__(self) -> None:
        super().__init__()
        self._chain = Chain(TASK)

    def forward(self, data: Any) -> Any:
        """A `Finished` for each unit."""
        answers = self._chain.finish([part for _, _, parts in data for part in parts])
        finished = []
        for file, number, parts in data:
            finished.append(Finished(file, number, answers[: len(parts)]))
            answers = answers[len(parts) :]
        return finished

    def serialize(self, data: Any) -> bytes:
        """Its pickle."""
        return pickle.dumps(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=workers)
    server.append_worker(Infer, num=1, max_batch_size=batch, max_wait_time=2)
    server.run()
