"""The operator speak: a slow sentence is not taken for a stuck one; a text that fails does so alone."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.operators.speak import Speak
from engines.part import Part
from engines.texts import text_rows
from schemas.errors import ModelError
from schemas.media import Item, MediaInfo
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import OperatorStage
from schemas.speech import SpeechSpec
from tests.unit.outputs_parts import make_part

TEXTS = MediaInfo(kind="text", timed=False)
SPEECH = SpeechSpec(rate=8000, alphabet="letters", symbols={each: (n,) for n, each in enumerate("abc.", 1)})
CARD = ModelSpec(
    name="slow",
    inputs=(TensorSpec(name="symbols", dtype="int64", shape=(1, "L")),),
    outputs=(TensorSpec(name="sound", dtype="float32", shape=(1, "S")),),
    sha256="0" * 64,
    speech=SPEECH,
)


class Voice:
    """A session whose run ends after `tick` was called during it; it fails on `c`."""

    spec, batch_bytes = CARD, 1

    def __init__(self) -> None:
        self.ticked = threading.Event()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if 3 in inputs["symbols"]:
            raise ModelError("no")
        assert self.ticked.wait(60)
        return {"sound": np.full((1, 80 * inputs["symbols"].shape[1]), 0.5, np.float32)}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def spoken(*texts: str, keeps: tuple[str, ...] = (), **options: Any) -> Part:
    items = [Item(name=f"{number}.txt") for number in range(len(texts))]
    part = make_part(TEXTS, {"text": text_rows(texts)}, (0,) * len(texts), items=items)
    part = part.with_arrays(part.arrays, frames=len(texts))
    stage = OperatorStage(kind="speak", name="speak", model="slow", options=options, keeps=keeps)
    voice = Voice()
    [made] = Speak(stage, CARD).run([part], voice, voice.ticked.set)
    assert isinstance(made, Part)
    return made


def test_a_sentence_that_takes_long_reports_that_it_moves() -> None:
    sound = spoken("a. B.", pause=0.1).arrays["sound"]
    row = sound.row(0)  # type: ignore[union-attr]
    assert len(row) == 2 * 160 + 800
    assert not row[160:960].any()


def test_a_text_that_fails_does_so_alone() -> None:
    part = spoken("a", "c", "", "?", "bb", "a" * 20_001, keeps=("text",))
    assert [bool(item.error) for item in part.meta.items] == [False, True, False, False, False, True]
    assert part.meta.items[1].error == "no"
    assert "a text of 20001 characters is too long" in part.meta.items[5].error
    assert (len(part.meta.pts), part.meta.frames, part.meta.lost) == (4, 4, 2)
    assert [len(part.arrays["sound"].row(n)) for n in range(4)] == [80, 0, 0, 160]  # type: ignore[union-attr]
    assert [part.arrays["text"].row(n).tobytes() for n in range(4)] == [b"a", b"", b"?", b"bb"]  # type: ignore[union-attr]
    assert part.arrays["rate"].tolist() == [8000] * 4  # type: ignore[union-attr]
    assert part.meta.notes == ("a text without letters and digits became no sound",)
