"""Answers that are written in rows of a table: any of them begins and ends while others are written.

A step is one run of the model: it reads the questions of answers that begin, or adds a token to those that are written.

- An answer that a person waits for begins at the next step. Where no row is free, the answer of bulk with the fewest
  tokens is put back, at most once: it begins again later, and its text is the same.
- While such answers are written, those of bulk get every `BULK_TURN`-th step; where a token for all takes no longer
  than one for a few (on a GPU), all get one in each step.
- Other answers leave one row in nine free, at least one.
- A step for bulk alone ends at once, and is done again, where a person's question comes. Of two such steps one is done.
- A long question is read in pieces, between steps of others. Some answers are written each by a library's generator of
  its own (`alone`), which takes turns with the rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engines.continuous import Stopped
from engines.generation.answer_request import AnswerRequest
from engines.generation.answering import BULK_TURN, Asked, Asking, Group
from engines.generation.drawing import drawn
from engines.generation.rows import Row, Scores, Table
from engines.generation.token_writer import TokenWriter
from engines.part import Tick
from schemas.errors import RigflowError


@dataclass(slots=True, eq=False)
class _Alone:
    asked: Asked
    group: Group


@dataclass(slots=True, eq=False)
class RowAnswering(Asking):
    """All answers of one session, within its limits. `alone`: whether one is written by a generator of its own, which
    `start` makes; it may raise RigflowError.
    """

    table: Table
    writer: TokenWriter
    start: Callable[[Asked], Group]
    alone: Callable[[AnswerRequest], bool]
    _rows: list[Row] = field(default_factory=list)
    _alone: list[_Alone] = field(default_factory=list)
    _turn: int = 0
    _may_stop: bool = False  # whether the step that goes on is for bulk alone
    _stopped: bool = False  # whether the step before ended before its end

    def step(self, tick: Tick) -> None:
        """Read questions, or add a token to answers."""
        begun = [*(row.asked for row in self._rows), *(each.asked for each in self._alone)]
        people_wait = any(each.request.urgent for each in (*self._waiting, *begun))
        self._may_stop = not (people_wait or self._stopped)
        self._stopped = False
        try:
            self._step(begun)
        except Stopped:
            self._stopped = True
        finally:
            self._may_stop = False
        tick()
        self._tidy()

    def hurry(self) -> None:
        """See `Asking`."""
        if self._may_stop:
            self.table.stop()

    def _step(self, begun: Sequence[Asked]) -> None:
        self._put_back(begun)
        self._turn += 1
        urgent = self._urgent_waiting
        people_wait = any(row.urgent for row in self._rows) or any(each.asked.request.urgent for each in self._alone)
        with_bulk = not people_wait or self.table.steps_all or not self._turn % BULK_TURN
        if urgent and self._free:
            self._begin(urgent, self._free)
        elif with_bulk and self._bulk_room and (bulk := self._bulk_waiting):
            self._begin(bulk, self._bulk_room)
        else:
            self._go_on(with_bulk)

    def clear(self) -> None:
        """Forget all answers."""
        for each in self._alone:
            each.group.close()
        for answers in (self._waiting, self._rows, self._alone):
            answers.clear()

    @property
    def _taken(self) -> int:
        return len(self._rows) + len(self._alone)

    @property
    def _bulk_room(self) -> int:
        """Rows that answers of bulk may take now."""
        taken = sum(not row.urgent for row in self._rows) + sum(not each.asked.request.urgent for each in self._alone)
        return min(self.limits.bulk_slots - taken, self._free)

    def _begin(self, waiting: Sequence[Asked], room: int) -> None:
        """Begin one of these answers, and such others as a run reads together with it."""
        first, *others = waiting
        if self.alone(first.request):
            self._begin_alone(first)
            return
        chosen, lengths = [first], [len(first.request.tokens)]
        if lengths[0] <= self.table.piece:
            for each in others:
                size = len(each.request.tokens)
                if len(chosen) < room and not self.alone(each.request) and self.table.fits([*lengths, size]):
                    chosen.append(each)
                    lengths.append(size)
        rows = [Row(each) for each in chosen]
        for each in chosen:
            self._waiting.remove(each)
        self._rows += rows
        self._read(rows)

    def _begin_alone(self, asked: Asked) -> None:
        self._waiting.remove(asked)
        try:
            self._alone.append(_Alone(asked, self.start(asked)))
        except RigflowError as error:
            asked.answer.fail(error)

    def _read(self, rows: Sequence[Row]) -> None:
        """Read the questions of rows that follow each other, or the next piece of a long one."""
        [known] = {row.known for row in rows}
        texts = [row.asked.request.tokens[known : known + self.table.piece] for row in rows]
        try:
            scores = self.table.read(self._rows.index(rows[0]), texts, known)
            for row, text in zip(rows, texts, strict=True):
                row.known += len(text)
            if rows[0].reads:
                scores.best()  # of no use, and known when the run has ended: a step is over then
            self._choose(rows, scores)
        except RigflowError as error:
            self._fail(rows, error)

    def _go_on(self, with_bulk: bool) -> None:
        """Take one of the turns: tokens for rows, a piece of each long question, a step of each lone answer."""
        turns: list[Callable[[], None]] = []
        if ranges := [*self._ranges(with_bulk)]:
            turns.append(lambda: self._write(ranges))
        for row in self._rows:
            if row.reads and (with_bulk or row.urgent):
                turns.append(lambda row=row: self._read([row]))  # type: ignore[misc]
        for each in self._alone:
            if with_bulk or each.asked.request.urgent:
                turns.append(lambda each=each: self._step_alone(each))  # type: ignore[misc]
        if turns:
            turns[self._turn % len(turns)]()

    def _ranges(self, with_bulk: bool) -> Iterator[range]:
        """Rows that get a token: all to the last one, or the runs of those that people wait for."""
        if with_bulk:
            if any(not row.reads for row in self._rows):
                count, most = len(self._rows), self.table.together
                yield from (range(first, min(first + most, count)) for first in range(0, count, most))
            return
        begun: int | None = None
        for number, row in enumerate([*self._rows, None]):
            if row is not None and row.urgent and not row.reads:
                begun = number if begun is None else begun
            elif begun is not None:
                yield range(begun, number)
                begun = None

    def _write(self, ranges: Sequence[range]) -> None:
        """Add a token to rows. One whose question is not read to the end has no use of it: the next piece is put in its
        place.
        """
        for numbers in ranges:
            rows = [self._rows[number] for number in numbers]
            try:
                scores = self.table.write(numbers.start, [row.token for row in rows], [row.known for row in rows])
                writing = [row for row in rows if not row.reads]
                for row in writing:
                    row.known += 1
                self._choose(rows, scores, writing)
            except RigflowError as error:
                self._fail(rows, error)

    def _choose(self, rows: Sequence[Row], scores: Scores, among: Sequence[Row] | None = None) -> None:
        """Choose the next token of rows whose question is read to the end."""
        chosen = {id(row) for row in (rows if among is None else among) if not row.reads}
        if not chosen:
            return
        best = scores.best()
        lots = [
            number for number, row in enumerate(rows) if id(row) in chosen and row.asked.request.sampling is not None
        ]
        own = dict(zip(lots, scores.of(lots), strict=True)) if lots else {}
        for number, row in enumerate(rows):
            if id(row) not in chosen:
                continue
            sampling = row.asked.request.sampling
            row.token = best[number] if sampling is None else drawn(own[number], sampling, row.drawn)
            row.drawn += 1
            self.writer.add(row.asked, row.token)

    def _step_alone(self, each: _Alone) -> None:
        try:
            each.group.step()
        except RigflowError as error:
            each.asked.answer.fail(error)

    def _fail(self, rows: Sequence[Row], error: RigflowError) -> None:
        for row in rows:
            row.asked.answer.fail(error)

    def _leave(self, asked: Asked) -> None:
        """Take an answer from its row or its generator."""
        for each in [each for each in self._alone if each.asked is asked]:
            self._alone.remove(each)
            each.group.close()
        self._keep([row.asked is not asked for row in self._rows])

    def _tidy(self) -> None:
        """Take away answers that are done."""
        for each in [each for each in self._alone if each.asked.answer.done]:
            self._leave(each.asked)
        self._keep([not row.asked.answer.done for row in self._rows])

    def _keep(self, kept: Sequence[bool]) -> None:
        """Keep some rows, which follow each other again: the last ones are moved to where others were."""
        count = sum(kept)
        if count == len(self._rows):
            return
        holes = [number for number in range(count) if not kept[number]]
        last = [number for number in range(count, len(self._rows)) if kept[number]]
        for hole, number in zip(holes, last, strict=True):
            row = self._rows[number]
            try:
                self.table.move(number, hole, row.known)
            except RigflowError as error:
                row.asked.answer.fail(error)
            self._rows[hole] = row
        del self._rows[count:]
