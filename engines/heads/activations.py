"""Functions that make scores of raw outputs of a model; the options of a head name one of `ACTIVATIONS`."""

from collections.abc import Callable, Mapping
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import AfterValidator

from engines.part import Array


def sigmoid(values: Array) -> Array:
    """`1 / (1 + exp(-x))`, in the dtype of `values`."""
    with np.errstate(over="ignore"):  # exp gives infinity, and 1 / infinity is 0, which is right
        return np.asarray(1 / (1 + np.exp(-values)))


def softmax(values: Array) -> Array:
    """`exp(x) / sum(exp(x))` along the last dimension."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def as_they_are(values: Array) -> Array:
    """Return the values unchanged: the model contains its activation."""
    return values


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"none": as_they_are, "sigmoid": sigmoid, "softmax": softmax}


def _known(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"there are {', '.join(ACTIVATIONS)}")
    return name


Activation: TypeAlias = Annotated[str, AfterValidator(_known)]
