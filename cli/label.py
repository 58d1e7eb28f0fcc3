"""`rigflow model label`: makes a model that names what pictures show, by labels in words."""

from pathlib import Path
from typing import Annotated

import typer

from cli.answers import answers
from cli.model_text import kept_text
from cli.options import Json, SettingsFile, ends_well
from schemas.errors import ExitCode, UsageError
from schemas.text import count, size


@ends_well
def label(
    model: Annotated[str, typer.Argument(help="A kept model with a text tower, such as CLIP.", metavar="MODEL")],
    labels: Annotated[Path, typer.Option(help="Text file of the labels, a line each.", metavar="FILE")],
    name: Annotated[str, typer.Option(help="What pipelines call the new model.")],
    template: Annotated[
        list[str] | None,
        typer.Option(help='A sentence for a label, repeat it. Default: "a photo of a {}."', metavar="TEXT"),
    ] = None,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Make a model that names what pictures show (zero-shot).

    The vectors of the labels are computed once, and are part of the new model. It gives the labels with the highest
    scores, and the vector of the picture as before. Workers need no tokenizer for it.

    Example: rigflow model label clip --labels animals.txt --name animals
    """
    import hashlib

    from engines.content import graph_of, size_of
    from engines.models.catalogue import own_model, read_files, travelling
    from engines.models.store import check_name, is_kept, keep, kept_path
    from engines.models.zero_shot import TEMPLATES, label_vectors, labelled

    check_name(name)
    words = _lines(labels)
    vectors = label_vectors(*own_model(model), words, template or TEMPLATES)
    path = kept_path(model)
    made, content = labelled(*read_files(path), name, words, vectors)
    made = made.model_copy(update={"sha256": hashlib.sha256(graph_of(content)).hexdigest()})
    spec, _ = travelling(path, made, content)
    equal = is_kept(made, content)
    keep(made, content)
    of = size(size_of(content))
    about = f"{spec.name}@{spec.version}  {spec.sha256[:16]}  {of}  {count(len(words), 'label')}"
    with answers(as_json) as answer:
        facts = {"name": spec.name, "version": spec.version, "sha256": spec.sha256, "labels": len(words)}
        answer(kept_text(about, equal), **facts, replaced=equal is False)
    return ExitCode.OK


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}", "give a text file with a label in each line") from error
    return [line for line in lines if line]
