"""Where people get voices, for errors that one is missing."""

import re

PIPER_PAGE = "https://huggingface.co/rhasspy/piper-voices"
KOKORO_PAGE = "https://github.com/thewh1teagle/kokoro-onnx/releases/tag/model-files-v1.0"
SYMBOLS_PAGE = "https://huggingface.co/hexgrad/Kokoro-82M"
_PIPER = re.compile(r"[a-z]{2,3}_[A-Z]{2}-\w+-(?:x_low|low|medium|high)")
_OTHER = "--model NAME runs another voice"


def publisher_of_voice(name: str) -> str:
    """Return what to do where a voice of Piper or Kokoro is missing; "" for names of other models."""
    if _PIPER.fullmatch(name):
        files = f"{name}.onnx and {name}.onnx.json"
        return f"download {files} from {PIPER_PAGE}, then `rigflow model add {name}.onnx`; {_OTHER}"
    if name.startswith("kokoro"):
        files = f"{name}.onnx and voices-v1.0.bin from {KOKORO_PAGE} and config.json from {SYMBOLS_PAGE}"
        return f"download {files} into one folder, then `rigflow model add FOLDER`; {_OTHER}"
    return ""
