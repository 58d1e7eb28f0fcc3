"""What stays in the stream of results after its job is over makes room for work that goes on."""

from pipelines.broker import Broker
from pipelines.job_end import publish_done
from pipelines.retention import Retention
from pipelines.topology import apply_topology
from schemas.jobs import JobRef
from schemas.results import Done
from schemas.settings import Settings
from schemas.subjects import HEADER_TYPE

MIB = 1 << 20


def ref(number: int) -> JobRef:
    return JobRef(id=f"job-{number}", pipeline="p", revision="r")


async def test_the_oldest_jobs_that_are_over_go_first_and_work_that_goes_on_stays(settings: Settings) -> None:
    settings = settings.model_copy(update={"results_bytes": 40 * MIB})
    broker = await Broker.connect(settings)
    await apply_topology(broker, settings, [])
    stream = broker.names.results_stream
    retention = Retention(broker)
    for number in range(12):
        subject = broker.names.results(ref(number))
        size = 9 * MIB if number == 0 else 2 * MIB  # the first is larger than a message: a claim check
        await broker.publish(subject, bytes(size), f"file-{number}", {HEADER_TYPE: "file"})
        if number != 1:
            done = Done(job=ref(number), segments=1, frames=1, lost=0, failures=("bad",) if number == 2 else ())
            await publish_done(broker, done, "1")
    await retention.free_space("main")
    left = {stored.subject.rsplit(".", 1)[1] async for stored in broker.read(stream)}
    assert "job-1" in left
    assert not {"job-0", "job-2"} & left
    assert {"job-10", "job-11"} <= left
    assert await broker.stream_bytes(stream) < 20 * MIB
    assert await broker.last(f"OBJ_{broker.names.blobs}", ">") is None
    await broker.close()


async def test_where_there_is_room_nothing_goes(settings: Settings) -> None:
    broker = await Broker.connect(settings)
    await apply_topology(broker, settings, [])
    await publish_done(broker, Done(job=ref(1), segments=1, frames=1, lost=0), "1")
    await Retention(broker).free_space("main")
    assert await broker.last(broker.names.results_stream, broker.names.results(ref(1))) is not None
    await broker.close()
