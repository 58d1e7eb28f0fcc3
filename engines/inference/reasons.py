"""Extracts the reason of an ONNX Runtime error: one line without status codes, C++ functions and source lines."""

import re

from schemas.text import size

MOST_CHARS = 300
_ALLOCATION = re.compile(r"Failed to allocate memory for requested buffer of size (\d+)")
_SOURCE = re.compile(r"(?:/\S+/)?\w+\.(?:cc|cpp|cu|h):\d+ ")
_FUNCTION = re.compile(r"[\w:~<>*&,\[\] ]+")  # what comes before a function's parameters
_NAME = re.compile(r"[A-Z]\w*[a-z][A-Z]\w*(?:::\w+)* (?=[A-Z])")  # a function's name without parameters

# in this order; groups are those of the expression
_SHORTER: tuple[tuple[str, str], ...] = (
    (r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", ""),
    (r"^Load model from \S+ failed:", ""),
    (r"(?:Exception during initialization|Fatal error|Type Error|Error): ", ""),
    (r"(?:This is an i|I)nvalid model\. ", ""),
    (r"In Node, \(\"(.*?)\", (\w+), .*? , Error ", r"\2 `\1`: "),
    (r"Node \((.*?)\) Op \((\w+)\) (?:\[\w+\] )?", r"\2 `\1`: "),
    (r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ", r"\1 `\2`: "),
    (r" ``:", ":"),
    (r"(^|: )(?:(?!: ).)* was false\. (?=\S)", r"\1"),
    (r" Please fix either the inputs/outputs or the model\.?", ""),
    (r" ?Stacktrace:.*", ""),
    (r".*Opset (\d+) is under development.*", r"its opset \1 is newer than this ONNX Runtime"),
    (r"Failed to load model because protobuf parsing failed\.", "it is not a whole ONNX file"),
    (r"No graph was found in the protobuf\.", "it is not a whole ONNX file"),
    (r"^(?:std::)?bad[_ ]alloc(?:ation)?.*", "it needs more memory than there is"),
)


def one_line(error: Exception) -> str:
    """Return ONNX Runtime's reason, at most `MOST_CHARS` long."""
    text = " ".join(str(error).split())
    if wanted := _ALLOCATION.search(text):
        return f"it needs {size(int(wanted[1]))} of memory for one array, and there is less"
    while source := _SOURCE.search(text):
        text = text[: source.start()] + _without_function(text[source.end() :])
    for pattern, shorter in _SHORTER:
        text = re.sub(pattern, shorter, text)
    text = text.strip() or type(error).__name__
    return text if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"


def _without_function(text: str) -> str:
    """Remove the C++ function at the start of a message: its name, and its parameters up to the closing bracket."""
    opening = text.find("(")
    if opening > 0 and "::" in text[:opening] and _FUNCTION.fullmatch(text[:opening]):
        depth = 0
        for place in range(opening, len(text)):
            depth += {"(": 1, ")": -1}.get(text[place], 0)
            if not depth:
                return text[place + 1 :].lstrip().removeprefix("const ")
    return _NAME.sub("", text, count=1) if _NAME.match(text) else text
