"""Which answers of a session are written in a step: urgent ones first, in groups, with few places."""

from collections.abc import Sequence

import numpy as np

from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest
from engines.generation.answering import BULK_TURN, Answering, Asked, Limits
from schemas.errors import ModelError

WORD = "abcdefghijklmnopqrstuvwxyz" * 4


class Letters:
    """Writes the letters of `WORD`, one in a step, for each of its answers, as a library with a static batch does."""

    def __init__(self, asked: Sequence[Asked], log: list[str]) -> None:
        self._left = {id(each): iter(WORD[: each.request.max_tokens]) for each in asked}
        self._asked = list(asked)
        self._log = log
        self.closed = False

    def step(self) -> None:
        for each in self._asked:
            letter = next(self._left[id(each)], None)
            if letter is None:
                each.answer.end("length")
                continue
            each.answer.add(ord(letter))
        self._log.append("+".join(each.request.grammar for each in self._asked))

    def drop(self, asked: Asked) -> None:
        self._asked.remove(asked)

    def close(self) -> None:
        assert not self._asked
        self.closed = True


class Session:
    """`steps` are the answers of each step, by name; names are given in place of grammars."""

    def __init__(self, slots: int, fails: str = "", read: int = 1024) -> None:
        self.steps: list[str] = []
        self._fails = fails
        self.answering = Answering(Limits(2048, slots, 1, read), self._start, lambda request: 0)

    def _start(self, asked: Sequence[Asked]) -> Letters:
        if any(each.request.grammar == self._fails for each in asked):
            raise ModelError("it fails")
        return Letters(asked, self.steps)

    def ask(self, name: str, tokens: int = 20, urgent: bool = False, length: int = 4) -> Answer:
        answer = Answer(piece=chr)
        self.answering.add(AnswerRequest(np.zeros(length, np.int32), tokens, grammar=name, urgent=urgent), answer)
        return answer

    def step(self, count: int = 1) -> list[str]:
        begun = len(self.steps)
        for _ in range(count):
            self.answering.step(lambda: None)
        return self.steps[begun:]

    def run(self) -> None:
        while self.answering.busy:
            self.step()


def test_an_answer_that_a_person_waits_for_is_written_at_the_next_step_and_bulk_in_its_turn() -> None:
    session = Session(18)
    bulk = [session.ask(f"b{number}") for number in range(30)]
    session.step(3)
    person = session.ask("person", urgent=True)
    steps = session.step(2 * BULK_TURN)
    assert steps[0] == "person", "it waits for no answer of bulk"
    assert steps.count("person") == 2 * (BULK_TURN - 1)
    assert sum(step.startswith("b0") for step in steps) == 2
    session.run()
    assert {answer.text for answer in (person, *bulk)} == {WORD[:20]}


def test_answers_of_bulk_are_put_back_once_where_no_place_is_free_and_their_text_is_the_same() -> None:
    session = Session(4)
    bulk = [session.ask(f"b{number}") for number in range(3)]
    session.step(5)
    assert [len(answer.text) for answer in bulk] == [5, 5, 5]
    people = [session.ask(f"p{number}", urgent=True) for number in range(6)]
    session.step(2)
    assert [len(answer.text) for answer in people] == [2, 2, 2, 2, 0, 0], "four places"
    assert session.answering.room == 0
    news = [answer.news() for answer in bulk]
    session.run()
    assert {answer.text for answer in (*people, *bulk)} == {WORD[:20]}
    assert [new + answer.news() for new, answer in zip(news, bulk, strict=True)] == [WORD[:20]] * 3
    assert {answer.tokens for answer in bulk} == {20}


def test_bulk_is_put_back_no_second_time_so_that_it_ends() -> None:
    session = Session(1)
    bulk, people = session.ask("bulk"), []
    session.step()
    while not bulk.done and len(people) < 50:
        people.append(session.ask(f"p{len(people)}", tokens=1, urgent=True))
        session.step(4)
    assert bulk.text == WORD[:20]
    assert [answer.done for answer in people] == [True, *[False] * (len(people) - 1)]
    session.run()
    assert all(answer.done for answer in people)


def test_a_group_of_bulk_begins_when_it_fills_half_of_the_places_or_has_waited() -> None:
    session = Session(18)
    session.ask("first", tokens=60)
    session.step()
    for number in range(20):
        session.ask(f"b{number:02}")
    session.step(3)
    assert sorted(step.count("b") for step in session.step(2)) == [0, 15], "sixteen of eighteen places are for bulk"
    session.step(45)
    assert sorted(step.count("b") for step in session.step(2)) == [0, 5], (
        "they waited until half of the places were free"
    )
    late = session.ask("late", tokens=1)
    session.step(BULK_TURN)
    assert not late.text, "it waits for others"
    session.step(6)
    assert late.done


def test_a_group_reads_so_many_tokens_of_questions_and_one_group_in_a_step() -> None:
    session = Session(18)
    for number in range(8):
        session.ask(f"b{number}", length=250)
    assert session.step() == ["b0+b1+b2+b3"]
    assert session.step(3) == ["b4+b5+b6+b7", "b0+b1+b2+b3", "b4+b5+b6+b7"]


def test_a_group_is_read_within_the_limits_and_its_answers_end_within_the_context() -> None:
    session = Session(18, read=160)
    for number in range(8):
        session.ask(f"b{number}", length=20 if number < 6 else 50)
    assert session.step() == ["b0+b1+b2+b3+b4+b5"]
    session = Session(18, read=160)
    for number in range(6):
        session.ask(f"b{number}", length=200)
    assert session.step() == ["b0+b1+b2+b3"], "four are a group however long their questions are"
    session = Session(18)
    session.ask("much", tokens=2000)
    session.ask("long", tokens=20, length=100)
    assert session.step() == ["much"], "padded to the long question it would not end within the context"


def test_a_group_that_cannot_begin_fails_alone_and_cancelled_answers_leave() -> None:
    session = Session(4, fails="bad")
    bad = session.ask("bad", urgent=True)
    good = [session.ask(f"b{number}") for number in range(3)]
    session.step(2)
    assert isinstance(bad.error, ModelError)
    for answer in good[:2]:
        answer.cancel()
    session.run()
    assert [answer.finish for answer in good] == ["cancelled", "cancelled", "length"]
    assert session.answering.room == 4


def test_an_answer_has_the_number_of_tokens_that_it_was_asked_with() -> None:
    assert Session(2).ask("a", length=7).prompt_tokens == 7
