"""Phonemes of words by espeak-ng, which the package espeakng-loader brings (the extra `phonemes`).

espeak-ng is under the GPL 3; rigflow only calls its library, and works without it where no phonemes are needed. Its
release decides how words sound, so that one release is asked for on all machines.
Source of the constants: espeak-ng 1.52, speak_lib.h.
"""

import ctypes
import re
import threading
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engines.extras import install_extra, pip_install
from schemas.errors import PluginMissing, UsageError

PACKAGE, RELEASE = "espeakng-loader", "0.2.4"  # as in pyproject.toml
_NO_SOUND, _DO_NOT_EXIT = 2, 0x8000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakINITIALIZE_DONT_EXIT
_UTF8, _IPA, _TIED = 1, 0x02, 0x80
_LANGUAGE = re.compile(r"\([^()]*\)")  # where a word of another language begins and ends, as in (en)
_LOCK = threading.Lock()  # espeak-ng has one state for the whole process


def check_espeak(language: str) -> None:
    """Raise PluginMissing if espeak-ng is not installed here in the right release, UsageError for unknown languages."""
    with _LOCK:
        _set_language(_library(), language)


def espeak(text: str, language: str, tie: str = "") -> str:
    """Return the phonemes of text in IPA, words between blanks. `tie` stands between the letters of one phoneme.

    Raises as `check_espeak` does.
    """
    mode = _IPA | (_TIED | ord(tie) << 8 if tie else 0)
    raw = ctypes.create_string_buffer(text.replace("\0", " ").encode(errors="replace"))
    rest, found = ctypes.c_void_p(ctypes.addressof(raw)), []
    with _LOCK:
        library = _library()
        _set_language(library, language)
        while rest.value:
            clause = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, mode)
            found.append((clause or b"").decode(errors="replace"))
    return " ".join(_LANGUAGE.sub("", " ".join(found)).replace("_", "").split())


@cache
def _library() -> Any:
    """Return espeak-ng's library, ready."""
    try:
        found = version(PACKAGE)
        import espeakng_loader
    except (PackageNotFoundError, ImportError) as error:
        hint = f"{install_extra('phonemes')}; espeak-ng in it is under the GPL 3"
        what = "to speak, text becomes phonemes by espeak-ng, which is not installed here"
        raise PluginMissing(what, hint) from error
    if found != RELEASE:
        what = f"phonemes are those of {PACKAGE} {RELEASE}, so that all machines speak alike, and here is {found}"
        raise PluginMissing(what, pip_install(f"{PACKAGE}=={RELEASE}"))
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
    except (OSError, RuntimeError) as error:
        raise PluginMissing(f"espeak-ng cannot be loaded: {error}", f"install {PACKAGE} again") from error
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
    if library.espeak_Initialize(_NO_SOUND, 0, data, _DO_NOT_EXIT) < 0:
        raise PluginMissing(f"espeak-ng finds no data in {data.decode()}", f"install {PACKAGE} again")
    return library


def _set_language(library: Any, language: str) -> None:
    """Set the language always: what was spoken before leaves nothing behind."""
    if library.espeak_SetVoiceByName(language.encode()):
        raise UsageError(f"espeak-ng has no language {language}", "take one of espeak-ng's, as en-us, de or fr")
