"""Makes the folder of ONNX files of a Stable Diffusion that is .safetensors: a folder of diffusers, or a single file.

The networks are exported in a process of their own, which needs the extra `convert`. A single file has no tokenizer:
that of CLIP is taken from beside it, or from the package open_clip_torch.
"""

import gzip
import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.diffusion.folder import DECODER, GRAPH, MAIN, TEXT, TEXT_2, TOKENIZER_FILES, TOKENIZERS, UNET, parsed
from engines.diffusion.schedule import CONFIG
from engines.extras import install_extra
from engines.models import stable_torch
from engines.models.files import NewFiles
from engines.models.safetensors import Safetensors
from engines.models.stable_shapes import VAE, SingleFile, is_whole, single_file
from engines.own_process import in_own_process
from schemas.errors import ModelError

_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
)
_PICKLES = ("*.bin", "*.ckpt", "*.pt")
_CONVERTING = "give more memory, or export it elsewhere: `optimum-cli export onnx --model FOLDER NEW_FOLDER`"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 49152 - 256 - 2  # of CLIP
_SCHEDULE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}
_SCHEDULE_XL = {**_SCHEDULE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}


def exported(given: Path, new: NewFiles) -> Path | None:
    """Return a new folder of ONNX files for a folder or file of .safetensors; None if it is something else.

    The folder is removed with what `new` has of it. Raises ModelError, StoreError.
    """
    if given.is_dir():
        return _of_folder(given, new) if _is_folder(given) else None
    if given.suffix.lower() != ".safetensors":
        return None
    file = Safetensors(given)
    return _of_file(given, file, new) if is_whole(file.names) else None


def _is_folder(folder: Path) -> bool:
    """Whether a folder is one of diffusers whose UNet is no ONNX file."""
    there = (folder / MAIN).is_file() and (folder / UNET).is_dir() and (folder / TEXT).is_dir()
    graphs = any((folder / each / GRAPH).is_file() for each in (TEXT, UNET, DECODER))
    weights = any(any((folder / UNET).glob(each)) for each in ("*.safetensors", *_PICKLES)) if there else False
    return there and not graphs and weights


def _of_folder(folder: Path, new: NewFiles) -> Path:
    index = parsed(_read(folder / MAIN), f"{folder}: {MAIN}")
    kind = str(index.get("_class_name", ""))[:80]
    if kind not in _PIPELINES:
        what = f"{folder} is a {kind or 'pipeline'}, which rigflow does not run"
        raise ModelError(what, "it runs Stable Diffusion 1, 2 and XL, Turbo and LCM, of words")
    names = [each for each in (TEXT, TEXT_2, UNET, VAE) if (folder / each).is_dir()]
    networks = {name: _in_half(folder / name) for name in names}
    if VAE not in networks:
        raise ModelError(f"{folder} has no folder {VAE}", "download the whole folder again")
    unet = parsed(_read(folder / UNET / "config.json"), f"{folder}: {UNET}/config.json")
    if unet.get("in_channels", 4) != 4:
        what = f"the UNet of {folder} takes {unet['in_channels']} channels: it inpaints, or begins with another picture"
        raise ModelError(what, "take a model of words alone")
    target = new.scratch("convert")
    for name in (MAIN, f"scheduler/{CONFIG}", *(f"{each}/{file}" for each in TOKENIZERS for file in TOKENIZER_FILES)):
        if (folder / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    in_own_process(str(folder), "converts", _CONVERTING, stable_torch.export_folder, folder, networks, target)
    return target


def _in_half(folder: Path) -> bool:
    """Whether the weights of a network are in float16. Raises ModelError for pickles, or where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if any(any(folder.glob(each)) for each in _PICKLES):
            raise ModelError(f"{folder} has pickles, which may run a program", "get it as .safetensors")
        raise ModelError(f"{folder} has no weights", "download the whole folder again")
    return all(Safetensors(each).is_half for each in files)


def _of_file(path: Path, file: Safetensors, new: NewFiles) -> Path:
    single = single_file({name: file.shape(name) for name in file.names}, str(path))
    target = new.scratch("convert")
    xl = single.version == "xl"
    pads = {"tokenizer": _END if single.version != "2" else "!", **({"tokenizer_2": "!"} if xl else {})}
    for name, pad in pads.items():
        _write_tokenizer(path, target / name, pad)
    (target / "scheduler").mkdir()
    (target / "scheduler" / CONFIG).write_text(json.dumps(_schedule(single)))
    kind = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    (target / MAIN).write_text(json.dumps({"_class_name": kind}))
    in_own_process(str(path), "converts", _CONVERTING, stable_torch.export_file, path, single, file.is_half, target)
    return target


def _schedule(single: SingleFile) -> dict[str, Any]:
    made = dict(_SCHEDULE_XL if single.version == "xl" else _SCHEDULE)
    made |= {"prediction_type": "v_prediction"} if single.v_prediction else {}
    if single.zero_snr:
        made |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return made


def _write_tokenizer(path: Path, folder: Path, pad: str) -> None:
    """CLIP's tokenizer, from beside the file or from open_clip_torch. Raises ModelError."""
    folder.mkdir()
    for place in (path.parent / folder.name, path.parent / "tokenizer", path.parent):
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            for name in ("vocab.json", "merges.txt"):
                shutil.copyfile(place / name, folder / name)
            break
    else:
        merges = _merges_of_package(path)
        tokens = [*_letters(), *(f"{each}</w>" for each in _letters())]
        tokens += ["".join(each.split()) for each in merges] + [_START, _END]
        (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    settings = {"bos_token": _START, "eos_token": _END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(settings))


def _merges_of_package(path: Path) -> Sequence[str]:
    """The merges of CLIP in the package open_clip_torch, which is not imported."""
    found = find_spec("open_clip")
    places = found.submodule_search_locations if found is not None else None
    file = Path(places[0], "bpe_simple_vocab_16e6.txt.gz") if places else None
    if file is None or not file.is_file():
        what = f"{path} has no tokenizer, and there is no vocab.json with merges.txt beside it"
        raise ModelError(what, f"put CLIP's there, or {install_extra('convert')}, which has them")
    return gzip.decompress(file.read_bytes()).decode().split("\n")[1 : _MERGES + 1]


def _letters() -> list[str]:
    """The sign that stands for each byte in GPT-2's vocabularies, in the order of CLIP's."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(each) for each in shown] + [chr(256 + number) for number in range(256 - len(shown))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "download the whole folder again") from error
