"""`rigflow engine export`: a network with its weights, as an ONNX file and its model card."""

from pathlib import Path
from typing import Annotated

import typer

from cli.answers import answers
from cli.options import Json, ends_well
from cli.text import warn
from schemas.errors import ExitCode, UsageError
from schemas.text import shell_word


@ends_well
def export(
    model: Annotated[str, typer.Argument(help="Which network; x3d_s is the one there is.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Its official checkpoint, X3D_S.pyth. Default: random weights.", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the model. Default: where pipelines look for it.", metavar="DIR"),
    ] = None,
    as_json: Json = False,
) -> ExitCode:
    """Make an ONNX file and a model card from official weights.

    Needs torch and pytorchvideo, which come with the extra `export`. Running the model does not.

    Example: rigflow engine export x3d_s --weights X3D_S.pyth
    """
    from engines.models.catalogue import models_folder, save_model
    from engines.models.publishers import EXPORTS

    if model not in EXPORTS:
        raise UsageError(f"no network is called {model}", f"there is {', '.join(EXPORTS)}")
    from engines.models.x3d import export_x3d_s

    folder = out or models_folder()
    spec, body = export_x3d_s(weights)
    if weights is None:
        warn(
            f"RANDOM WEIGHTS: the answers of {model} mean nothing, it is for trials only. For real answers give"
            f" --weights {EXPORTS[model]}"
        )
    path = save_model(folder, spec, body)
    with answers(as_json) as answer:
        for file in (path, path.with_suffix(".toml")):
            answer(file, file=str(file))
    if out is None:
        warn("next: `rigflow run clip-features VIDEO`")
    else:
        pipeline = shell_word(out / "clip-features.toml")
        warn(
            "pipelines find a model beside their file: "
            f"`rigflow pipelines show clip-features > {pipeline}`, then `rigflow run {pipeline} VIDEO`"
        )
    return ExitCode.OK
