"""A tagger as a user writes it without a framework: one loop of Pillow, NumPy and one session of ONNX Runtime.

`Tagger` makes pictures as the WD taggers' authors do, https://huggingface.co/spaces/SmilingWolf/wd-tagger; `Classifier`
as most scripts do for networks of ImageNet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

Array = np.ndarray[Any, Any]
BICUBIC = Image.Resampling.BICUBIC


class Tagger:
    """White behind transparency, a white square, bicubic, BGR 0 ... 255; scores above a threshold, as text files."""

    def __init__(self, model: Path, names: Sequence[str], threshold: float) -> None:
        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self._names, self._threshold = names, threshold

    def tag(self, paths: Sequence[Path], out: Path) -> list[dict[str, float]]:
        """The tags of each picture with their scores; writes a text of each."""
        found = []
        for path in paths:
            scores = self._scores(Image.open(path))
            chosen = np.flatnonzero(scores > self._threshold)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
            tags = {self._names[number]: float(scores[number]) for number in chosen}
            (out / f"{path.stem}.txt").write_text(", ".join(name.replace("_", " ") for name in tags))
            found.append(tags)
        return found

    def _scores(self, picture: Image.Image) -> Array:
        side = int(self._input.shape[1])
        if picture.mode != "RGB":
            rgba = picture.convert("RGBA")
            picture = Image.new("RGB", rgba.size, (255, 255, 255))
            picture.paste(rgba, mask=rgba.split()[-1])
        longest = max(picture.size)
        square = Image.new("RGB", (longest, longest), (255, 255, 255))
        square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
        values = np.asarray(square.resize((side, side), BICUBIC), np.float32)[None, :, :, ::-1]
        scores: Array = self._session.run(None, {self._input.name: np.ascontiguousarray(values)})[0][0]
        return scores


class Classifier(Tagger):
    """Stretched, bicubic, RGB (x - 127) / 128; probabilities above a threshold."""

    def _scores(self, picture: Image.Image) -> Array:
        side = int(self._input.shape[2])
        rgb = np.asarray(picture.convert("RGB").resize((side, side), BICUBIC), np.float32)
        values = ((rgb - 127) / 128).transpose(2, 0, 1)[None]
        logits = self._session.run(None, {self._input.name: np.ascontiguousarray(values)})[0][0]
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())
