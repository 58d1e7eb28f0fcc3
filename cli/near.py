"""`rigflow near`: compares two media by their fingerprints."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import Json, ends_well
from cli.text import say, say_json
from schemas.errors import ExitCode
from schemas.text import count


@ends_well
def near(
    a: Annotated[Path, typer.Argument(help="A result of `rigflow run fingerprint`.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
    as_json: Json = False,
) -> ExitCode:
    """Compare two fingerprints: similarity and offset in time.

    The similarity is the mean cosine of their descriptors at the best shift: over 0.95 is the same film in another
    encoding, under 0.8 another film.

    Example: rigflow near holiday.fingerprint.npz upload.fingerprint.npz
    """
    from engines.similarity import ALIKE, compare, load_descriptors

    match = compare(load_descriptors(a), load_descriptors(b))
    if as_json:
        say_json({"similarity": match.similarity, "offset_s": match.offset_s, "windows": match.windows})
        return ExitCode.OK
    say(f"similarity  {match.similarity:.4f} over {count(match.windows, 'window')}")
    if not match.windows:
        say("offset      unknown: the parts that they have in common are blank")
    elif match.similarity < ALIKE:
        say("offset      none: these are different films")
    else:
        say(f"offset      {describe_offset(match.offset_s, a.name, b.name)}")
    return ExitCode.OK


def describe_offset(offset_s: float, a: str, b: str) -> str:
    """The offset in words: A shows at t + offset what B shows at t."""
    if abs(offset_s) < 0.0005:
        return "none, both begin with the same picture"
    first, second = (a, b) if offset_s > 0 else (b, a)
    return f"{offset_s:+.3f} s: {second} begins {abs(offset_s):.3f} s into {first}"
