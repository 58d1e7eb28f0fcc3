"""Where people get a model that is missing, and what they type then: one table of names and hints."""

import re
from collections.abc import Mapping

from engines.extras import (
    CONVERSION,
    EXPORT,
    LANGUAGE_MODELS,
    PHONEMES,
    PROMPTS,
    SEARCH,
    TRANSCRIPTION,
    TRANSCRIPTION_BY_ONNX,
    Needs,
    install_extra,
    pip_install,
)
from engines.models.shipped_cards import publisher_of

PIPER_PAGE = "https://huggingface.co/rhasspy/piper-voices"
KOKORO_PAGE = "https://github.com/thewh1teagle/kokoro-onnx/releases/tag/model-files-v1.0"
SYMBOLS_PAGE = "https://huggingface.co/hexgrad/Kokoro-82M"
FUNASR_PAGES = (
    "as https://huggingface.co/funasr/paraformer-large, https://modelscope.cn/models/iic/SenseVoiceSmall-onnx or those "
    "of https://github.com/k2-fsa/sherpa-onnx/releases/tag/asr-models"
)
MATCHA_PAGE = "https://k2-fsa.github.io/sherpa/onnx/tts/pretrained_models/matcha.html"
ZIPVOICE_PAGE = "https://k2-fsa.github.io/sherpa/onnx/tts/zipvoice.html"
POCKET_PAGE = "https://k2-fsa.github.io/sherpa/onnx/tts/pocket.html"
VOCODER_PAGE = "https://github.com/k2-fsa/sherpa-onnx/releases/tag/vocoder-models"
X3D_PAGE = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
GENAI_PAGE = "https://huggingface.co/microsoft/Phi-3-mini-4k-instruct-onnx"
DIFFUSERS_PAGE = "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5"
EXPORTS = {"x3d_s": "X3D_S.pyth"}  # models of `rigflow engine export`, and the files with their weights
_PIPER = r"[a-z]{2,3}_[A-Z]{2}-\w+-(?:x_low|low|medium|high)"
_WHISPER = r"whisper-(?:tiny|base|small|medium|large)[\w.-]*"
_ZIPVOICE = r"(?i:.*zipvoice.*)"
_HINTS: Mapping[str, str] = {  # a pattern of whole names; `{name}` stands for the name
    "|".join(EXPORTS): f"download {X3D_PAGE}/{{weights}}, then `rigflow engine export {{name}} --weights {{weights}}`",
    "chat-model": "get a folder of ONNX Runtime GenAI, such as cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4 of "
    f"{GENAI_PAGE}, see docs/chat.md, then "
    "`rigflow model add FOLDER --name chat-model`",
    "stable-diffusion": "get a folder of Stable Diffusion, as ONNX files or as that of diffusers at "
    f"{DIFFUSERS_PAGE}, see docs/imagine.md, then "
    "`rigflow model add FOLDER --name stable-diffusion`",
    "faster-whisper-.+": "download the folder https://huggingface.co/Systran/{name}, then `rigflow model add {name}`",
    r"(?i:.*(?:paraformer|sense-?voice).*)": f"download a folder of FunASR as ONNX, {FUNASR_PAGES}, then "
    "`rigflow model add FOLDER --name {name}`",
    "speaker-encoder": "it comes with the package resemblyzer, `{resemblyzer}`; or download "
    "pretrained.pt from https://github.com/resemble-ai/Resemblyzer/tree/master/resemblyzer, then "
    "`rigflow model add pretrained.pt --name speaker-encoder`",
    _WHISPER: "download the folder https://huggingface.co/onnx-community/{name}, then `rigflow model add {name}`",
    "silero-vad": "{stt}, which has it; or download silero_vad.onnx from "
    "https://github.com/snakers4/silero-vad, then `rigflow model add silero_vad.onnx --name silero-vad`",
    _PIPER: f"download {{name}}.onnx and {{name}}.onnx.json from {PIPER_PAGE}, then `rigflow model add {{name}}.onnx`",
    "kokoro.*": f"download {{name}}.onnx and voices-v1.0.bin from {KOKORO_PAGE} and config.json from {SYMBOLS_PAGE} "
    "into one folder, then `rigflow model add FOLDER`",
    "matcha-icefall-.+": f"download its folder as {MATCHA_PAGE} says, and vocos-22khz-univ.onnx from {VOCODER_PAGE} "
    "into it, then `rigflow model add {name}`",
    r"(?i:.*pocket.*tts.*)": f"download a folder of Pocket TTS as {POCKET_PAGE} says, then clone a voice: "
    "`rigflow model add FOLDER --name {name} --sound FILE --consent FILE`, see docs/speak.md",
    _ZIPVOICE: f"download a folder of ZipVoice as {ZIPVOICE_PAGE} says, and vocos_24khz.onnx from "
    f"{VOCODER_PAGE} into it, then clone a voice: `rigflow model add FOLDER --name {{name}} --sound FILE --text WORDS "
    "--consent FILE`, see docs/speak.md",
}
_NEEDS: Mapping[str, Needs] = {  # a pattern of whole names; what running the model needs, or getting it
    "|".join(EXPORTS): EXPORT,
    "chat-model": LANGUAGE_MODELS,
    "stable-diffusion": PROMPTS,
    "faster-whisper-.+": TRANSCRIPTION,
    _WHISPER: TRANSCRIPTION_BY_ONNX,
    f"{_PIPER}|kokoro.*|matcha-icefall-en.*|{_ZIPVOICE}": PHONEMES,
    "clip-.+": SEARCH,
}
_OF_TORCH = (".pth", ".pt", ".ckpt", ".safetensors")


def where_to_get(name: str) -> str:
    """Return what to do where a model of this name is missing; "" for names of which rigflow knows no publisher.

    An extra that is not installed here and that the model needs is named, too.
    """
    for pattern, hint in _HINTS.items():
        if re.fullmatch(pattern, name):
            installs = {"stt": install_extra("stt"), "resemblyzer": pip_install("--no-deps", "resemblyzer")}
            return hint.format(name=name, weights=EXPORTS.get(name, ""), **installs) + _first(name)
    if card := publisher_of(name):
        hint = f"download {card.file} from {card.page}, then `rigflow model add {card.add or card.file}`"
        return hint + _first(name, card.file)
    return ""


def _first(name: str, file: str = "") -> str:
    """The extra that a model needs, if it is not installed. `file`: its weights; those of torch are converted."""
    for pattern, needs in _NEEDS.items():
        if re.fullmatch(pattern, name) and needs.missing:
            return f"; {'for words' if needs is SEARCH else 'first'} {needs.missing}"
    is_of_torch = file.endswith(_OF_TORCH)
    return f"; first {CONVERSION.missing}" if is_of_torch and CONVERSION.missing else ""
