"""The networks of a Pocket TTS, and the state in which a voice leaves its language model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

from engines.inference.onnxruntime import load
from engines.inference.trial import HINT, limit_memory
from engines.inference.weights import parsed_graph
from engines.models.pocket_folder import AGAIN, PARTS, PocketFiles
from engines.models.vocoder import inputs_of
from engines.own_process import in_own_process
from engines.part import Array
from schemas.errors import ModelError

_TAKES = {"main": 2, "flow": 4, "encoder": 1, "decoder": 1, "text": 1}  # inputs without states
_GIVES = {"main": 2, "flow": 1, "encoder": 1, "decoder": 1, "text": 1}


class Networks(NamedTuple):
    """The networks by part; `latent`: numbers of a frame, `width`: of a condition."""

    models: Mapping[str, Any]
    unknown: int
    latent: int
    width: int


def networks_of(files: PocketFiles) -> Networks:
    """Read the networks. Raises ModelError."""
    models = {}
    for part in PARTS:
        model = models[part] = parsed_graph(files.parts[part].read_bytes(), str(files.parts[part]))
        takes, gives = len(inputs_of(model)) - _TAKES[part], len(model.graph.output) - _GIVES[part]
        stated = part in ("main", "decoder")
        if model.functions or takes != gives or takes < 0 or (takes > 0) != stated:
            what = f"{files.parts[part]} takes {takes + _TAKES[part]} inputs and gives {gives + _GIVES[part]} outputs"
            raise ModelError(f"{what}, as none of a Pocket TTS does", AGAIN)
    latent, width = (_last_size(each) for each in inputs_of(models["main"])[:2])
    if not latent or not width:
        raise ModelError(f"{files.parts['main']} does not say how long its inputs are", AGAIN)
    return Networks(models, files.unknown, latent, width)


def _last_size(tensor: Any) -> int:
    dim = tensor.type.tensor_type.shape.dim
    return int(dim[-1].dim_value) if dim else 0


def first_state(tensor: Any, unknown: int) -> Array:
    """Return the state that a network begins with: zeros."""
    kind = helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
    shape = [each.dim_value if each.HasField("dim_value") else unknown for each in tensor.type.tensor_type.shape.dim]
    return np.zeros(shape, kind)


def voice_of(files: PocketFiles, networks: Networks, sound: Array, bos: Array | None) -> list[Array]:
    """Return the state of `main` after it has read the voice, in a process of its own. Raises ModelError."""
    main = networks.models["main"]
    states = {each.name: first_state(each, networks.unknown) for each in inputs_of(main)[2:]}
    graphs = files.parts["encoder"].read_bytes(), files.parts["main"].read_bytes()
    names = [each.name for each in inputs_of(main)[:2]]
    sizes = networks.latent, networks.width
    where = str(files.folder)
    return in_own_process(where, "reads a voice by", HINT, _read_voice, where, graphs, names, states, sizes, sound, bos)


def _read_voice(
    where: str,
    graphs: tuple[bytes, bytes],
    names: Sequence[str],
    states: Mapping[str, Array],
    sizes: tuple[int, int],
    sound: Array,
    bos: Array | None,
) -> list[Array]:
    limit_memory()
    try:
        encoder = load(graphs[0], where, once=True)
        [voice] = encoder.run(None, {encoder.get_inputs()[0].name: sound.reshape(1, 1, -1)})[:1]
        voice = np.asarray(voice, np.float32).reshape(1, -1, sizes[1])
        if bos is not None:
            voice = np.concatenate([bos, voice], axis=1)
        main = load(graphs[1], where, once=True)
        fed = dict(zip(names, (np.zeros((1, 0, sizes[0]), np.float32), voice), strict=True))
        return [np.asarray(each) for each in main.run(None, {**fed, **states})[2:]]
    except ModelError:
        raise
    except Exception as error:  # the runtime's own classes share no base below Exception
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where} does not read the sound of a voice: {reason}", AGAIN) from error
