"""Steps of language models for bulk alone end where a person's question comes, and are done again."""

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.continuous import Stopped
from engines.generation.row_answering import RowAnswering
from engines.inference.resident import HostPlace
from schemas.jobs import Priority
from schemas.subjects import COLLECT, SPLIT
from tests.language import language_folder
from tests.row_answers import Plain, answering, begun, question
from workers.continuing import Continuing, Work
from workers.messages_in_flight import MessagesInFlight


class Noting:
    """A table whose runs are noted: what it does, of which length, and whether it was stopped. `during` is called in
    each run; one that is stopped there has written its keys and values, and its scores are not used.
    """

    def __init__(self, table: Any, during: Callable[[], None]) -> None:
        self._table, self._during, self._stop = table, during, False
        self.runs: list[tuple[str, int, bool]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def stop(self) -> None:
        self._stop = True

    def read(self, first: int, texts: Sequence[Any], before: int = 0) -> Any:
        return self._run("read", max(map(len, texts)), self._table.read(first, texts, before))

    def write(self, first: int, tokens: Sequence[int], known: Sequence[int]) -> Any:
        return self._run("write", len(tokens), self._table.write(first, tokens, known))

    def _run(self, what: str, size: int, scores: Any) -> Any:
        self._stop = False
        self._during()
        self.runs.append((what, size, self._stop))
        if self._stop:
            raise Stopped
        return scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("stopped") / "tiny", ends=False)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Plain:
    return Plain(folder)


def for_ever(call: Callable[[], object]) -> None:
    while True:
        call()


def noted(folder: Path, slots: int, during: Callable[[RowAnswering], None]) -> tuple[RowAnswering, Noting]:
    rows = answering(folder, HostPlace, slots)
    table = Noting(rows.table, lambda: during(rows))
    rows.table = cast(Any, table)
    return rows, table


@pytest.mark.parametrize("length", [8, 400], ids=["tokens", "a long question"])
def test_a_person_waits_for_no_step_of_bulk(folder: Path, plain: Plain, length: int) -> None:
    coming = False
    rows, table = noted(folder, 9, lambda rows: rows.hurry() if coming else None)
    bulk = [begun(rows, question(length, n), 20) for n in range(5)]
    for _ in range(3):
        rows.step(lambda: None)
    coming = True
    rows.step(lambda: None)
    coming = False
    person = begun(rows, question(11, 99), 5, urgent=True)
    rows.step(lambda: None)
    assert table.runs[-2][2], "the step of bulk was stopped"
    assert table.runs[-1] == ("read", 11, False)
    assert person.tokens == 1
    while rows.busy:
        rows.step(lambda: None)
    assert person.text == plain.answer(question(11, 99), 5)
    assert [each.text for each in bulk] == [plain.answer(question(length, n), 20) for n in range(5)]


@given(
    hurries=st.lists(st.booleans(), min_size=1, max_size=30),
    asked=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([1, 9, 70, 200]), st.booleans()), min_size=1, max_size=8
    ),
)
@settings(max_examples=12)
def test_answers_are_the_same_however_often_steps_are_stopped(
    folder: Path, plain: Plain, hurries: list[bool], asked: list[tuple[int, int, bool]]
) -> None:
    def during(rows: RowAnswering) -> None:
        if hurries[len(table.runs) % len(hurries)]:
            rows.hurry()

    rows, table = noted(folder, 4, during)
    answers: dict[int, Any] = {}
    step = 0
    while rows.busy or len(answers) < len(asked):
        for number, (at, length, urgent) in enumerate(asked):
            if at <= step and number not in answers:
                answers[number] = begun(rows, question(length, number), 6, urgent=urgent)
        people_wait = any(asked[number][2] and not answer.done for number, answer in answers.items())
        before = len(table.runs)
        rows.step(lambda: None)
        assert not (people_wait and any(stopped for _, _, stopped in table.runs[before:])), "a person's step goes on"
        step += 1
    stopped = [each for _, _, each in table.runs]
    assert not any(one and other for one, other in pairwise(stopped)), "bulk goes on, too"
    for number, (_, length, _) in enumerate(asked):
        assert answers[number].text == plain.answer(question(length, number), 6)


def test_a_run_on_the_processor_is_stopped_by_another_thread(folder: Path) -> None:
    table = answering(folder, HostPlace, 2).table
    text = np.array(question(60, 1), np.int32)
    expected = table.read(0, [text]).of([0])
    ended = threading.Event()

    def stop() -> None:
        while not ended.is_set():
            table.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        with pytest.raises(Stopped):
            for_ever(lambda: table.read(0, [text]))
    finally:
        ended.set()
        stopping.join()
    assert np.array_equal(table.read(0, [text]).of([0]), expected)


def test_steps_hurry_where_a_persons_question_to_their_model_comes() -> None:
    def message(stage: str, priority: Priority, pipeline: str = "chat") -> Any:
        queue = SimpleNamespace(stage=stage, priority=priority, pipeline=pipeline, tenant="")
        return type("Message", (), {"queue": queue, "expected_s": 0.0})()

    hurried: list[str] = []
    in_flight = MessagesInFlight()
    for name in ("chat", "complete"):
        task = SimpleNamespace(pipeline=SimpleNamespace(spec=SimpleNamespace(name=name)))
        session = type("Session", (), {"hurry": lambda self, name=name: hurried.append(name)})()
        in_flight.continuing.add(Work(cast(Any, task), cast(Any, None), session))
    for stage in ("decode", COLLECT, SPLIT):
        for priority in Priority:
            take = in_flight.take if stage == "decode" else in_flight.take_io
            take(message(stage, priority))
            expected = ["chat"] if priority is Priority.INTERACTIVE and stage != COLLECT else []
            assert hurried == expected, (stage, priority)
            hurried.clear()
    in_flight.take(message("decode", Priority.INTERACTIVE, "speak"))
    assert not hurried
    Continuing().hurry("chat")
