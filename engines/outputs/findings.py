"""What to draw on each picture of a part, for `annotated`."""

from collections.abc import Iterator, Mapping

import numpy as np

from engines.outputs.base import Labels, check_rows, is_output, row_of
from engines.outputs.objects import objects_of, source_sizes
from engines.outputs.overlay import Finding, Wanted
from engines.part import Part, Value
from schemas.errors import PipelineError

FORMAT = "annotated"
_OF_PICTURES = ("mask", "classes", "tags", "scores")


def findings_of(part: Part, labels: Labels, wanted: Wanted) -> Iterator[Finding]:
    """Yield what to draw on the picture of each window of a part. Raises PipelineError for arrays of another form."""
    part = found_in(part)
    held: Mapping[str, Value] = part.arrays
    objects = objects_of(part, FORMAT) if "boxes" in held else iter([None] * len(part.meta.pts))
    whole = {name: held[name] for name in _OF_PICTURES if name in held}
    for name, array in whole.items():
        check_rows(name, array, len(part.meta.pts))
    for number, (size, found) in enumerate(zip(source_sizes(part), objects, strict=True)):
        rows = {name: row_of(array, number) for name, array in whole.items()}
        if "mask" in rows and (rows["mask"].ndim != 2 or rows["mask"].dtype != np.uint8):
            raise PipelineError("`mask` is no uint8 [W, H, W']", f"format {FORMAT} takes a class for each pixel")
        yield Finding(size, found, rows, labels, wanted)


def found_in(part: Part) -> Part:
    """Return a part with the arrays of models alone, on the host."""
    return part.with_arrays({name: each for name, each in part.arrays.items() if is_output(name)}).on_host()
