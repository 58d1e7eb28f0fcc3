"""Clones a voice: a folder of ZipVoice or Pocket TTS, a sound of at most 30 s and a file of consent become a model.

A ZipVoice needs the words of the sound, too.
"""

import hashlib
from pathlib import Path

import numpy as np

from engines.content import ModelFiles
from engines.models.files import NewFiles
from engines.models.folders import Taken
from engines.models.pocket import RATE as POCKET_RATE
from engines.models.pocket import with_voice
from engines.models.pocket_folder import pocket_files
from engines.models.publishers import POCKET_PAGE, ZIPVOICE_PAGE
from engines.models.sounds import read_sound
from engines.models.speech import finished
from engines.models.store import Found
from engines.models.surgery import Surgery
from engines.models.zipvoice import NEEDS, Reference, networks_of, read_zipvoice, with_reference
from engines.part import Array
from engines.speaking.phonemes import symbols_of
from engines.speaking.voice import trimmed
from schemas.errors import ModelError, UsageError
from schemas.model import SoundSpec
from schemas.speech import Consent, SpeechSpec
from schemas.text import size

_LEAST_S, _MOST_S = 1.0, 30.0
_HEARD = 10 ** (-50 / 20)  # a root of the mean square: quieter is no speech
_MOST_CHARACTERS = 2000
_MOST_CONSENT_BYTES = 16 << 20
_MARKS = tuple(".,;:!?\u2026\u3002\uff01\uff1f")


def cloned(
    given: Path, sound: Path | None, words: str, consent: Path | None, new: NewFiles
) -> tuple[Found, dict[str, str]]:
    """Return the model that speaks as the sound does, and the fields of its card that say so.

    Raises UsageError for what is missing; ModelError for a folder, a sound, words or a consent that cannot be used;
    MediaError for a file without sound; PluginMissing without espeak-ng.
    """
    networks, pocket = networks_of(given), pocket_files(given)
    if networks is None and pocket is None:
        what = f"{given} is not a folder of ZipVoice or Pocket TTS, and only with one are voices cloned"
        raise UsageError(what, f"see {ZIPVOICE_PAGE} and {POCKET_PAGE}")
    if consent is None:
        raise UsageError("a voice is cloned only with the consent of the person whose voice it is", NEEDS)
    if sound is None or not (words.strip() or pocket):
        raise UsageError(f"there is no {'sound' if sound is None else 'text of what the sound says'}", NEEDS)
    if pocket is not None and words:
        raise UsageError("a Pocket TTS does not take the words of the sound", "omit --text")
    allowed = _consent(consent)
    agreed = Consent(file=_plain(consent.name), sha256=_sha256(allowed))
    if pocket is not None:
        main = pocket.parts["main"]
        graph, speech = with_voice(pocket, reference_sound(sound, POCKET_RATE), agreed)
    else:
        assert networks is not None, "one of both is there"
        main, model = networks[0], read_zipvoice(*networks)
        heard = reference_sound(sound, model.speech.rate)
        graph, speech = with_reference(model, Reference(heard, _symbols(words, model.speech)), agreed)
    name = f"{main.resolve().parent.name}-{sound.stem}"
    body = finished(Surgery(graph, name), speech)
    why = {new.put(allowed, "consent"): f"the consent, {consent.name}"}
    taken = Taken(ModelFiles(body, tuple(why), new.folder), why)
    about = f"synthetic speech with a cloned voice: that of {sound.name}, consent {_plain(consent.name)}"
    return Found(main, name, taken), {"description": about}


def reference_sound(path: Path, rate: int) -> Array:
    """Return the sound of a file as one channel, float32 at `rate` Hz, without silence at its ends.

    Raises ModelError for one that is too short, too long or silent; UsageError and MediaError as `read_sound` does.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file", "check the path")
    try:
        found = read_sound(path, SoundSpec(rate=rate, samples=rate))
    except UsageError as error:
        raise ModelError(error.what, f"give {_LEAST_S:.0f} to {_MOST_S:.0f} s of speech") from error
    found = np.nan_to_num(found)
    if len(found) > _MOST_S * rate:
        what = f"{path} has {len(found) / rate:.1f} s of sound, more than {_MOST_S:.0f}"
        raise ModelError(what, "cut it: 3 to 10 s of one person are best")
    kept = trimmed(found, rate)
    level = float(np.sqrt(np.mean(kept.astype(np.float64) ** 2))) if len(kept) else 0.0
    if level < _HEARD:
        raise ModelError(f"{path} is silent, or nearly so", "give a sound in which one person speaks")
    if len(kept) < _LEAST_S * rate:
        what = f"{path} has {len(kept) / rate:.2f} s of sound without the silence at its ends"
        raise ModelError(what, f"give at least {_LEAST_S:.0f} s of speech; 3 to 10 are best")
    return kept


def _symbols(words: str, speech: SpeechSpec) -> list[int]:
    if len(words) > _MOST_CHARACTERS:
        what = f"--text has {len(words)} characters, more than {_MOST_CHARACTERS}"
        raise ModelError(what, "give what is said in the sound, word by word")
    words = " ".join(words.split())
    whole = words if words.endswith(_MARKS) else f"{words}."
    wide = speech.model_copy(update={"most": 65_536})
    made = [number for chunk in symbols_of(whole, wide, speech.language) for number in chunk]
    if not any(map(str.isalnum, words)) or not made:
        raise ModelError("--text has nothing that the model can read", "give what is said in the sound, word by word")
    return made


def _consent(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_CONSENT_BYTES:
            raise ModelError(f"consent {path} has more than {size(_MOST_CONSENT_BYTES)}", "give a text or a scan")
        body = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the consent {path}: {error.strerror}", "check the path") from error
    if not body.strip():
        raise ModelError(f"the consent {path} is empty", "write in it who allows what, and when")
    return body


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _plain(name: str) -> str:
    """Return a file name as one line for metadata."""
    return "".join(each if each.isprintable() else "_" for each in name)[:200]
