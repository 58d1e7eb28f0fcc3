"""The protocol of backends that can compute a model with several options."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from engines.content import Content
from engines.ports import Backend, Device, Session
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions


@runtime_checkable
class Tunable(Backend, Protocol):
    """A backend that can compute a model with several options."""

    def library(self) -> str:
        """Version of its library."""
        ...

    def usual(self, device: Device) -> ComputeOptions:
        """The options of a session that was not tuned: what `open` computes with."""
        ...

    def worth_trying(self, model: Content, card: ModelSpec, device: Device) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Changes of the options that may be faster on a device, in the order to try them.

        Of each inner sequence the fastest is taken, and those after it are tried with it. Raises ModelError.
        """
        ...

    def open_with(self, model: Content, card: ModelSpec, device: Device, options: ComputeOptions) -> Session:
        """A model, loaded, that computes with these options. Raises as `open`."""
        ...
