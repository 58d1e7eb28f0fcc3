"""What the processes of `queue_worker` run: `faststream run benchmarks.peers.queue_app:app --workers 2`."""

import json
import logging
import os
import pickle

from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from benchmarks.chain import Task, chain_of
from benchmarks.peers.queue_worker import ENVIRONMENT, RESULTS, WORK

ACK_WAIT_S = 600.0  # a task of a whole file may take long

url, pipeline, models_folder = json.loads(os.environ[ENVIRONMENT])
task = Task(pipeline, models_folder)
broker = NatsBroker(url, logger=None, log_level=logging.ERROR)
app = FastStream(broker, logger=None)


@broker.subscriber(
    WORK,
    stream=JStream(name="work", declare=False),
    durable="workers",
    pull_sub=PullSub(batch_size=1),
    config=ConsumerConfig(ack_wait=ACK_WAIT_S),
)
@broker.publisher(RESULTS, stream="results")
def work(body: bytes) -> bytes:
    """One unit to its pickled answers."""
    return pickle.dumps(chain_of(task)(pickle.loads(body)))
