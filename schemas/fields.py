"""Field types of messages. Each one limits a value from outside before it is used."""

import re
import unicodedata
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, FiniteFloat

from schemas.text import shortened

NAME_CHARS: Final = 200
_BIDI: Final = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # they can make two different names look the same
_UNSHOWN: Final = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, surrogates, line and paragraph breaks


def clean_name(name: Any) -> Any:
    """Return a name that is safe to show and write; anything but a string is returned unchanged.

    Characters that move a terminal's cursor, break a line or are no UTF-8 become U+FFFD, and the middle of a long name
    is left out.
    """
    if not isinstance(name, str) or (name.isprintable() and len(name) <= NAME_CHARS):
        return name
    shown = "".join("\ufffd" if unicodedata.category(each) in _UNSHOWN else each for each in _BIDI.sub("\ufffd", name))
    return shortened(shown, NAME_CHARS)


# the name of a media or an item: cleaned, not refused, because file systems allow any of these characters
GivenName: TypeAlias = Annotated[str, BeforeValidator(clean_name)]
Label: TypeAlias = Annotated[str, Field(max_length=256)]  # a name of FFmpeg's, or of an array
Count: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 53)]
Number: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 31)]
Size: TypeAlias = Annotated[int, Field(ge=0, le=1 << 20)]  # of a picture, in pixels
Ticks: TypeAlias = Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]  # sums of two fit in 64 bits
Term: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 31)]  # of a ratio, with FFmpeg's limits
PositiveTerm: TypeAlias = Annotated[int, Field(ge=1, lt=1 << 31)]
Ratio: TypeAlias = tuple[Term, PositiveTerm]
Seconds: TypeAlias = FiniteFloat
Duration: TypeAlias = Annotated[FiniteFloat, Field(ge=0)]  # in seconds
Moment: TypeAlias = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # seconds since 1970
