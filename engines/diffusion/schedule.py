"""How much noise there is at each step: `scheduler_config.json` as diffusers writes it.

Names and defaults are diffusers'; where two of its classes have another default of one field, it is the sampler's.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from engines.part import Array
from schemas.errors import ModelError, format_field_error

CONFIG = "scheduler_config.json"
Prediction: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]
MOST_STEPS = 1000
_KARRAS_RHO = 7.0
_REFUSED = (
    "thresholding",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)


class ScheduleConfig(BaseModel):
    """The fields that Stable Diffusion's schedulers have; others are ignored. None: the sampler's default."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())
    class_name: str = Field(default="", alias="_class_name")
    num_train_timesteps: int = Field(default=1000, ge=1, le=MOST_STEPS)
    beta_start: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.00085
    beta_end: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.012
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    trained_betas: tuple[Annotated[FiniteFloat, Field(gt=0, lt=1)], ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Prediction = "epsilon"
    timestep_spacing: Spacing | None = None
    steps_offset: int = Field(default=0, ge=0, le=100)
    use_karras_sigmas: bool = False
    sigma_min: Annotated[FiniteFloat, Field(gt=0)] | None = None
    sigma_max: Annotated[FiniteFloat, Field(gt=0)] | None = None
    interpolation_type: Literal["linear", "log_linear"] = "linear"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    clip_sample: bool | None = None
    clip_sample_range: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    set_alpha_to_one: bool | None = None
    skip_prk_steps: bool = True
    solver_order: int = Field(default=2, ge=1, le=3)
    solver_type: str = ""
    algorithm_type: str = "dpmsolver++"
    lower_order_final: bool = True
    euler_at_final: bool = False
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    original_inference_steps: int = Field(default=50, ge=1, le=MOST_STEPS)
    timestep_scaling: Annotated[FiniteFloat, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _one_beta_a_timestep(self) -> Self:
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(f"it has {len(self.trained_betas)} trained_betas, not {self.num_train_timesteps}")
        return self

    def changed(self, **fields: Any) -> "ScheduleConfig":
        """Return the same with these fields, those that are None left as they are."""
        return self.model_copy(update={name: value for name, value in fields.items() if value is not None})


def read_config(data: bytes, model: str) -> ScheduleConfig:
    """Return a schedule. Raises ModelError for one that rigflow does not have."""
    try:
        config = ScheduleConfig.model_validate_json(data)
        raw = _Anything.model_validate_json(data).model_extra or {}
    except ValidationError as error:
        what = f"model {model}: {CONFIG}: {format_field_error(error.errors()[0])}"
        raise ModelError(what, "download it again, or correct the file") from error
    for name in _REFUSED:
        if raw.get(name):
            raise ModelError(f"model {model}: {CONFIG} has {name}, which rigflow does not have", "set it to false")
    return config


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class Levels:
    """`alphas [T]` float64: how much of the picture's power is left at each timestep of the training, falling."""

    alphas: Array

    @property
    def sigmas(self) -> Array:
        """The noise beside a picture of full size at each timestep, rising; without any picture it is 4096."""
        alphas = np.where(self.alphas > 0, self.alphas, 2.0**-24)
        return np.asarray(np.sqrt((1 - alphas) / alphas))

    def timestep_of(self, sigma: Array) -> Array:
        """Return the timesteps, with fractions, at which the noise is so large."""
        logs = np.log(self.sigmas)
        return np.interp(np.log(np.maximum(sigma, 1e-10)), logs, np.arange(len(logs), dtype=np.float64))


def levels_of(config: ScheduleConfig) -> Levels:
    """Return the noise of the training, rounded as PyTorch rounds it."""
    betas = _betas(config).astype(np.float32)
    if config.rescale_betas_zero_snr:
        betas = _without_signal_at_the_end(betas)
    alphas = np.cumprod(np.float32(1) - betas, dtype=np.float64).astype(np.float32)
    return Levels(alphas.astype(np.float64))


def _betas(config: ScheduleConfig) -> Array:
    count = config.num_train_timesteps
    if config.trained_betas is not None:
        return np.array(config.trained_betas)
    if config.beta_schedule == "linear":
        return np.linspace(config.beta_start, config.beta_end, count)
    if config.beta_schedule == "scaled_linear":
        roots = np.linspace(config.beta_start**0.5, config.beta_end**0.5, count).astype(np.float32)
        return np.asarray(roots**2)
    times = np.arange(count + 1) / count
    bars = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - bars[1:] / bars[:-1], 0.999))


def _without_signal_at_the_end(betas: Array) -> Array:
    """Algorithm 1 of Lin and others, "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2305.08891)."""
    roots = np.sqrt(np.cumprod(1 - betas.astype(np.float64)))
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    bars = roots**2
    alphas = np.concatenate([bars[:1], bars[1:] / bars[:-1]])
    return np.asarray(1 - alphas, np.float32)


def timesteps_of(config: ScheduleConfig, spacing: Spacing, steps: int, one_more: bool = False) -> Array:
    """Return `[steps]` float64, falling. `one_more`: the last of so many and one is left out, as multistep solvers do.

    Not rounded for `linspace`.
    """
    count = config.num_train_timesteps
    if spacing == "trailing":
        return np.round(np.arange(count, 0, -count / steps)) - 1
    more = steps + one_more
    if spacing == "linspace":
        found = np.linspace(0, count - 1, more)
    else:
        found = np.arange(more, dtype=np.float64) * (count // more)
    found = found[::-1][:steps]
    return found + (config.steps_offset if spacing == "leading" else 0)


def karras(config: ScheduleConfig, sigmas: Array, steps: int) -> Array:
    """Return `[steps]` falling sigmas between the ends of `sigmas`, which fall: Karras and others, 2206.00364."""
    least = sigmas[-1] if config.sigma_min is None else config.sigma_min
    most = sigmas[0] if config.sigma_max is None else config.sigma_max
    ramp = np.linspace(0, 1, steps)
    low, high = least ** (1 / _KARRAS_RHO), most ** (1 / _KARRAS_RHO)
    return np.asarray((high + ramp * (low - high)) ** _KARRAS_RHO)
