"""Draws pictures: text encoders, the steps of samplers with the UNet, and the decoder.

The UNet gets the negative and the positive prompt of a picture as two rows, or the positive one alone. A GPU computes
the rows of several pictures together, in batches of one size, which are filled up where there are fewer: another size
would change the last bits. On the CPU, where a batch is no faster, it computes those of one picture. So a picture's
bits depend on its request alone.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from engines.content import ModelFiles
from engines.diffusion.choice import own_sampler, sampler_of
from engines.diffusion.drawing import EXPORT_32, FIRST_NOISE, Drawing, Sketch
from engines.diffusion.folder import DECODER, ENCODER, TEXT, TEXT_2, TOKENIZERS, UNET, Facts, facts_of
from engines.diffusion.network import Network
from engines.diffusion.noise import normal
from engines.diffusion.prompt import Conditioning, Encoders
from engines.diffusion.samplers import Sampler
from engines.diffusion.steps import Steps
from engines.diffusion.tokens import ClipTokens
from engines.part import Array, Tick
from schemas.errors import DeviceLost, ItemTooLarge, ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_CUT = "a prompt has more than 75 tokens, and the rest was not read"


Drawn: TypeAlias = tuple[Array, list[str]]
"""A picture `[H, W, 3]` uint8, and notes."""


class DiffusionSession:
    """The networks of a folder, loaded. Used by one thread at a time. Raises ModelError, DeviceLost.

    `together`: whether the UNet computes several pictures at a time; by default it does on a GPU.
    """

    batch_bytes = 1

    def __init__(
        self,
        model: ModelFiles,
        card: ModelSpec,
        max_pixels: int,
        gpu: "CudaGpu | None" = None,
        tf32: bool = False,
        together: bool | None = None,
    ) -> None:
        self.spec = card
        self._together = gpu is not None if together is None else together
        self.facts: Facts = facts_of(model, card.name)
        self._max_pixels = max_pixels
        self._places: dict[Hashable, int | None] = {}  # of sizes of batches, see `engines.diffusion.steps`

        def network(folder: str) -> Network:
            return Network(model, folder, card.name, gpu, tf32)

        encoders = (TEXT, TEXT_2) if self.facts.xl else (TEXT,)
        tokens = [ClipTokens(model, folder, card.name) for folder, _ in zip(TOKENIZERS, encoders, strict=False)]
        self._encoders = Encoders([(each, network(folder)) for each, folder in zip(tokens, encoders, strict=True)])
        self._unet, self._decoder = network(UNET), network(DECODER)
        begins = any(tensor.name == "picture" for tensor in card.inputs)
        self._encoder = network(ENCODER) if begins else None
        for name in ("sample", "timestep", "encoder_hidden_states"):
            if name not in self._unet.inputs:
                raise ModelError(f"model {self._unet.name} has no input {name}", "it is no Stable Diffusion's")

    def manner(self, drawing: Drawing) -> tuple[tuple[int, int], int, float]:
        """Return size, steps and guidance of a picture: those that it names, or what suits the model.

        LCM takes 4 steps; and so does Turbo, which is known by Euler's scheduler with trailing timesteps, without
        guidance. Others take 30 steps and a guidance of 7.5, XL of 5.
        """
        own = own_sampler(self.facts.schedule)
        turbo = own in ("euler", "euler-a") and self.facts.schedule.timestep_spacing == "trailing"
        fast = turbo or own == "lcm"
        guidance = 0.0 if turbo else 5.0 if self.facts.xl else 7.5
        if own == "lcm":
            guidance = 8.5 if self._guided_inside else 1.0
        return (
            drawing.size or (self.facts.side, self.facts.side),
            (4 if fast else 30) if drawing.steps is None else drawing.steps,
            guidance if drawing.guidance is None else drawing.guidance,
        )

    def draw(self, drawing: Drawing, tick: Tick) -> Drawn:
        """Return a picture `[H, W, 3]` uint8, and notes. Raises PipelineError, ItemTooLarge, ModelError, DeviceLost."""
        [made] = self.draw_all([drawing], 1, tick)
        if isinstance(made, RigflowError):
            raise made
        return made

    def draw_all(self, drawings: Sequence[Drawing], batch: int, tick: Tick) -> list[Drawn | RigflowError]:
        """Return each picture, or its error. Raises DeviceLost.

        `batch`: how many pictures the UNet computes at a time, on a GPU. Fewer take as long, and have the same bits;
        with another `batch` they have other ones.
        """
        outcomes: dict[int, Drawn | RigflowError] = {}
        sketches: dict[int, Sketch] = {}
        for number, drawing in enumerate(drawings):
            try:
                sketches[number] = self._begun(drawing, tick)
            except DeviceLost:
                raise
            except RigflowError as error:
                outcomes[number] = error
        numbers = list(sketches)
        steps = Steps(self._unet, batch if self._together else 1, tick, self._places)
        for place, failed in steps.all(list(sketches.values())):
            sketch = sketches.pop(number := numbers[place])
            try:
                outcomes[number] = failed or (self._decoded(sketch.latents, tick), sketch.notes)
            except ModelError as error:
                outcomes[number] = error
        return [outcomes[number] for number in range(len(drawings))]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Raise ModelError: its pictures are made by the operator imagine."""
        raise ModelError(f"model {self.spec.name} draws pictures of words", "run it in a stage `imagine`")

    def warm_up(self) -> None:
        """Do nothing: the first picture costs as much as the others."""

    def close(self) -> None:
        """Free the memory."""
        for network in (self._unet, self._decoder, self._encoder, *self._encoders.networks):
            if network is not None:
                network.close()

    @property
    def _guided_inside(self) -> bool:
        """Whether the UNet takes the guidance as an input, as LCM's does."""
        return "timestep_cond" in self._unet.inputs

    def _latents_of(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape of the latents of a picture. Raises ItemTooLarge, PipelineError."""
        height, width = size
        smaller = self.facts.smaller
        if height * width > self._max_pixels:
            what = f"a picture of {width}x{height} has more pixels than the setting max_pixels, {self._max_pixels}"
            raise ItemTooLarge(what, "take a smaller one")
        if height % smaller or width % smaller:
            raise PipelineError(f"{width}x{height} are no multiples of {smaller}", "correct width and height")
        channels, *fixed = self._unet.inputs["sample"].shape[1:]
        shape = (1, channels if isinstance(channels, int) else 4, height // smaller, width // smaller)
        if any(isinstance(own, int) and own != asked for own, asked in zip(fixed, shape[2:], strict=True)):
            own = "x".join(str(each * smaller) if isinstance(each, int) else "any" for each in fixed[::-1])
            what = f"model {self.spec.name} draws pictures of {own} alone, and {width}x{height} is wanted"
            raise PipelineError(what, "set width and height, or export it for any size")
        return shape

    def _begun(self, drawing: Drawing, tick: Tick) -> Sketch:
        """A picture before its first step."""
        size, steps, guidance = self.manner(drawing)
        shape = self._latents_of(size)
        schedule = self.facts.schedule.changed(prediction_type=drawing.prediction, timestep_spacing=drawing.spacing)
        sampler = sampler_of(schedule, drawing.sampler, steps)
        guided = guidance > 1 and not self._guided_inside
        positive = self._encoders.conditioning(drawing.prompt, drawing.clip_skip, tick)
        conditionings = [positive]
        if guided:
            zeros = not drawing.negative.strip() and self.facts.empty_is_zeros
            conditionings.insert(
                0, positive.zeros() if zeros else self._encoders.conditioning(drawing.negative, drawing.clip_skip, tick)
            )
        latents, begin = self._first_latents(drawing, sampler, shape, tick)
        return Sketch(
            seed=drawing.seed,
            sampler=sampler,
            latents=latents,
            step=begin,
            fixed=self._fixed_inputs(conditionings, size, guidance),
            guidance=guidance if guided else None,
            notes=[_CUT] if any(each.cut for each in conditionings) else [],
        )

    def _first_latents(
        self, drawing: Drawing, sampler: Sampler, shape: tuple[int, int, int, int], tick: Tick
    ) -> tuple[Array, int]:
        """Return the first latents and the step that they are at."""
        noise = normal(drawing.seed, FIRST_NOISE, shape)
        if drawing.picture is None:
            return noise * np.float32(sampler.first_scale), 0
        if self._encoder is None:
            raise PipelineError(f"model {self.spec.name} has no vae_encoder", "take one that has, or words alone")
        values = drawing.picture.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(127.5) - np.float32(1)
        [found] = self._encoder.run(
            {next(iter(self._encoder.inputs)): values}, [next(iter(self._encoder.outputs))], tick
        )
        latents = found[:, : shape[1]] * np.float32(self.facts.scale)  # behind the means there may be variances
        if latents.shape != shape or not np.isfinite(latents).all():
            raise ModelError(f"model {self._encoder.name} did not encode the picture", EXPORT_32)
        steps = len(sampler.timesteps)
        begin = steps - max(1, min(int(steps * drawing.strength), steps))
        return sampler.noisy(latents, noise, begin), begin

    def _fixed_inputs(
        self, conditionings: list[Conditioning], size: tuple[int, int], guidance: float
    ) -> dict[str, Array]:
        """The UNet's inputs that are the same at each step, a row for each prompt."""
        fixed = {"encoder_hidden_states": np.concatenate([each.states for each in conditionings])}
        if "text_embeds" in self._unet.inputs:
            fixed["text_embeds"] = np.concatenate([each.whole for each in conditionings if each.whole is not None])
            fixed["time_ids"] = np.tile(np.array([[*size, 0, 0, *size]], np.float32), (len(conditionings), 1))
        if self._guided_inside:
            width = self._unet.inputs["timestep_cond"].shape[-1]
            fixed["timestep_cond"] = _waves(guidance - 1, width if isinstance(width, int) else 256)
        return fixed

    def _decoded(self, latents: Array, tick: Tick) -> Array:
        feed = {next(iter(self._decoder.inputs)): latents / np.float32(self.facts.scale)}
        [found] = self._decoder.run(feed, [next(iter(self._decoder.outputs))], tick)
        if not np.isfinite(found).all():
            what = f"model {self._decoder.name} gave numbers that are none, so there is no picture"
            raise ModelError(what, EXPORT_32)
        picture = np.clip(found[0] / 2 + np.float32(0.5), 0, 1).transpose(1, 2, 0)
        return np.asarray(np.round(picture * 255), np.uint8)


def _waves(value: float, width: int) -> Array:
    """Sines and cosines of a value, `[1, width]`: how LCM's UNet takes its guidance (2310.04378, appendix)."""
    half = width // 2
    angles = value * 1000.0 * np.exp(np.arange(half) * -(log(10000.0) / max(1, half - 1)))
    found = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)])
    return found[None].astype(np.float32)
