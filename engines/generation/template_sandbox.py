"""Jinja's sandbox with limits: few filters and methods, so many steps, and texts of so many characters.

A step is a line of the Python that Jinja makes of a template. What C does within a line is counted as well, by the
values and characters that operators, filters, tests and methods are given: lists that contain each other twice, thirty
deep, would take hours to compare.
"""

import json
import sys
import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

MOST_CHARACTERS = 4 << 20  # of any text in it
_MOST_STEPS = 300_000
_STEP_VALUES, _STEP_CHARACTERS = 16, 1024  # so many take as long as a line
_INSIDE = (list, tuple, dict, range, KeysView, ValuesView, ItemsView)
_SHORT = (bool, int, float, type(None))
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


class _Steps(threading.local):
    """The steps that the template of this thread may still take; None: there is none."""

    left: int | None = None

    def take(self, count: int) -> None:
        if self.left is not None:
            self.left -= count
            if self.left < 0:
                raise TooMuchError(f"it does not end within {_MOST_STEPS:,} steps")


_steps = _Steps()


def environment(jinja: Any) -> Any:
    """Return Jinja's sandbox with the functions that templates use, and limits."""

    class Environment(jinja.sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc]
        intercepted_binops = frozenset(["+", "*", "**", "%"])

        def _parse(self, *arguments: Any) -> Any:
            tree = super()._parse(*arguments)
            _count_all(jinja.nodes, tree)
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
            _measured((owner, arguments, options))
            if isinstance(owner, str) and getattr(obj, "__name__", "") == "replace":
                return _replaced(owner, *arguments, **options)
            return super().call(context, obj, *arguments, **options)

    options = {"trim_blocks": True, "lstrip_blocks": True, "finalize": _measured}
    made = Environment(extensions=["jinja2.ext.loopcontrols"], **options)
    filters = {name: each for name, each in made.filters.items() if name in _FILTERS} | _OWN_FILTERS
    made.filters = {name: _counted(each) for name, each in filters.items()}
    made.tests = {name: _counted(each) for name, each in made.tests.items()}
    made.globals = {name: made.globals[name] for name in ("range", "dict", "namespace")}
    made.globals["raise_exception"] = _raise
    return made


def _count_all(nodes: Any, tree: Any) -> None:
    """Count values that become parts of others, or are compared or cut; let `~` be `+` of texts, which is checked."""

    def counted(parent: Any, name: str, value: Any) -> Any:
        if isinstance(value, nodes.Concat):
            return _added(nodes, value)
        compared = name == "expr" and isinstance(parent, nodes.Compare | nodes.Operand)
        cut = name == "node" and isinstance(parent, nodes.Getitem) and isinstance(parent.arg, nodes.Slice)
        literal = isinstance(value, nodes.List | nodes.Dict) or (isinstance(value, nodes.Tuple) and value.ctx == "load")
        return _filtered(nodes, value, "measured") if compared or cut or literal else value

    for parent in list(tree.find_all(nodes.Node)):
        for name, value in parent.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(parent, name, counted(parent, name, value))
            elif isinstance(value, list):
                value[:] = [counted(parent, name, each) for each in value]


def _added(nodes: Any, concat: Any) -> Any:
    found = None
    for each in concat.nodes:
        text = _filtered(nodes, each, "string")
        found = text if found is None else nodes.Add(found, text, lineno=concat.lineno)
    return found


def _filtered(nodes: Any, value: Any, name: str) -> Any:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or a test that counts what it is given."""

    @wraps(function)
    def counted(*arguments: Any, **options: Any) -> Any:
        _measured((arguments, options))
        return function(*arguments, **options)

    return counted


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
    """Return a value, after a look at how long it is as a text, and at what is inside."""
    total, inside = 0, [value]
    while inside:
        each = inside.pop()
        if type(each).__name__ == "Namespace":
            each = each._Namespace__attrs
        if isinstance(each, str):
            total += len(each)
            _steps.take(len(each) // _STEP_CHARACTERS)
        elif isinstance(each, _INSIDE):
            total += len(each)
            _steps.take(1 + len(each) // _STEP_VALUES)
            values = [*each, *each.values()] if isinstance(each, dict) else each
            inside += [value for value in values if type(value) not in _SHORT]
        _check_length(total)
    return value


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
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(indent, 8))


def _rounded(value: Any, digits: int = 0, method: str = "common") -> Any:
    if method != "common":
        raise ValueError("it rounds up or down, which chat templates have no use for")
    return round(value, max(-99, min(digits, 99)))


def _summed(values: Iterable[Any], attribute: str | None = None, start: float = 0) -> Any:
    numbers = [each if attribute is None else each.get(attribute, 0) for each in values]
    if not all(isinstance(each, int | float) for each in (start, *numbers)):
        raise ValueError("it adds what are no numbers")
    return sum(numbers, start)


def _raise(message: str) -> None:
    raise ValueError(str(message)[:300])


_OWN_FILTERS = {
    "tojson": _to_json,
    "string": str,
    "replace": _replaced,
    "join": _joined,
    "round": _rounded,
    "sum": _summed,
    "measured": lambda value: value,
}


@contextmanager
def few_steps() -> Iterator[None]:
    """Let this thread run so many steps of a template, and no more."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None
        _steps.take(1)
        return trace

    before = sys.gettrace()
    _steps.left = _MOST_STEPS
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        _steps.left = None
