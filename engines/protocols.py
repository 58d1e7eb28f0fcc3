"""Says whether a value has what a protocol asks for; each class is looked at once."""

from typing import Any

_CONFORMS: dict[tuple[Any, type], bool] = {}  # `isinstance` with a protocol takes 10 us, and is asked for every part


def conforms(value: object, protocol: Any) -> bool:
    """Return `isinstance` of a runtime-checkable protocol. All values of one class are alike in that."""
    of = protocol, type(value)
    if of not in _CONFORMS:
        _CONFORMS[of] = isinstance(value, protocol)
    return _CONFORMS[of]
