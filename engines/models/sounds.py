"""Finds the inputs of models that are sound, and what windows of samples they take."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from engines.media.audio_decode import AudioReader
from engines.media.audio_sound import as_floats
from engines.media.audio_split import AudioCut, split_audio
from engines.part import Array
from engines.registry import load
from engines.speech.fbank import BANDS
from schemas.errors import ModelError, PipelineError, UsageError, format_field_error
from schemas.model import BandsSpec, InputCard, ModelSpec, SoundSpec, TensorSpec, describe
from schemas.pipeline import PipelineSpec

SOUND_FIELDS = frozenset({"rate", "samples", "context"})
_DTYPES = ("float16", "float32", "float64", "int16")
_MOST_SECONDS, _PIECE_S = 600, 60.0


def sound_of(model: str, card: InputCard, tensor: TensorSpec) -> SoundSpec | None:
    """Return how an input is made of sound, None if its card does not say that it is; `tensor` as it was exported.

    Raises ModelError for a card that contradicts itself or the graph; `model` is its name, for errors.
    """
    written = card.model_fields_set & SOUND_FIELDS
    if not written:
        return None
    where, what = f"model `{model}`, input `{card.name}`", describe(tensor.dtype, tensor.shape)
    if card.rate is None or card.samples is None:
        missing = "rate" if card.rate is None else "samples"
        raise ModelError(f"{where}, {min(written)}: it is sound, and has no {missing}", f"write its {missing}, too")
    try:
        spec = SoundSpec(rate=card.rate, samples=card.samples, context=card.context)
    except ValidationError as error:
        raise ModelError(f"{where}, {format_field_error(error.errors()[0])}", "correct it") from error
    if tensor.dtype not in _DTYPES or not tensor.shape or any(size not in (1,) for size in tensor.shape[1:-1]):
        raise ModelError(
            f"{where}, samples: {what} takes no sound", "sound is [N, samples] or [N, 1, samples] of floats"
        )
    last = tensor.shape[-1]
    if isinstance(last, int) and last != spec.width:
        raise ModelError(
            f"{where}, samples: {spec.samples} with {spec.context} of context, and its graph takes {last}",
            "write what the graph takes: samples + context",
        )
    return spec


def bands_checked(model: str, card: InputCard, tensor: TensorSpec) -> BandsSpec:
    """Return how an input is made of bands of sound. Raises ModelError for a graph that takes none."""
    assert card.bands is not None, "the caller looks"
    if tensor.dtype != "float32" or len(tensor.shape) != 3 or not isinstance(tensor.shape[2], int):
        what = f"model `{model}`, input `{card.name}`, bands: {describe(tensor.dtype, tensor.shape)} takes none"
        raise ModelError(what, "bands are float32 [N, T, bands] with a number of bands")
    if card.bands.kind == "fbank" and tensor.shape[2] != BANDS:
        raise ModelError(f"model `{model}`, input `{card.name}`, bands: {tensor.shape[2]}", f"fbank has {BANDS}")
    return card.bands


def with_sound(spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> PipelineSpec:
    """Return the pipeline whose decode stage says what its stages want: rate, samples, context and `head_s`.

    `models` has the card of each model by its name in a stage. Raises PipelineError if they want different windows.
    """
    name = spec.decode.name
    known = {each for kind in spec.media for each in load("media", kind).options_class.model_fields}
    if not known & {"samples", "head_s"}:
        return spec
    operators = [
        load("operators", stage.kind)(stage, models[stage.model])
        for stage in spec.operators
        if stage.model is not None and stage.model in models
    ]
    head_s = max((operator.head_s for operator in operators), default=0.0)
    if head_s and "head_s" in known and "head_s" not in spec.decode.options:
        spec = spec.with_fields({f"{name}.head_s": head_s})
    takes = [tensor.sound for each in operators for tensor in each.sounds({}).values() if tensor.sound]
    if not takes or "samples" not in known:
        return spec
    windows = {(sound.rate, sound.samples) for sound in takes}
    if len(windows) > 1:
        listed = " and ".join(f"{samples} samples at {rate} Hz" for rate, samples in sorted(windows))
        raise PipelineError(f"pipeline {spec.name}: its models take {listed}", "make a pipeline for each")
    [(rate, samples)] = windows
    given = spec.decode.options.get("rate", rate)
    if given != rate:
        what = f"pipeline {spec.name}: stage `{name}` says rate = {given}, and its model takes {rate} Hz"
        raise PipelineError(what, "leave out rate")
    context = max(sound.context for sound in takes)
    return spec.with_fields({f"{name}.rate": rate, f"{name}.samples": samples, f"{name}.context": context})


def read_sound(path: Path, spec: SoundSpec) -> Array:
    """Return the sound of a file `[S]` float32, of one channel at the rate of `spec`, as pipelines decode it.

    Raises UsageError, MediaError.
    """
    found: list[Array] = []
    for piece in split_audio(path, AudioCut(spec.rate, _PIECE_S)):
        origin, end = piece.media.origin, piece.media.end or 0
        if end - origin > _MOST_SECONDS * spec.rate:
            raise UsageError(f"{path} has more than {_MOST_SECONDS} s of sound", "give a shorter file")
        reader = AudioReader(piece.media, piece.facts, piece.buffers, 1, str(path))
        found.append(
            as_floats(reader.read(piece.start - origin, (end if piece.end is None else piece.end) - origin)[0])
        )
    return np.concatenate(found)


def beginning(path: Path, rate: int, seconds: int) -> Array:
    """Return the first seconds of the sound of a file `[S]` float32, as `read_sound` does."""
    piece = next(split_audio(path, AudioCut(rate, seconds)))
    reader = AudioReader(piece.media, piece.facts, piece.buffers, 1, str(path))
    return as_floats(reader.read(0, min(reader.end, seconds * rate))[0])


def windows_of(sound: Array, spec: SoundSpec) -> Array:
    """Return `[W, context + samples]`: the windows of a sound, each with the end of the one before in front.

    Silence stands in front of the first, and behind a last one that the sound does not fill.
    """
    count = -(-len(sound) // spec.samples)
    padded = np.zeros(spec.context + count * spec.samples, np.float32)
    padded[spec.context : spec.context + len(sound)] = sound
    starts = np.arange(count)[:, None] * spec.samples
    return np.asarray(padded[starts + np.arange(spec.width)])
