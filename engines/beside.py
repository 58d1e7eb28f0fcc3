"""What operators say of work that the host does beside a device that infers."""

from typing import Protocol, runtime_checkable

from engines.part import Part
from engines.ports import Operator


@runtime_checkable
class Prepares(Protocol):
    """An operator that can do a part of its work before the turn of its part on the device."""

    def prepare(self, part: Part) -> Part:
        """The part with arrays that `run` would make first. Another thread may call `run` meanwhile."""
        ...


def runs_on_host(operator: Operator) -> bool:
    """Whether the model of an operator runs on the host's cores in workers of every device: it has `on_host`, and takes
    parts in any order, because several are worked on at a time.
    """
    return bool(getattr(operator, "on_host", False)) and not operator.in_order
