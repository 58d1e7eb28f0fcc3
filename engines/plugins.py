"""What a pipeline needs of installed packages. They decide its answers, so their versions are part of its revision."""

from collections.abc import Collection, Iterator

from pydantic import ValidationError

from engines.registry import exists, plugin
from schemas.errors import PipelineError, PluginMissing, UsageError
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec


def plugins_of(spec: PipelineSpec, models: Collection[ModelSpec]) -> dict[str, str]:
    """`"operators/gain"` -> `"package version"` of each class that rigflow itself does not have; sorted.

    `models`: the cards of the pipeline's models. Raises PipelineError or ModelError for a name that is not there.
    """
    found = {f"{group}/{name}": plugin(group, name) for group, name in sorted(set(_names(spec, models)))}
    return {key: each.release for key, each in found.items() if each is not None}


UPGRADE = "upgrade rigflow here if another version published it, or publish it again"


def check_plugins(spec: PipelineSpec) -> None:
    """Raise PluginMissing unless the classes that a published pipeline needs are here.

    Those of packages must be of its versions; one of rigflow's own may be one of a later version.
    """
    for group, name in _names(spec, ()):
        if f"{group}/{name}" not in spec.plugins and not exists(group, name):
            raise PluginMissing(f"pipeline {spec.name} needs {group}/{name}, which is not in this rigflow", UPGRADE)
    for key, release in spec.plugins.items():
        if found := _other_than(key, release):
            what = f"pipeline {spec.name} needs {key} of {release}, and {found}"
            raise PluginMissing(what, "install that version and start the worker again, or publish the pipeline again")


def of_this_version(error: PipelineError) -> PipelineError | PluginMissing:
    """Return why a published pipeline cannot run here; PluginMissing where it has an option that is not known here.

    Its publisher knew the option, so a worker of the publisher's version does, too.
    """
    return PluginMissing(error.what, UPGRADE) if unknown_field(error.__cause__) else error


def unknown_field(error: BaseException | None) -> str:
    """Return the path of a field that is refused because it is not known; "" where that is not the only reason."""
    if not isinstance(error, ValidationError):
        return ""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return ".".join(map(str, found[0]["loc"])) if all(each["type"] == "extra_forbidden" for each in found) else ""


def _other_than(key: str, release: str) -> str:
    """Return what is installed here instead of a class of that release, in words; empty if that release is here."""
    group, _, name = key.partition("/")
    try:
        if not exists(group, name):
            return "it is not installed here"
        here = plugin(group, name)
    except UsageError as error:
        return error.what
    if here is None:
        return "rigflow has one of its own here"
    return "" if here.release == release else f"here is that of {here.release}"


def _names(spec: PipelineSpec, models: Collection[ModelSpec]) -> Iterator[tuple[str, str]]:
    """The group and the name of each class that a pipeline and its models name."""
    yield from (("media", kind) for kind in spec.media)
    yield from (("operators", stage.kind) for stage in spec.operators)
    yield "formats", spec.encode.format
    yield from (("backends", model.backend) for model in models if model.backend)
    for head in (head for model in models for head in model.heads):
        yield "heads", head.kind
        if isinstance(decoder := head.options.get("decoder"), str):
            yield "decoders", decoder
