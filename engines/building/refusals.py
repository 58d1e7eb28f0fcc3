"""Maps the messages of builders that refuse a model to errors that state what to do."""

import re

from schemas.errors import ModelError

# the library's message -> (what happened, what to do); {0} and {1} are the expression's groups
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"Cannot compile operation '?([^']*?)'? for Turing \(SM75\): (FP32 [^.]*?) is not supported",
        "sm75 has no {1} in TensorRT-RTX (operation {0})",
        "build that GPU's engine with --precision fp16",
    ),
    (
        r"(FP32 [\w ]+) is not supported",
        "TensorRT-RTX has no {0} for one of these GPUs",
        "build with --precision fp16",
    ),
    (r"MODEL_DESERIALIZE_FAILED", "it is not a whole ONNX file", "export it again, weights inside"),
    (
        r"operator: (\S+) \(checkFallbackPluginImporter\)",
        "TensorRT knows no operation {0}",
        "replace it in the export, or serve the model with ONNX Runtime",
    ),
    (
        r"Node input was not registered",
        "a node reads a tensor that nothing makes",
        "the export is broken; export it again",
    ),
    (
        r"Kernel weight dimension failed to broadcast",
        "a convolution's weights do not fit its input's channels",
        "the export is broken; export it again",
    ),
    (
        r"`?input`? and `?kernel`? must be of same type",
        "a convolution mixes two precisions",
        "export in fp32 and let --precision convert it",
    ),
    (r"antialias == 0", "TensorRT has no antialiased Resize", "export it with antialias 0"),
    (
        r"no optimization profile has been defined|missing dimensions in profile",
        "a free dimension has no range",
        "name it: --dim NAME=SMALLEST:BEST:LARGEST",
    ),
    (
        r"Dimension mismatch for tensor (\S+)|optimization profiles satisfy MIN<=OPT<=MAX",
        "a range does not fit the model's shapes",
        "correct --dim; the model card has its shapes",
    ),
    (r"Failed to convert ONNX date type", "an input is text", "feed numbers, and tokenise outside of the model"),
    (
        r"(?:unsupported input type of UINT8|has type UInt8 but must have type|legalUINT8)",
        "it computes with bytes",
        "cast uint8 inputs to float first, and outputs to uint8 last",
    ),
    (
        r"Requested size was (\d+) bytes|OutOfMemory",
        "the builder ran out of memory",
        "close other programs, or make the largest shapes smaller",
    ),
    (
        r"MyelinCheckException|CUDA_SUCCESS|cudaError 35",
        "this needs a GPU and its driver",
        "build it on a machine that has the GPU",
    ),
)


def refused(name: str, messages: list[str]) -> ModelError:
    """Return the error of a model that a builder refused, by the builder's messages."""
    words = " ".join(" ".join(messages).split())
    for pattern, what, hint in _KNOWN:
        found = re.search(pattern, words)
        if found:
            return ModelError(f"model `{name}`: {what.format(*found.groups())}", hint)
    specific = [line for line in messages if "cudaError 35" not in line]
    text = " ".join((specific or messages or ["it gave no reason"])[0].split())
    return ModelError(f"model `{name}` was refused by TensorRT: {text[:300]}", "see docs/engines.md")
