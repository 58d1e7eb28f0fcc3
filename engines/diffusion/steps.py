"""The steps of pictures with the UNet: the rows of several in one batch, where that is wanted."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from engines.diffusion.drawing import Sketch
from engines.diffusion.network import Network
from engines.part import Array, Tick
from schemas.errors import ModelError

_FEWER = "pictures were computed {} at a time: on this device bits depend on the place in a batch of {}"


class Steps:
    """Does the steps of pictures, of `batch` at a time.

    A batch has always the rows of so many pictures; where there are fewer, the last row fills it up. A graph with a
    batch of its own gets that one. Where the device computes other bits in the last places of such a batch, it has some
    rows more, of no picture. Where that is not enough the batches are half as large, or smaller still, and the notes of
    pictures say so; `places` has what was found for each size: the rows more, None if no number of them is enough.
    """

    def __init__(self, unet: Network, batch: int, tick: Tick, places: dict[Hashable, int | None]) -> None:
        self._unet = unet
        self._batch = batch
        self._tick = tick
        self._places = places
        shape = unet.inputs["timestep"].shape
        self._times: int | str | None = shape[0] if shape else None
        self._own_rows = unet.rows("sample")
        self._fixed: tuple[Sequence[Sketch], list[dict[str, Array]]] = ((), [])

    def all(self, sketches: Sequence[Sketch]) -> Iterator[tuple[int, ModelError | None]]:
        """Do all steps; yield the number of each picture when it is done, or its error. Raises DeviceLost.

        Pictures are computed together that have one size, and one number of prompts; and the same timesteps, if the
        UNet takes a single one.
        """
        groups: dict[Hashable, deque[int]] = {}
        for number, sketch in enumerate(sketches):
            groups.setdefault(sketch.kind(self._timestep_a_row(sketch)), deque()).append(number)
        for waiting in groups.values():
            first = sketches[waiting[0]]
            most, at_any_time = self._most(first), self._timestep_a_row(first)
            for number in waiting if most < (wanted := self._wanted(first)) else ():
                sketches[number].notes.append(_FEWER.format(most if most > 1 else "one", wanted))
            here: list[int] = []
            while waiting or here:
                if at_any_time or not here:
                    here += [waiting.popleft() for _ in range(min(len(waiting), most - len(here)))]
                over = dict(self._one([(number, sketches[number]) for number in here]))
                here = [number for number in here if number not in over]
                yield from over.items()

    def _one(self, sketches: Sequence[tuple[int, Sketch]]) -> Iterator[tuple[int, ModelError | None]]:
        """Do a step of each picture; yield those that are done, or failed."""
        try:
            outputs = self._predicted([sketch for _, sketch in sketches])
        except ModelError as error:
            if self._batch > 1 and not error.hint:
                error = ModelError(error.what, f"if memory is too small for {self._batch} pictures, lower `batch`")
            yield from ((number, error) for number, _ in sketches)
            return
        for (number, sketch), output in zip(sketches, outputs, strict=True):
            try:
                sketch.move(output, self._unet.name)
            except ModelError as error:
                yield number, error
            else:
                if sketch.done:
                    yield number, None
        self._tick()

    def _predicted(self, sketches: Sequence[Sketch]) -> list[Array]:
        """The UNet's answer for each picture, `[rows, C, h, w]`, in batches of one size."""
        samples = np.concatenate([np.repeat(each.seen(), each.rows, axis=0) for each in sketches])
        times = np.concatenate([np.full(each.rows, each.timestep) for each in sketches])
        most = self._most(sketches[0])
        size = self._own_rows or most * sketches[0].rows
        more = (self._more_rows(sketches[0], most) or 0) if most > 1 else 0
        batches = [
            [min(each, len(times) - 1) for each in range(first, first + size + more)]
            for first in range(0, len(times), size)
        ]
        answers = []
        for taken, fixed in zip(batches, self._fixed_inputs(sketches, batches), strict=True):
            first, feed = taken[0], {**fixed, "sample": samples[taken]}
            feed["timestep"] = times[taken] if self._timestep_a_row(sketches[0]) else self._one_timestep(times[first])
            [answer] = self._unet.run(feed, [next(iter(self._unet.outputs))], self._tick)
            answers.append(answer[: min(size, len(times) - first)])
        return np.split(np.concatenate(answers), len(sketches))

    def _fixed_inputs(self, sketches: Sequence[Sketch], batches: Sequence[Sequence[int]]) -> list[dict[str, Array]]:
        """The inputs that are the same at each step, of these rows, in the UNet's types.

        They are made once for the same pictures: those of XL are ten times as large as the latents.
        """
        known, made = self._fixed
        if len(known) != len(sketches) or any(one is not other for one, other in zip(known, sketches, strict=True)):
            arrays = {
                name: self._unet.typed(name, np.concatenate([each.fixed[name] for each in sketches]))
                for name in sketches[0].fixed
            }
            made = [{name: array[taken] for name, array in arrays.items()} for taken in batches]
            self._fixed = sketches, made
        return made

    def _most(self, sketch: Sketch) -> int:
        """How many pictures are computed together: as many as wanted, or half of them, and so on."""
        size = self._wanted(sketch)
        while size > 1 and self._more_rows(sketch, size) is None:
            size = 1 if self._own_rows else size // 2
        return size

    def _wanted(self, sketch: Sketch) -> int:
        """How many pictures fit into a batch."""
        return max(1, self._own_rows // sketch.rows) if self._own_rows else self._batch

    def _more_rows(self, sketch: Sketch, pictures: int) -> int | None:
        """How many rows more a batch has, so that a picture has the same bits in every place; None: it never has.

        Batches of copies of the picture are computed once.
        """
        key = (sketch.latents.shape, sketch.rows, pictures)
        if key not in self._places:
            tried = (0,) if self._own_rows else (0, 1, sketch.rows)
            self._places[key] = next((more for more in tried if self._same_places(sketch, pictures, more)), None)
        return self._places[key]

    def _same_places(self, sketch: Sketch, pictures: int, more: int) -> bool:
        """Whether copies of a picture have the same bits in all places of a batch with some rows more."""
        rows = sketch.rows
        taken = [row % rows for row in range(self._own_rows or pictures * rows + more)]
        feed = {name: array[taken] for name, array in sketch.fixed.items()}
        feed["sample"] = np.repeat(sketch.seen(), len(taken), axis=0)
        each = isinstance(self._times, str)
        feed["timestep"] = np.full(len(taken), sketch.timestep) if each else self._one_timestep(sketch.timestep)
        try:
            [answer] = self._unet.run(feed, [next(iter(self._unet.outputs))], self._tick)
        except ModelError:
            return True  # the batch itself will fail, and its pictures with it
        return len({answer[first : first + rows].tobytes() for first in range(0, pictures * rows, rows)}) == 1

    def _timestep_a_row(self, sketch: Sketch) -> bool:
        """Whether each row of a batch has a timestep of its own."""
        return isinstance(self._times, str) and self._most(sketch) > 1

    def _one_timestep(self, timestep: float) -> Array:
        size = self._times if isinstance(self._times, int) else 1
        return np.full(() if self._times is None else (size,), timestep)
