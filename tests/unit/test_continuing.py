"""What is counted and sent of answers that are written: tokens once each, first tokens, new text in its order."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from engines.continuous import NewText
from engines.generation.answer import Answer
from pipelines.broker import Broker
from schemas.jobs import Priority
from schemas.pipeline import OperatorStage
from workers.continuing import DELTA_EVERY_S, Continuing, Work
from workers.continuous_steps import ContinuousSteps


class Writing:
    """Some answers of a part."""

    def __init__(self, count: int) -> None:
        self.answers = [Answer(piece=chr) for _ in range(count)]

    @property
    def done(self) -> bool:
        return all(answer.done for answer in self.answers)

    def news(self) -> list[NewText]:
        return [NewText(n, "", 0, text) for n, answer in enumerate(self.answers) if (text := answer.news())]


def work(count: int, taken_s: float) -> tuple[Work, Writing]:
    writing, task = Writing(count), SimpleNamespace(message=SimpleNamespace(taken_s=taken_s))
    return Work(cast(Any, task), cast(Any, writing), cast(Any, None)), writing


def test_tokens_are_counted_once_and_first_tokens_from_when_the_message_was_taken() -> None:
    each, writing = work(2, taken_s=100.0)
    assert each.new_tokens() == (0, [])
    writing.answers[0].add(ord("a"))
    writing.answers[0].first_s = 100.5
    assert each.new_tokens() == (1, [0.5])
    assert each.new_tokens() == (0, [])
    for letter in "bc":
        writing.answers[0].add(ord(letter))
    writing.answers[1].add(ord("d"))
    writing.answers[1].first_s = 103.0
    assert each.new_tokens() == (3, [3.0])
    writing.answers[0].repeat()  # it is put back, and written again
    for letter in "abc":
        writing.answers[0].add(ord(letter))
    assert each.new_tokens() == (0, [])


def test_a_first_token_that_ends_an_answer_is_counted_once() -> None:
    each, writing = work(1, taken_s=100.0)
    writing.answers[0].first_s = 101.0
    writing.answers[0].end("stop")
    assert each.new_tokens() == (0, [1.0])
    assert each.new_tokens() == (0, [])


def test_news_wait_for_their_time_or_the_end_but_the_first() -> None:
    each, writing = work(1, taken_s=0.0)
    now_s = time.monotonic()
    assert not each.begins
    writing.answers[0].add(ord("a"))
    writing.answers[0].first_s = now_s
    assert each.begins
    assert [new.text for new in each.news(now_s)] == ["a"]
    assert not each.begins
    writing.answers[0].add(ord("b"))
    assert each.news(now_s + DELTA_EVERY_S / 2) == []
    writing.answers[0].end("length")
    assert [new.text for new in each.news(now_s + DELTA_EVERY_S / 2)] == ["b"]


def test_steps_wait_until_a_persons_question_has_joined() -> None:
    """A slice that begins while the model takes it would write its first token, and not send it."""

    class Message:
        queue = SimpleNamespace(priority=Priority.INTERACTIVE, pipeline="chat", stage="decode")
        started = 0
        taken_s = 0.0
        begun = True

        def start(self, task: object) -> None:
            self.started += 1

    async def joining_before_while_and_after(fails: bool) -> list[bool]:
        message, joins = Message(), asyncio.Event()
        part, ended = SimpleNamespace(nbytes=0), []

        async def on_device(*given: object) -> tuple[object, object]:
            await joins.wait()
            if fails:
                raise ValueError("no such model")
            return SimpleNamespace(done=False), session

        async def failed(task: object, error: Exception) -> None:
            ended.append(error)

        async def finish(task: object) -> None:
            pass

        spec = SimpleNamespace(spec=SimpleNamespace(name="chat"), begin=None, stage=lambda name: stage)
        session = SimpleNamespace(room=3, places=4, busy=True)
        message.finish = finish  # type: ignore[attr-defined]
        task = SimpleNamespace(message=message, part=part, pipeline=spec, stage="chat")
        work = Continuing()
        others = Work(cast(Any, task), cast(Any, None), cast(Any, session))
        work.add(others)
        in_flight = SimpleNamespace(continuing=work, messages=[message], io_messages=[], waiting=list)
        traces = SimpleNamespace(ended=lambda task, error: None)
        runner = SimpleNamespace(in_flight=in_flight, on_device=on_device, failed=failed, traces=traces)
        steps = ContinuousSteps(cast(Broker, None), cast(Any, runner), lambda: None)
        steps._driving = asyncio.get_running_loop().create_future()  # type: ignore[assignment]  # it goes on
        found = [steps._joining()]
        begins = asyncio.create_task(steps.begin(cast(Any, task), stage))
        await asyncio.sleep(0)
        found.append(steps._joining())
        joins.set()
        await begins
        assert bool(ended) == fails
        return [*found, steps._joining()]

    stage = OperatorStage(kind="chat", name="chat")
    for fails in (False, True):
        assert asyncio.run(joining_before_while_and_after(fails)) == [True, True, False]


def test_a_persons_question_is_waited_for_from_when_its_media_comes_and_not_for_long() -> None:
    def message(stage: str, **given: Any) -> Any:
        queue = {"priority": Priority.INTERACTIVE, "pipeline": "chat", "stage": stage} | given
        fields = {"queue": SimpleNamespace(**queue), "taken_s": time.monotonic(), "begun": False}
        return type("Message", (), fields)()

    def coming(messages: list[Any], media: list[Any], others: Priority = Priority.BULK) -> bool:
        work, task = Continuing(), SimpleNamespace(message=message("decode", priority=others))
        task.pipeline = SimpleNamespace(spec=SimpleNamespace(name="chat"))
        work.add(Work(cast(Any, task), cast(Any, None), cast(Any, None)))
        in_flight = SimpleNamespace(continuing=work, messages=messages, io_messages=media, waiting=list)
        return ContinuousSteps(cast(Broker, None), cast(Any, SimpleNamespace(in_flight=in_flight)), list)._joining()

    assert coming([message("decode")], [])
    assert coming([], [message("split")])
    assert not coming([], [message("split")], Priority.INTERACTIVE), "another person waits for the steps"
    assert coming([message("decode")], [], Priority.INTERACTIVE)
    assert not coming([], [message("collect")])
    assert not coming([], [message("split", pipeline="speak")])
    assert not coming([message("decode", priority=Priority.BULK)], [])
    old = message("decode"), message("split")
    for each in old:
        each.taken_s -= 10.0
    assert not coming([old[0]], [old[1]]), "its model is being loaded, or another worker has it"
    old[0].begun = old[1].begun = True
    assert coming([old[0]], []), "it was decoded after a long step"
    assert not coming([], [old[1]])
