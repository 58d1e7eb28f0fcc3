"""A message in a worker has one way out, whatever happens to the work on it."""

import asyncio
import random
import threading
import time
from pathlib import Path

import pytest

from engines.media.medium import Input
from engines.part import Array, Part
from pipelines.claims import claim_name
from pipelines.dead import letters
from pipelines.delivery import Delivery
from schemas.errors import MediaError
from schemas.results import Attempt, Failure
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_ID
from tests.clips import Clip, make_clip, still
from tests.integration.a_runner import Trial, a_trial, spec_of
from tests.integration.queues import a_broker, a_pull, eventually, queue_is_empty, queue_subject
from workers.in_flight import ENDS, InFlight, Queue, State, Task
from workers.messages_in_flight import MessagesInFlight

ATTEMPT = Attempt(number=1, worker="w", host="h", device="cpu", at_s=0.0)


def taken_in(delivery: Delivery, in_flight: MessagesInFlight) -> InFlight:
    message = InFlight(delivery, Queue("p", "decode", "bulk"), in_flight.drop)  # type: ignore[arg-type]
    in_flight.take(message)
    return message


async def test_any_order_of_transitions_settles_a_message_once_and_leaves_no_task(settings: Settings) -> None:
    dice = random.Random(5)
    count = 60
    async with a_broker(settings) as broker:
        for number in range(count):
            await broker.publish(queue_subject(broker), b"x", str(number))
        async with a_pull(broker, requests=count) as taken:
            await taken.until(count)
            in_flight = MessagesInFlight()
            for delivery in list(taken.deliveries):
                message = taken_in(delivery, in_flight)
                tasks = [Task(message, None, "decode") for _ in range(3)]  # type: ignore[arg-type]
                for task in tasks:
                    message.add(task)
                steps = [
                    lambda message=message: message.begin(ATTEMPT),
                    lambda message=message: message.mark_for_retry(60.0),
                    lambda message=message: message.cancel(),
                    lambda message=message: message.hand_back(),
                    lambda message=message: message.dead_letter("it is bad"),
                    *[lambda message=message, task=task: message.finish(task) for task in tasks],
                    *[lambda message=message, task=task: _started(message, task) for task in tasks],
                ]
                for step in dice.sample(steps, dice.randint(1, len(steps))):
                    done = step()
                    if asyncio.iscoroutine(done):
                        await done
                    assert message.ended == (message not in in_flight.messages)
                    assert message.ended == delivery.settled
                    assert not (message.useless and message.waiting), "more work on it is in vain"
                await message.hand_back()
                assert message.state in ENDS
            assert not in_flight.messages


def _started(message: InFlight, task: Task) -> None:
    if task in message.waiting:
        message.start(task)


async def test_a_message_is_acked_after_its_last_task(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.publish(queue_subject(broker), b"x", "1")
        async with a_pull(broker, requests=1) as taken:
            await taken.until(1)
            message = taken_in(taken.deliveries[0], MessagesInFlight())
            first = Task(message, None, "decode")  # type: ignore[arg-type]
            message.add(first)
            message.start(first)
            second = Task(message, None, "encode")  # type: ignore[arg-type]
            message.hold(second)
            await message.finish(first)
            await message.finish(first)
            assert not message.ended
            await message.finish(second)
            assert message.state is State.ACKED
            await eventually(lambda: queue_is_empty(broker))


async def ended_with_failures(trial: Trial, job: str) -> list[Failure]:
    """The failures of a job of one segment, once there are some and nothing is left in a queue or in hand."""

    async def over() -> bool:
        return bool(await trial.results(job, "failure")) and not await trial.queued()

    await eventually(over)
    await eventually(lambda: not trial.runner.in_flight.messages)
    return await trial.results(job, "failure")  # type: ignore[return-value]


@pytest.mark.parametrize("stage", ["resize", "infer", "encode", "publish"])
async def test_an_unexpected_error_in_any_stage_is_a_failure_and_the_next_job_is_done(
    stage: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"max_deliver": 2})
    clip = make_clip(tmp_path, Clip(frames=8, size=(32, 32)))
    async with a_trial(settings, spec_of()) as trial:

        def fail(*_: object) -> Part:
            raise KeyError("pixels")

        with monkeypatch.context() as patched:
            if stage == "resize":
                patched.setattr(trial.pipeline._preprocess, "convert", fail)
            elif stage == "publish":
                patched.setattr(trial.pipeline, "encode", lambda part, tick: "no bytes")
            else:
                patched.setattr(trial.pipeline, "operate" if stage == "infer" else stage, fail)
            await trial.publisher.publish(trial.ref("bad"), "video", [Input(clip, clip.name)])
            failures = await ended_with_failures(trial, "bad")
        assert len(failures) == 1
        assert "Error" in failures[0].error
        assert len(failures[0].attempts) == 2
        assert [letter.failure.key.job.id async for letter in letters(trial.broker)] == ["bad"]
        await trial.publisher.publish(trial.ref("good"), "video", [Input(clip, clip.name)])
        await eventually(lambda: _has_results(trial, "good"))


async def test_a_message_whose_object_is_gone_becomes_a_dead_letter(settings: Settings) -> None:
    settings = settings.model_copy(update={"max_deliver": 2})
    async with a_trial(settings, spec_of()) as trial:
        broker = trial.broker
        claim = {HEADER_ID: "m", HEADER_BLOB: claim_name(queue_subject(broker), "m", "x")}
        await broker.store(queue_subject(broker), b"5", claim)
        await eventually(lambda: queue_is_empty(broker))
        [letter] = [letter async for letter in letters(broker)]
        assert "is not in store rigflow_blobs" in letter.failure.error
        assert len(letter.failure.attempts) == 2


async def _has_results(trial: Trial, job: str) -> bool:
    return bool(await trial.results(job))


async def test_a_rejected_part_fails_at_once_and_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path, Clip(frames=8, size=(32, 32)))
    async with a_trial(settings, spec_of()) as trial:

        def reject(*_: object) -> bytes:
            raise MediaError("these pixels cannot be encoded")

        monkeypatch.setattr(trial.pipeline, "encode", reject)
        await trial.publisher.publish(trial.ref("bad"), "video", [Input(clip, clip.name)])
        (failure,) = await ended_with_failures(trial, "bad")
        assert failure.error == "these pixels cannot be encoded"
        assert len(failure.attempts) == 1


async def test_a_message_whose_worker_ends_half_way_is_handed_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its supervisor is killed: no stop is awaited, the runner is cancelled in the middle of a step."""
    clip = make_clip(tmp_path, Clip(frames=8, size=(32, 32)))
    began, over = threading.Event(), threading.Event()

    def convert(*_: object) -> dict[str, Array]:
        began.set()
        over.wait(60)
        raise MediaError("too late")

    async with a_trial(settings, spec_of()) as trial:
        monkeypatch.setattr(trial.pipeline._preprocess, "convert", convert)
        await trial.publisher.publish(trial.ref("cut-short"), "video", [Input(clip, clip.name)])
        await eventually(began.is_set)
        assert trial.serving is not None
        trial.serving.cancel()
        await asyncio.gather(trial.serving, return_exceptions=True)
        over.set()
        await trial.runner.intake.close()
        await trial.broker.connection.flush()
        assert await trial.queued() == 1, "it was acknowledged, and its work is not done"


async def test_a_step_that_ticks_keeps_its_lease_and_is_done_once(settings: Settings, tmp_path: Path) -> None:
    """One step of many batches takes longer than ack_wait; each batch takes less."""
    settings = settings.model_copy(update={"ack_wait_s": 4.0})  # a stall of a busy machine is shorter
    clip = make_clip(tmp_path, Clip(frames=12, size=(32, 32)))
    async with a_trial(settings, spec_of(max_batch=1)) as trial:
        trial.session.before = lambda number: time.sleep(0.4)
        await trial.publisher.publish(trial.ref("slow"), "video", [Input(clip, clip.name)])
        await eventually(lambda: _has_results(trial, "slow"))
        await eventually(lambda: not trial.runner.in_flight.messages)
        assert len(trial.session.batches) == 12
        info = await trial.broker.api(f"CONSUMER.INFO.{trial.broker.names.work_stream('p', 'decode')}.bulk")
        assert info["num_redelivered"] == 0
        assert len(await trial.results("slow")) == 1


@pytest.mark.parametrize(("max_delay_ms", "batches"), [(10_000.0, [2]), (0.0, [1, 1])])
async def test_a_batch_waits_for_others_as_long_as_max_delay_ms_says(
    max_delay_ms: float, batches: list[int], settings: Settings
) -> None:
    async with a_trial(settings, spec_of(max_batch=2, max_delay_ms=max_delay_ms)) as trial:
        await trial.publisher.publish(trial.ref("first"), "image", [Input(still("png"), "first.png")])
        await eventually(
            lambda: any(message.waiting for message in trial.runner.in_flight.messages) or trial.session.batches
        )
        if not max_delay_ms:
            await eventually(lambda: _has_results(trial, "first"))
        await trial.publisher.publish(trial.ref("second"), "image", [Input(still("png", seed=1), "second.png")])
        await eventually(lambda: _has_results(trial, "second"))
        assert trial.session.batches == batches


async def test_a_batch_that_no_other_joins_runs_when_its_delay_is_over(settings: Settings) -> None:
    async with a_trial(settings, spec_of(max_batch=2, max_delay_ms=50.0)) as trial:
        await trial.publisher.publish(trial.ref("only"), "image", [Input(still("png"), "only.png")])
        await eventually(lambda: _has_results(trial, "only"))
        assert trial.session.batches == [1]
