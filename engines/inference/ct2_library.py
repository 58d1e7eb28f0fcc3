"""What sessions of CTranslate2 share: the library, and a model that is opened from the files of the store."""

from collections.abc import Callable
from typing import Any

from engines.content import ModelFiles
from engines.extras import imported
from engines.inference.reasons import one_line
from engines.scratch import scratch_folder
from engines.speech.network import MAIN_FILE
from schemas.errors import ModelError
from schemas.model import ModelSpec


def library(spec: ModelSpec, extra: str) -> Any:
    """Return the module of the library, which logs nothing: errors come as exceptions. Raises PluginMissing."""
    module = imported("ctranslate2", f"model {spec.name}", extra)
    module.set_log_level(40)
    return module


def opened(
    module: Any, kind: Callable[..., Any], model: ModelFiles, spec: ModelSpec, gpu: int | None, calls: int = 1
) -> Any:
    """Load a model, `kind` being a class of the library, on the GPU of that number or on the CPU.

    A call computes with one thread; `calls` may run at a time. Raises ModelError: the device does not compute in the
    card's precision, or the files are damaged.
    """
    device = "cpu" if gpu is None else "cuda"
    known = module.get_supported_compute_types(device, *(() if gpu is None else (gpu,)))
    if spec.precision not in known:
        what = f"model {spec.name}: this {'CPU' if gpu is None else 'GPU'} does not compute in {spec.precision}"
        raise ModelError(what, f"add it again with --set precision=..., one of {', '.join(sorted(known))}")
    with scratch_folder("ct2") as folder:
        (folder / MAIN_FILE).write_bytes(model.graph)
        for file in model.files:
            if file.name != MAIN_FILE:
                (folder / file.name).symlink_to(model.folder.resolve() / file.sha256)
        try:
            return kind(
                str(folder),
                device=device,
                device_index=gpu or 0,
                compute_type=spec.precision,
                intra_threads=1,
                inter_threads=calls,
            )
        except Exception as error:  # the library raises RuntimeError and ValueError
            raise ModelError(f"model {spec.name} cannot be loaded: {one_line(error)}", "add it again") from error
