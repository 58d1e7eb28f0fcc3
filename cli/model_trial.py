"""Runs a model on a picture, on sound or on a text, and prints its answer."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.content import Content
    from schemas.model import ModelSpec

Say = Callable[[object], None]
_TEXT = "a photo of a dog"


def try_model(spec: "ModelSpec", body: "Content", given: Path | None, show: Path, say: Say) -> None:
    """Run a model on a picture or a sound; `say` its answer line by line, and draw it into the file `show`."""
    from engines.models.folder_kinds import Draws, kind_of_backend
    from engines.outputs.hearing import heard, sound_input
    from engines.speech.network import is_whisper

    kind = kind_of_backend(spec.backend)
    if isinstance(kind, Draws):
        from PIL import Image

        from engines.outputs.preview import save

        words, picture = kind.drawn(spec, body)
        save(Image.fromarray(picture), show)
        _say_lines(say, words, [f"drawn in {show}"])
    elif is_whisper(spec) and given is not None:
        from cli.whisper_trial import said

        _say_lines(say, f"on the first 30 s of {given}:", said(spec, body, given))
    elif kind is not None:
        hint = ": give a file of sound" if is_whisper(spec) else ", in a pipeline"
        say(f"not tried: it runs by {spec.backend}{hint}")
    elif spec.speech is not None:
        from engines.speaking.trial import spoken

        say(spoken(spec, body))
    elif spec.recogniser is not None:
        from engines.inference.speech_trial import written

        say(written(spec, body))
    elif sound_input(spec) and given is not None:
        _say_lines(say, f"on {given}:", heard(spec, body, given))
    else:
        _try_on_picture(spec, body, given, show, say)


def _try_on_picture(spec: "ModelSpec", body: "Content", picture: Path | None, show: Path, say: Say) -> None:
    """Run a model on a picture, or on zeros where it takes none, and its text tower on a text."""
    from engines.outputs.hearing import sound_input
    from engines.outputs.preview import answer, drawn, read_picture, save, sentences

    found = answer(spec, body, None if picture is None else read_picture(picture))
    takes = any(tensor.picture for tensor in spec.inputs)
    other = "silence, because no sound file is given" if sound_input(spec) else "zeros, because it takes no picture"
    _say_lines(say, f"on {(picture or 'the test picture') if takes else other}:", sentences(found))
    image = drawn(found)
    if image is not None:
        save(image, show)
        say(f"drawn in {show}")
    if spec.text is not None:
        _try_text(spec, body, getattr(found.arrays.get("embedding"), "shape", (0,))[-1], say)


def _say_lines(say: Say, title: str, lines: Iterable[str]) -> None:
    lines = list(lines)  # an error comes before the title
    say(title)
    for line in lines:
        say(f"  {line}")


def _try_text(spec: "ModelSpec", body: "Content", width: int, say: Say) -> None:
    """Run the text tower on a text. Raises ModelError: its vectors do not compare with those of pictures."""
    from engines.models.text import embed_texts
    from schemas.errors import ModelError, PluginMissing

    try:
        [vector] = embed_texts(spec, body, [_TEXT])
    except PluginMissing as error:
        say(f"its texts are not tried: {error}")
        return
    if len(vector) != width:
        what = f"model {spec.name}: a text becomes {len(vector)} numbers, and a picture {width}"
        raise ModelError(what, "name the outputs that compare: heads.0.output and text.output")
    say(f'on the text "{_TEXT}": {len(vector)} numbers, as of pictures')
