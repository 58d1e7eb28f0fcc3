"""Judges the cards of a group by their answers to the same canary. Cards of one group must give equal answers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Answers(NamedTuple):
    """Of one card: its first answer since it was trusted, and its last one. Empty: it has not answered yet."""

    first: str = ""
    last: str = ""

    @property
    def steady(self) -> bool:
        """Whether it always gave the same answer, as far as that is known."""
        return bool(self.last) and self.first == self.last


@dataclass(frozen=True, slots=True)
class Verdict:
    """`truth`: the answer of more than half of the cards; empty if there is none yet. `wrong`: cards, and why."""

    truth: str
    wrong: Mapping[str, str]
    undecided: tuple[str, ...] = ()  # cards that differ from the start, none of which has more than half behind it


def judge(group: Mapping[str, Answers]) -> Verdict:
    """The verdict on all cards of a group that are trusted, those that have not answered yet among them.

    Only cards that always gave one answer have a vote, and more than half of all cards must agree. So while fewer than
    half of them err, no card that always answers rightly is found wrong, in whatever order answers arrive; and once all
    have answered, every other card is found.
    """
    votes = Counter(answers.last for answers in group.values() if answers.steady)
    truth = next((answer for answer, count in votes.items() if 2 * count > len(group)), "")
    wrong: dict[str, str] = {}
    for card, answers in group.items():
        if not answers.last or answers.last == truth:
            continue
        if truth and len(group) > 1:
            wrong[card] = f"otherwise than {votes[truth]} of {len(group)} cards of its kind"
        elif answers.first and not answers.steady:
            wrong[card] = "otherwise than before"
    answered = all(answers.last for answers in group.values())
    differ = tuple(sorted(group)) if answered and not truth and not wrong else ()
    return Verdict(truth, wrong, differ)
