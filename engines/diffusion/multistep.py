"""Samplers that compute a step of the pictures that earlier steps saw: DPM-Solver++ and UniPC.

Latents are `signal * picture + noise * normal`, with `signal ** 2 + noise ** 2 = 1`; steps are even in
`log(signal / noise)`.
"""

from collections.abc import Iterable, Sequence
from math import expm1, inf, log, sqrt
from typing import ClassVar

import numpy as np

from engines.diffusion.samplers import Noise, Sampler, weighted
from engines.diffusion.schedule import karras, levels_of, timesteps_of
from engines.part import Array


class Multistep(Sampler):
    """Base of both: sigmas of the steps, and the last pictures."""

    _karras_ends_at_its_last: ClassVar[bool] = False

    def _set(self) -> None:
        config, levels = self._config, levels_of(self._config)
        spacing = config.timestep_spacing or self.spacing
        self.timesteps = np.round(timesteps_of(config, spacing, self._steps, one_more=True))
        sigmas = np.interp(self.timesteps, np.arange(len(levels.sigmas)), levels.sigmas)
        last = levels.sigmas[0]
        if config.use_karras_sigmas:
            sigmas = karras(config, levels.sigmas[::-1], self._steps)
            self.timesteps = np.round(levels.timestep_of(sigmas))
            last = sigmas[-1] if self._karras_ends_at_its_last else last
        self._sigmas = np.append(sigmas, last if config.final_sigmas_type == "sigma_min" else 0.0).astype(np.float32)
        self._pictures: list[Array] = []

    def noisy(self, latents: Array, noise: Array, step: int) -> Array:
        """Return a picture with the noise that there is at the beginning of a step."""
        return weighted(self._signal(step), latents, self._noise(step), noise)

    def _signal(self, step: int) -> float:
        return float(1 / sqrt(float(self._sigmas[step]) ** 2 + 1))

    def _noise(self, step: int) -> float:
        return float(self._sigmas[step]) * self._signal(step)

    def _log_ratio(self, step: int) -> float:
        sigma = float(self._sigmas[step])
        return -log(sigma) if sigma else inf

    def _seen_picture(self, latents: Array, output: Array, step: int) -> Array:
        return self._picture(latents, output, self._signal(step), self._noise(step))


class DpmSolver(Multistep):
    """DPM-Solver++ of two steps ("DPM++ 2M"), Lu and others, 2211.01095; with noise in its steps as `sde`."""

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        config = self._config
        self._pictures = [*self._pictures[-1:], self._seen_picture(latents, output, step)]
        few = config.lower_order_final and len(self.timesteps) < 15
        last = step == len(self.timesteps) - 1
        first_order = last and (config.euler_at_final or few or config.final_sigmas_type == "zero")
        h = self._log_ratio(step + 1) - self._log_ratio(step)
        picture, signal, left = self._pictures[-1], self._signal(step + 1), self._noise(step + 1)
        stochastic = config.algorithm_type == "sde-dpmsolver++"
        gone = -expm1(-2 * h) if stochastic else -expm1(-h)  # the share of the latents that the picture replaces
        kept = left / self._noise(step) * (np.exp(-h) if stochastic else 1.0)
        found = weighted(kept, latents, signal * gone, picture)
        if not (config.solver_order == 1 or len(self._pictures) < 2 or first_order):
            before = self._log_ratio(step) - self._log_ratio(step - 1)
            slope = np.float32(h / before) * (picture - self._pictures[-2])
            found = found + np.float32(signal * self._curve(gone, h, stochastic)) * slope
        return found + np.float32(left * sqrt(-expm1(-2 * h))) * noise() if stochastic and left else found

    def _curve(self, gone: float, h: float, stochastic: bool) -> float:
        if self._config.solver_type != "heun":
            return 0.5 * gone
        return 1 - gone / (2 * h) if stochastic else 1 - gone / h


class UniPc(Multistep):
    """UniPC: each output also corrects the step that led to it: Zhao and others, 2302.04867."""

    _karras_ends_at_its_last = True

    def _set(self) -> None:
        super()._set()
        self._before: Array | None = None
        self._order = 0

    def next(self, latents: Array, output: Array, step: int, noise: Noise) -> Array:
        """Return the latents after a step."""
        config = self._config
        picture = self._seen_picture(latents, output, step)
        if self._before is not None and step - 1 not in config.disable_corrector:
            latents = self._corrected(self._before, picture, step)
        self._pictures = [*self._pictures, picture][-config.solver_order :]
        most = min(config.solver_order, len(self.timesteps) - step) if config.lower_order_final else config.solver_order
        self._order = min(most, len(self._pictures)) if self._sigmas[step + 1] else 1
        self._before = latents
        return self._predicted(latents, step)

    def _predicted(self, latents: Array, step: int) -> Array:
        base = self._base(latents, step, step + 1)
        if self._order == 1:
            return base
        differences, matrix, right, b_h = self._system(step, step + 1)
        found = [0.5] if self._order == 2 else np.linalg.solve(matrix[:-1, :-1], right[:-1])
        return base - np.float32(self._signal(step + 1) * b_h) * _together(found, differences)

    def _corrected(self, before: Array, picture: Array, step: int) -> Array:
        differences, matrix, right, b_h = self._system(step - 1, step)
        found = [0.5] if self._order == 1 else np.linalg.solve(matrix, right)
        rest = _together(found, [*differences, picture - self._pictures[-1]])
        return self._base(before, step - 1, step) - np.float32(self._signal(step) * b_h) * rest

    def _base(self, latents: Array, begin: int, end: int) -> Array:
        """The step of the first order, from the beginning of step `begin` to that of `end`."""
        kept = self._noise(end) / self._noise(begin)
        gone = expm1(self._log_ratio(begin) - self._log_ratio(end))
        return weighted(kept, latents, -self._signal(end) * gone, self._pictures[-1])

    def _system(self, begin: int, end: int) -> tuple[list[Array], Array, Array, float]:
        """The differences of earlier pictures from the newest, and the linear system of their weights.

        The system has a row more, of the picture at `end`; at last comes the scale of all weights.
        """
        h = self._log_ratio(end) - self._log_ratio(begin)
        rates = [(self._log_ratio(begin - each) - self._log_ratio(begin)) / h for each in range(1, self._order)]
        newest = self._pictures[-1]
        differences = [(self._pictures[-1 - each] - newest) / np.float32(rate) for each, rate in enumerate(rates, 1)]
        scale = -h if self._config.solver_type == "bh1" else expm1(-h)
        phi, factorial = expm1(-h) / -h - 1, 1
        rows: list[list[float]] = []
        right: list[float] = []
        for power in range(self._order):
            rows.append([rate**power for rate in (*rates, 1.0)])
            right.append(phi * factorial / scale)
            factorial *= power + 2
            phi = phi / -h - 1 / factorial
        return differences, np.array(rows), np.array(right), scale


def _together(weights: Iterable[float], arrays: Sequence[Array]) -> Array:
    found = np.zeros_like(arrays[0])
    for weight, array in zip(weights, arrays, strict=True):
        found = found + np.float32(weight) * array
    return found
