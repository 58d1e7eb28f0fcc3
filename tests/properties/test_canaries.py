"""Which cards are found wrong: all that err and no other, whatever the order, while they are fewer than half."""

from hypothesis import given
from hypothesis import strategies as st

from placement.canaries import Answers, judge

RIGHT = "right"


@st.composite
def fleets(draw: st.DrawFn) -> tuple[dict[str, list[str]], set[str]]:
    """The answers of each card, one after the other, and the cards that err: fewer than half, from any moment on.

    Wrong answers may be equal to each other: a fault of a driver is the same on several cards.
    """
    count = draw(st.integers(1, 9))
    cards = [f"card{number}" for number in range(count)]
    wrong = draw(st.sets(st.sampled_from(cards), max_size=(count - 1) // 2))
    answers: dict[str, list[str]] = {}
    for card in cards:
        rounds = draw(st.integers(1, 3))
        answers[card] = [RIGHT] * rounds
        if card in wrong:
            begins = draw(st.integers(0, rounds - 1))
            lies = st.sampled_from(["wrong", "other", f"own{card}"])
            answers[card][begins:] = [draw(lies) for _ in range(rounds - begins)]
    return answers, wrong


@given(fleets(), st.data())
def test_cards_that_err_are_found_and_no_other(
    fleet: tuple[dict[str, list[str]], set[str]], data: st.DataObject
) -> None:
    answers, wrong = fleet
    group = dict.fromkeys(answers, Answers())  # all are known to be there before the first one answers
    turns = data.draw(st.permutations([card for card, each in answers.items() for _ in each]))
    left = {card: list(each) for card, each in answers.items()}
    found: set[str] = set()
    for card in turns:
        if card in found:
            continue  # a quarantined card computes no canaries
        last = left[card].pop(0)
        group[card] = Answers(group[card].first or last, last)
        for each in judge(group).wrong:
            found.add(each)
            group.pop(each)
        assert found <= wrong, "a card that always answers rightly is found wrong"
    assert found == wrong


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=6))
def test_a_card_alone_is_wrong_once_it_answers_otherwise_than_before(answers: list[str]) -> None:
    first, found = answers[0], False
    for last in answers:
        found = found or bool(judge({"card": Answers(first, last)}).wrong)
    assert found == (len(set(answers)) > 1)


def test_of_two_that_differ_from_the_start_a_third_decides() -> None:
    two = {"a": Answers("x", "x"), "b": Answers("y", "y")}
    assert (judge(two).wrong, judge(two).undecided) == ({}, ("a", "b"))
    assert judge({**two, "c": Answers()}).undecided == ()
    assert set(judge({**two, "c": Answers("y", "y")}).wrong) == {"a"}


def test_a_card_that_is_mended_may_answer_otherwise_than_before() -> None:
    mended = {"a": Answers("right", "right"), "b": Answers("right", "right"), "c": Answers("wrong", "right")}
    assert judge(mended).wrong == {}
