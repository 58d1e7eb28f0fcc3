"""Jinja's sandbox with limits: few filters and methods, so many lines, and texts of so many characters."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MOST_CHARACTERS = 4 << 20  # of any text in it
_MOST_LINES = 300_000  # that it runs, of the Python that Jinja makes of it
_FILTERS = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "default",
    "d",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
]
_METHODS = [
    "capitalize",
    "endswith",
    "find",
    "get",
    "isdigit",
    "items",
    "keys",
    "lower",
    "lstrip",
    "replace",
    "rstrip",
    "split",
    "startswith",
    "strip",
    "title",
    "upper",
    "values",
    "count",
    "index",
    "isalpha",
    "isspace",
    "splitlines",
    "rsplit",
    "removeprefix",
    "removesuffix",
]


class TooMuchError(Exception):
    """A template passes a limit."""


def environment(jinja: Any) -> Any:
    """Return Jinja's sandbox with the functions that templates use, and limits."""

    class Environment(jinja.sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc]
        intercepted_binops = frozenset(["+", "*", "**", "%"])

        def _parse(self, *arguments: Any) -> Any:
            tree = super()._parse(*arguments)
            _add_instead_of_join(jinja.nodes, tree)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            known = not isinstance(obj, str) or attr in _METHODS
            return known and bool(super().is_safe_attribute(obj, attr, value))

        def wrap_str_format(self, value: Any) -> None:
            """Let `format` be a method as others: it can pad a text to any length."""

        def call(self, context: Any, obj: Any, *arguments: Any, **options: Any) -> Any:
            owner = getattr(obj, "__self__", None)
            if isinstance(owner, str) and getattr(obj, "__name__", "") == "replace":
                return _replaced(owner, *arguments, **options)
            return super().call(context, obj, *arguments, **options)

    options = {"trim_blocks": True, "lstrip_blocks": True, "finalize": _measured}
    made = Environment(extensions=["jinja2.ext.loopcontrols"], **options)
    made.filters = {name: each for name, each in made.filters.items() if name in _FILTERS}
    made.filters |= {
        "tojson": _to_json,
        "string": lambda value: str(_measured(value)),
        "replace": _replaced,
        "join": _joined,
    }
    made.globals = {name: made.globals[name] for name in ("range", "dict", "namespace")}
    made.globals["raise_exception"] = _raise
    return made


def _add_instead_of_join(nodes: Any, tree: Any) -> None:
    """Let `~` be `+` of texts, which is checked."""
    for parent in list(tree.find_all(nodes.Node)):
        for field, value in parent.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(parent, field, _added(nodes, value))
            elif isinstance(value, list):
                value[:] = [_added(nodes, each) if isinstance(each, nodes.Concat) else each for each in value]


def _added(nodes: Any, concat: Any) -> Any:
    found = None
    for each in concat.nodes:
        text = nodes.Filter(each, "string", [], [], None, None, lineno=concat.lineno)
        found = text if found is None else nodes.Add(found, text, lineno=concat.lineno)
    return found


def _check_operation(operator: str, left: Any, right: Any) -> None:
    if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_length(len(left) + len(right))
    elif operator == "*":
        for some, times in ((left, right), (right, left)):
            if hasattr(some, "__len__") and isinstance(times, int):
                _check_length(len(some) * times)
            elif isinstance(some, int) and abs(some) > 1 << 64:
                raise TooMuchError("it computes with numbers that are too large")
    elif operator == "**" or (operator == "%" and isinstance(left, str)):
        raise TooMuchError(f"it uses {operator}, which chat templates have no use for")


def _check_length(length: int) -> None:
    if length > MOST_CHARACTERS:
        raise TooMuchError(f"it makes a text of more than {MOST_CHARACTERS:,} characters")


def _measured(value: Any) -> Any:
    """Return a value that becomes text, after a look at how long that is."""
    total, inside = 0, [value]
    while inside:
        each = inside.pop()
        if isinstance(each, str | list | tuple | dict):
            total += len(each)
            _check_length(total)
        if isinstance(each, dict):
            inside += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            inside += each
    return value


def _string(value: Any) -> str:
    return str(_measured(value))


def pieces(generated: Iterator[str]) -> Iterator[str]:
    """Yield what a template makes, while it is not too long."""
    total = 0
    for piece in generated:
        total += len(piece)
        _check_length(total)
        yield piece


def _replaced(given: Any, before: Any = "", after: Any = "", count: int = -1) -> str:
    text, old, new = str(given), str(before), str(after)
    _check_length(len(text) + (text.count(old) if count is None or count < 0 else count) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _joined(values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    texts = [str(_measured(each if attribute is None else each.get(attribute, ""))) for each in values]
    _check_length(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(_measured(value), ensure_ascii=ensure_ascii, indent=None if indent is None else min(indent, 8))


def _raise(message: str) -> None:
    raise ValueError(str(message)[:300])


@contextmanager
def few_lines() -> Iterator[None]:
    """Let this thread run so many lines of a template, and no more."""
    left = _MOST_LINES

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != "<template>":
            return None
        left -= 1
        if left < 0:
            raise TooMuchError(f"it does not end within {_MOST_LINES:,} steps")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
