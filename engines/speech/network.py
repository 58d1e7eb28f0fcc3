"""What the travelling card of a Whisper says: names and sizes of its arrays, its precision, its files."""

from collections.abc import Sequence

from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_files import FileSpec

MAIN_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
FEATURES, STATES, LOGITS = "features", "states", "logits"
FRAMES = 3000  # of 10 ms, which the encoder takes
PRECISIONS = ("int8_float32", "int8_float16", "int8_bfloat16", "int8", "int16", "float16", "bfloat16", "float32")
PRECISION = "int8_float32"  # every processor and every GPU computes it, those of the Pascal generation too
MULTILINGUAL = 51_865  # tokens of the networks of many languages; those of English alone have fewer


def arrays_of(bands: int, width: int, tokens: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of a network with so many bands of sound, numbers a state and tokens."""
    features = TensorSpec(name=FEATURES, dtype="float32", shape=("N", bands, FRAMES))
    states = TensorSpec(name=STATES, dtype="float32", shape=("N", FRAMES // 2, width))
    return (features,), (states, TensorSpec(name=LOGITS, dtype="float32", shape=("N", "count", tokens)))


def is_whisper(spec: ModelSpec) -> bool:
    """Return whether a card is that of a Whisper."""
    return [tensor.name for tensor in spec.outputs] == [STATES, LOGITS]


def bands_of(spec: ModelSpec) -> int:
    """Return how many bands of sound a network takes."""
    bands = spec.inputs[0].shape[1]
    assert isinstance(bands, int), "arrays_of made the card"
    return bands


def is_multilingual(spec: ModelSpec) -> bool:
    """Return whether a network knows languages beside English."""
    tokens = next(tensor.shape[-1] for tensor in spec.outputs if tensor.name == LOGITS)
    return isinstance(tokens, int) and tokens >= MULTILINGUAL


def file_named(files: Sequence[FileSpec], name: str, model: str) -> FileSpec:
    """Return the further file of that name. Raises ModelError."""
    found = next((file for file in files if file.name == name), None)
    if found is None:
        raise ModelError(f"model `{model}` has no file {name}", "add its whole folder again")
    return found
