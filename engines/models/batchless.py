"""Adds a batch dimension to graphs without one, so that all other code sees a batch of one row."""

from typing import Any

from engines.models.surgery import Surgery
from schemas.errors import ModelError


def add_batch(model: Surgery) -> set[str]:
    """Give each input and output whose first dimension is not 1 a first dimension of 1; return their names.

    Raises ModelError for a model whose output is an input or a constant.
    """
    inputs, outputs = ([each for each in side if _lacks_batch(each)] for side in (model.inputs, model.graph.output))
    for value in outputs:
        if not model.makes(value.name):
            what = f"model `{model.name}`: nothing makes its output `{value.name}`"
            raise ModelError(what, "leave it out of the export")
    if not (inputs or outputs):
        return set()
    arrays, attributes = model.axes(0)
    for value in inputs:
        model.read_instead(value.name, row := model.fresh(f"{value.name}_row"))
        model.front("Squeeze", value.name, *arrays, result=row, **attributes)
    for value in outputs:
        model.read_instead(value.name, row := model.fresh(f"{value.name}_row"))
        model.behind("Unsqueeze", row, *arrays, result=value.name, **attributes)
    for value in (*inputs, *outputs):
        _extend(value)
    model.apply()
    del model.graph.value_info[:]
    return {value.name for value in (*inputs, *outputs)}


def _lacks_batch(value: Any) -> bool:
    """Return whether a tensor's first dimension is not 1; False for other values and unknown ranks."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return False
    return not tensor.shape.dim or tensor.shape.dim[0].dim_value != 1


def _extend(value: Any) -> None:
    shape = value.type.tensor_type.shape
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in shape.dim]
    del shape.dim[:]
    shape.dim.add().dim_value = 1
    shape.dim.extend(dims)
