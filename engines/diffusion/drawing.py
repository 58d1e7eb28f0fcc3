"""Pictures that are wanted, and those that are being drawn, each at a step of its own."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from engines.diffusion.noise import normal
from engines.diffusion.samplers import Sampler
from engines.diffusion.schedule import Prediction, Spacing
from engines.part import Array
from schemas.errors import ModelError

FIRST_NOISE, STEP_NOISE = 0, 1
EXPORT_32 = "float16 is too small for some networks: take this one in float32"


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture that is wanted. What is None is the model's own: see `DiffusionSession.manner`.

    `size`: height and width. `picture [H, W, 3]` uint8 of this size: what it begins with, the more of it the lower
    `strength` is, which is between 0 and 1.
    """

    prompt: str
    negative: str = ""
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str = ""
    prediction: Prediction | None = None
    spacing: Spacing | None = None
    clip_skip: int = 0
    seed: int = 0
    picture: Array | None = None
    strength: float = 1.0


@dataclass(slots=True)
class Sketch:
    """A picture that is being drawn: `latents [1, C, h, w]` float32 at the beginning of a `step`.

    `fixed`: the UNet's inputs that are the same at each step, with a row for each prompt: the negative and the positive
    one, or the positive one alone. `guidance`: None without a negative one. `notes` are for the result.
    """

    seed: int
    sampler: Sampler
    latents: Array
    step: int
    fixed: Mapping[str, Array]
    guidance: float | None
    notes: list[str]

    @property
    def rows(self) -> int:
        """How many rows of the UNet a step takes."""
        return 1 if self.guidance is None else 2

    @property
    def timestep(self) -> float:
        """Of the next step."""
        return float(self.sampler.timesteps[self.step])

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.step >= len(self.sampler.timesteps)

    def kind(self, own_timesteps: bool) -> Hashable:
        """A key that is equal for pictures that the UNet can compute together.

        `own_timesteps`: whether each row may have another timestep.
        """
        times = () if own_timesteps else tuple(self.sampler.timesteps[self.step :].tolist())
        return self.latents.shape, self.rows, times

    def seen(self) -> Array:
        """Return the latents as the UNet takes them at the next step."""
        return self.sampler.seen(self.latents, self.step)

    def move(self, output: Array, name: str) -> None:
        """Do a step by the UNet's output, `[rows, C, h, w]`. Raises ModelError; `name` is the network's."""
        if self.guidance is not None:
            output = output[:1] + np.float32(self.guidance) * (output[1:] - output[:1])
        noise = partial(normal, self.seed, STEP_NOISE + self.step, self.latents.shape)
        try:
            self.latents = self.sampler.next(self.latents, output, self.step, noise)
        except ZeroDivisionError as error:
            what = f"model {name}: its scheduler_config.json has a step without signal or without noise"
            raise ModelError(what, "take another scheduler") from error
        self.step += 1
        if not np.isfinite(self.latents).all():
            what = f"model {name} gave numbers that are none in step {self.step}"
            raise ModelError(what, EXPORT_32)
