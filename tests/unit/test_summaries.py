"""Summaries of texts that a model cannot hold: where these are cut, and what follows from each other."""

from functools import partial

import pytest

from engines.generation.answer import Answer
from engines.operators.summarise import Summary, _filled, _pieces
from schemas.errors import ItemTooLarge, ModelError


def words(text: str) -> int:
    return len(text.split())


def test_stretches_are_few_and_about_equal() -> None:
    pieces = [(f" word{number}", 1) for number in range(21)]
    found = _filled(pieces, 10)
    assert [words(each) for each in found] == [7, 7, 7]
    assert " ".join(found) == "".join(piece for piece, _ in pieces).strip()
    assert _filled([(" a", 9), (" b", 9), (" c", 1)], 10) == ["a", "b c"]
    assert _filled([(" a", 3)], 10) == ["a"]


def test_a_sentence_that_has_no_room_is_cut_between_words() -> None:
    text = " " + " ".join("abcdefghijk")
    pieces = list(_pieces(text, 3, words))
    assert "".join(pieces) == text
    assert max(map(words, pieces)) <= 3
    assert list(_pieces("aaaa", 3, len)) == ["aa", "aa"]


class Model:
    """Answers with the first letters of what it is asked; a summary of two stretches has three questions."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int, Answer]] = []

    def ask(self, text: str, number: int) -> Answer:
        answer = Answer(piece=chr, prompt_tokens=len(text))
        self.answers.append((text, number, answer))
        return answer

    def cut(self, text: str) -> list[str]:
        if "bad" in text:
            raise ItemTooLarge("no room")
        return [text] if len(text) <= 8 else [text[: len(text) // 2], text[len(text) // 2 :]]

    def write(self) -> None:
        for text, _, answer in self.answers:
            if not answer.done:
                for letter in text[:3]:
                    answer.add(ord(letter))
                answer.end("stop")


def test_summaries_are_summarised() -> None:
    model = Model()
    summary = Summary("0123456789", model.cut, model.ask)
    assert [(text, number) for text, number, _ in model.answers] == [("01234", 0), ("56789", 1)]
    summary.advance()
    assert (summary.done, len(model.answers), summary.news()) == (False, 2, "")
    model.write()
    assert not summary.done, "these are stretches"
    summary.advance()
    assert model.answers[-1][:2] == ("012\n\n567", 2)
    model.write()
    assert (summary.done, summary.text, summary.finish, summary.news()) == (True, "012", "stop", "012")
    assert (summary.tokens, summary.prompt_tokens) == (9, 18)


def test_a_cancelled_summary_asks_for_nothing_more() -> None:
    model = Model()
    summary = Summary("0123456789", model.cut, model.ask)
    for _, _, answer in model.answers:
        answer.cancel = partial(answer.end, "cancelled")
    summary.cancel()
    summary.advance()
    assert (summary.done, summary.finish, len(model.answers)) == (True, "cancelled", 2)


def test_an_error_of_a_stretch_is_that_of_the_summary() -> None:
    model = Model()
    summary = Summary("0123456789", model.cut, model.ask)
    model.answers[0][2].fail(ModelError("lost"))
    model.write()
    summary.advance()
    assert (summary.done, str(summary.error)) == (True, "lost")
    model = Model()
    model.ask("bad" + "x" * 10, 0)
    with pytest.raises(ItemTooLarge):
        Summary("bad", model.cut, model.ask)
