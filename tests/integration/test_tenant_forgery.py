"""Messages that say another tenant than their queue: refused, and nothing of them is published under the job."""

import random

import pytest

from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.registry import builtin_pipeline
from pipelines.tenant_admin import set_tenants
from schemas.jobs import JobRef, Priority
from schemas.messages import CollectRequest
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import COLLECT
from schemas.tenants import Tenant
from schemas.wire import pack
from tests.integration.queues import eventually
from tests.poison_bodies import well_formed
from workers.collect import CollectHandler
from workers.definitions import find_models, register
from workers.failures import Failures, place_in_body
from workers.first_task import read_content
from workers.in_flight import InFlight, Queue
from workers.io_intake import open_pull


def forged(kind: str, spec: PipelineSpec, tenant: str) -> tuple[str, bytes]:
    """The stage and the body of a message of this tenant."""
    if kind == COLLECT:
        ref = JobRef(id="film", tenant=tenant, pipeline=spec.name, revision=spec.revision)
        return COLLECT, CollectRequest(job=ref).encode()
    rng = random.Random(1)
    while True:
        _, meta, buffers = well_formed(rng, spec.name, spec.revision)
        if meta["type"] == kind:
            key = meta["key"] if kind == "segment" else meta["meta"]["key"]
            key["job"]["tenant"] = tenant
            return spec.stage[0].name, pack(meta, buffers)


@pytest.mark.parametrize("kind", ["segment", "part", COLLECT])
@pytest.mark.parametrize(
    ("tenant", "queue", "refused"),
    [
        ("acme", "", True),
        ("acme", "evil", True),
        ("main", "acme", True),
        ("acme", "acme", False),
        ("main", "", False),
        ("gone", "", True),
    ],
)
async def test_a_message_of_another_tenant_than_its_queue_is_refused(
    settings: Settings, kind: str, tenant: str, queue: str, refused: bool
) -> None:
    """Also one in the queue that unlisted tenants share, where every publisher of the fleet may write."""
    spec = builtin_pipeline("fingerprint")
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, spec, find_models(spec, None))
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        stage, body = forged(kind, spec, tenant)
        await broker.publish(broker.names.work(spec.name, stage, Priority.BULK, queue), body, "forged")
        taken: list[InFlight] = []

        async def accept(of: Queue, delivery: Delivery) -> None:
            taken.append(InFlight(delivery, of, lambda _: None))

        of = Queue(spec.name, stage, Priority.BULK, queue)
        pull = await open_pull(broker, of, broker.names.work_stream(spec.name, stage), accept)
        pull.request(1)
        await eventually(lambda: bool(taken))
        failures = Failures(broker, Attempts(broker, "worker", "host", "cpu"), "worker")
        handler = CollectHandler(broker, failures)
        try:
            await (handler.run(taken[0]) if kind == COLLECT else read_content(taken[0], broker.names))
            said = ""
        except Exception as error:
            said = str(error)
            if refused:
                await failures.settle(taken[0], error, place_in_body)
                results = [each async for each in broker.read(broker.names.results_of(tenant))]
                streams = map(broker.names.dead_of, ("", *broker.tenants))
                letters = [each for stream in streams async for each in broker.read(stream)]
                assert (len(results), len(letters)) == (0, 1)
        assert ("in the queue" in said or "no tenant gone" in said) is refused
        await pull.close()
