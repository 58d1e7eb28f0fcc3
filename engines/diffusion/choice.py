"""Which sampler draws: by the names that people use, or the one that a model's `scheduler_config.json` names."""

from collections.abc import Mapping

from engines.diffusion.multistep import DpmSolver, UniPc
from engines.diffusion.samplers import Ddim, Euler, EulerAncestral, Lcm, Pndm, Sampler
from engines.diffusion.schedule import ScheduleConfig
from schemas.errors import PipelineError

_KARRAS = "-karras"
SAMPLERS: Mapping[str, type[Sampler]] = {
    "ddim": Ddim,
    "euler": Euler,
    "euler-a": EulerAncestral,
    "dpmpp-2m": DpmSolver,
    "unipc": UniPc,
    "lcm": Lcm,
    "pndm": Pndm,
}
NAMES = (*SAMPLERS, *(f"{name}{_KARRAS}" for name in ("euler", "dpmpp-2m", "unipc")))
_OF_DIFFUSERS: Mapping[str, str] = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler-a",
    "DPMSolverMultistepScheduler": "dpmpp-2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "PNDMScheduler": "pndm",
}


def own_sampler(config: ScheduleConfig) -> str:
    """Return the name of the sampler that a model's own file names; "" if it is not here."""
    return _OF_DIFFUSERS.get(config.class_name, "")


def sampler_of(config: ScheduleConfig, name: str, steps: int) -> Sampler:
    """Return a sampler for one picture; `name` "": the model's own. Raises PipelineError.

    A name chooses whether sigmas are Karras's; without one the file does. Fields that only one of diffusers' classes
    has are taken of a file of that class alone.
    """
    wanted = name or own_sampler(config)
    kind = SAMPLERS.get(wanted.removesuffix(_KARRAS))
    if kind is None or wanted not in NAMES:
        what = f"there is no scheduler {name}" if name else f"the model's scheduler is {config.class_name or 'unnamed'}"
        raise PipelineError(what, f"name one of {', '.join(NAMES)}")
    if name and SAMPLERS.get(own_sampler(config)) is not kind:
        config = _shared(config)
    if name:
        config = config.changed(use_karras_sigmas=wanted.endswith(_KARRAS))
    if config.prediction_type not in kind.predictions:
        raise PipelineError(f"{wanted} cannot be used with a model that predicts {config.prediction_type}", "take ddim")
    lacking = ""
    if kind is DpmSolver and config.algorithm_type not in ("dpmsolver++", "sde-dpmsolver++"):
        lacking = config.algorithm_type
    if kind is UniPc and not config.predict_x0:
        lacking = "unipc without predict_x0"
    if lacking:
        raise PipelineError(f"the model's scheduler is {lacking}, which rigflow does not have", "take ddim")
    most = config.original_inference_steps if kind is Lcm else config.num_train_timesteps
    if not 1 <= steps <= most:
        raise PipelineError(f"{steps} steps are not possible with {wanted}", f"take 1 to {most}")
    made = kind(config, steps)
    if not ((made.timesteps >= 0) & (made.timesteps < config.num_train_timesteps)).all():
        what = f"{steps} steps of {wanted} begin or end outside of the model's {config.num_train_timesteps}"
        raise PipelineError(what, "take fewer steps, or another scheduler")
    return made


def _shared(config: ScheduleConfig) -> ScheduleConfig:
    """The fields that describe the model, and those that all schedulers share; others have their defaults."""
    kept = {
        name: getattr(config, name)
        for name in (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
            "prediction_type",
            "timestep_spacing",
            "steps_offset",
            "clip_sample",
            "clip_sample_range",
            "set_alpha_to_one",
            "final_sigmas_type",
        )
    }
    return ScheduleConfig().model_copy(update=kept)
