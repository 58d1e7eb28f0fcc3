"""Samplers: how a picture follows from noise, step by step, by what a network says of it.

Each is an object for one picture, because some remember earlier steps. Formulas and defaults are those of diffusers'
schedulers of the same names (Apache-2.0), whose papers the classes name. Pictures are latents `[..., C, H, W]` float32.
"""

from collections.abc import Callable
from typing import ClassVar, TypeAlias

import numpy as np

from engines.diffusion.schedule import ScheduleConfig, Spacing, karras, levels_of, timesteps_of
from engines.part import Array

Noise: TypeAlias = Callable[[], Array]
"""Makes the normal numbers of a step, of the shape of the latents; called at most once a step."""


class Sampler:
    """Base: latents are `sqrt(a) * picture + sqrt(1 - a) * noise` at each timestep, and go to the network as they are.

    `timesteps [steps]` float64, the input of the network at each step. A picture begins at `step` 0, or later where it
    begins with another picture; then each step follows the one before.
    """

    spacing: ClassVar[Spacing] = "linspace"
    clips: ClassVar[bool] = False
    ends_clean: ClassVar[bool] = True
    predictions: ClassVar[tuple[str, ...]] = ("epsilon", "v_prediction", "sample")
    timesteps: Array

    def __init__(self, config: ScheduleConfig, steps: int) -> None:
        self._config = config
        self._steps = steps
        self._alphas = levels_of(config).alphas
        self._set()

    @property
    def first_scale(self) -> float:
        """What the first noise is multiplied by."""
        return 1.0

    def seen(self, latents: Array, step: int) -> Array:
        """Return the latents as the network takes them at a step."""
        return latents

    def noisy(self, latents: Array, noise: Array, step: int) -> Array:
        """Return a picture with the noise that there is at the beginning of a step."""
        alpha = self._alphas[int(self.timesteps[step])]
        return weighted(alpha**0.5, latents, (1 - alpha) ** 0.5, noise)

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step. `output`: of the network, for `seen`."""
        raise NotImplementedError

    def _set(self) -> None:
        spacing = self._config.timestep_spacing or self.spacing
        self.timesteps = np.round(timesteps_of(self._config, spacing, self._steps))

    @property
    def _last_alpha(self) -> float:
        """What comes before timestep 0: a clean picture, or what there is at timestep 0."""
        clean = self.ends_clean if self._config.set_alpha_to_one is None else self._config.set_alpha_to_one
        return 1.0 if clean else float(self._alphas[0])

    def _alpha(self, timestep: int) -> float:
        return float(self._alphas[timestep]) if timestep >= 0 else self._last_alpha

    def _picture(self, latents: Array, output: Array, signal: float, noise: float) -> Array:
        """Return the clean picture that an output means, for latents of so much signal and noise."""
        kind = self._config.prediction_type
        if kind == "sample":
            return output
        if kind == "v_prediction":
            return weighted(signal, latents, -noise, output)
        return weighted(1 / signal if signal else np.inf, latents, -noise / signal if signal else -np.inf, output)

    def _clipped(self, picture: Array) -> Array:
        clips = self.clips if self._config.clip_sample is None else self._config.clip_sample
        most = self._config.clip_sample_range
        return np.clip(picture, -most, most) if clips else picture


class Ddim(Sampler):
    """DDIM without noise in its steps: Song and others, 2010.02502."""

    spacing = "leading"
    clips = True

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        timestep = int(self.timesteps[step])
        alpha = self._alpha(timestep)
        after = self._alpha(timestep - self._config.num_train_timesteps // self._steps)
        picture = self._picture(latents, output, alpha**0.5, (1 - alpha) ** 0.5)
        kind = self._config.prediction_type
        if kind == "epsilon":
            direction = output
        elif kind == "v_prediction":
            direction = weighted(alpha**0.5, output, (1 - alpha) ** 0.5, latents)
        else:
            direction = weighted((1 - alpha) ** -0.5, latents, -((alpha / (1 - alpha)) ** 0.5), picture)
        return weighted(after**0.5, self._clipped(picture), (1 - after) ** 0.5, direction)


class Pndm(Sampler):
    """PLMS: four earlier outputs together, Liu and others, 2202.09778. The second timestep is computed twice.

    Where a picture begins with another, its first step is a plain one.
    """

    spacing = "leading"
    ends_clean = False
    predictions = ("epsilon", "v_prediction")

    def _set(self) -> None:
        super()._set()
        self.timesteps = np.concatenate([self.timesteps[:2], self.timesteps[1:]])
        self._outputs: list[Array] = []
        self._begun: Array | None = None

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        apart = self._config.num_train_timesteps // self._steps
        timestep = int(self.timesteps[step])
        if self._begun is not None:
            latents, self._begun = self._begun, None
            return self._moved(latents, (output + self._outputs[-1]) / np.float32(2), timestep + apart, timestep)
        if not self._outputs and step == 1:
            return latents  # the same timestep comes again
        if step == 0:
            self._begun = latents
        self._outputs = [*self._outputs[-3:], output]
        return self._moved(latents, self._together(), timestep, timestep - apart)

    def _together(self) -> Array:
        weights = {1: (1.0,), 2: (-1 / 2, 3 / 2), 3: (5 / 12, -16 / 12, 23 / 12)}.get(
            len(self._outputs), (-9 / 24, 37 / 24, -59 / 24, 55 / 24)
        )
        found = np.zeros_like(self._outputs[-1])
        for weight, output in zip(weights, self._outputs, strict=True):
            found = found + np.float32(weight) * output
        return found

    def _moved(self, latents: Array, output: Array, timestep: int, before: int) -> Array:
        alpha, after = self._alpha(timestep), self._alpha(before)
        if self._config.prediction_type == "v_prediction":
            output = weighted(alpha**0.5, output, (1 - alpha) ** 0.5, latents)
        below = alpha * (1 - after) ** 0.5 + (alpha * (1 - alpha) * after) ** 0.5
        return weighted((after / alpha) ** 0.5, latents, -(after - alpha) / below, output)


class Euler(Sampler):
    """Euler's method on latents `picture + sigma * noise`: Karras and others, 2206.00364."""

    def _set(self) -> None:
        config, levels = self._config, levels_of(self._config)
        spacing = config.timestep_spacing or self.spacing
        self.timesteps = timesteps_of(config, spacing, self._steps)
        sigmas = np.interp(self.timesteps, np.arange(len(levels.sigmas)), levels.sigmas)
        self._spaced_evenly = spacing == "leading"
        sigmas = self._spread(levels.sigmas, sigmas)
        if config.use_karras_sigmas and self._chooses_sigmas:
            sigmas = karras(config, sigmas, self._steps)
            self.timesteps = levels.timestep_of(sigmas)
        last = levels.sigmas[0] if config.final_sigmas_type == "sigma_min" and self._chooses_sigmas else 0.0
        self._sigmas = np.append(sigmas, last)

    _chooses_sigmas: ClassVar[bool] = True

    def _spread(self, all_sigmas: Array, sigmas: Array) -> Array:
        if self._config.interpolation_type == "linear" or not self._chooses_sigmas:
            return sigmas
        return np.exp(np.linspace(np.log(all_sigmas[-1]), np.log(all_sigmas[0]), self._steps + 1))

    @property
    def first_scale(self) -> float:
        """The largest noise; with a picture of size 1 beside it where the first timestep is not the last one."""
        most = float(self._sigmas.max())
        return (most**2 + 1) ** 0.5 if self._spaced_evenly else most

    def seen(self, latents: Array, step: int) -> Array:
        """Return latents of size 1."""
        return latents / np.float32((self._sigmas[step] ** 2 + 1) ** 0.5)

    def noisy(self, latents: Array, noise: Array, step: int) -> Array:
        """Return a picture with the noise of a step added."""
        return latents + np.float32(self._sigmas[step]) * noise

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        sigma = float(self._sigmas[step])
        return self._moved(latents, output, sigma, float(self._sigmas[step + 1]))

    def _moved(self, latents: Array, output: Array, sigma: float, after: float) -> Array:
        """Go along the direction from the picture to the latents, to noise of another size."""
        power = sigma**2 + 1
        kind = self._config.prediction_type
        if kind == "epsilon":
            direction = output
        elif kind == "v_prediction":
            direction = weighted(sigma / power, latents, power**-0.5, output)
        else:
            direction = (latents - output) / np.float32(sigma)
        return latents + np.float32(after - sigma) * direction


class EulerAncestral(Euler):
    """Euler's method that takes more noise away than it must, and adds new noise at each step."""

    predictions = ("epsilon", "v_prediction")
    _chooses_sigmas = False

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        sigma, after = float(self._sigmas[step]), float(self._sigmas[step + 1])
        up = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        moved = self._moved(latents, output, sigma, (after**2 - up**2) ** 0.5)
        return moved + np.float32(up) * noise() if up else moved


class Lcm(Sampler):
    """Latent consistency: each step guesses the picture, and adds noise again: Luo and others, 2310.04378."""

    _SIGMA = 0.5

    def _set(self) -> None:
        config = self._config
        between = config.num_train_timesteps // config.original_inference_steps
        trained = (np.arange(1, config.original_inference_steps + 1) * between - 1)[::-1]
        places = np.floor(np.linspace(0, len(trained), self._steps, endpoint=False)).astype(np.int64)
        self.timesteps = trained[places].astype(np.float64)

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        timestep, last = int(self.timesteps[step]), step == len(self.timesteps) - 1
        alpha = self._alpha(timestep)
        scaled = timestep * self._config.timestep_scaling
        power = scaled**2 + self._SIGMA**2
        picture = self._clipped(self._picture(latents, output, alpha**0.5, (1 - alpha) ** 0.5))
        found = weighted(scaled / power**0.5, picture, self._SIGMA**2 / power, latents)
        if last:
            return found
        after = self._alpha(int(self.timesteps[step + 1]))
        return weighted(after**0.5, found, (1 - after) ** 0.5, noise())


def weighted(first: float, a: Array, second: float, b: Array) -> Array:
    """Return `first * a + second * b` in float32."""
    return np.float32(first) * a + np.float32(second) * b
