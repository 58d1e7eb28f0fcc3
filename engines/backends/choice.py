"""Which backend runs a model: the one that its card names, or the one that the worker's settings name."""

from engines.extras import Needs
from engines.ports import Backend, Compiler
from engines.registry import load, names
from schemas.errors import UsageError
from schemas.model import ModelSpec
from schemas.settings import Settings

EVERYWHERE = "onnxruntime"  # runs on every device


def backend_of(card: ModelSpec, settings: Settings) -> Backend:
    """The backend of a model. Raises ModelError where there is none of that name."""
    made: Backend = load("backends", card.backend or settings.backend)(settings)
    return made


def check_backend(card: ModelSpec, settings: Settings) -> None:
    """Raise PluginMissing where the packages of a model's backend cannot be imported; ModelError as `backend_of`."""
    needs = getattr(backend_of(card, settings), "needs", None)
    if isinstance(needs, Needs):
        needs.check(f"model {card.name}")


def compilers(settings: Settings) -> list[Compiler]:
    """The backends that compile engines; those that need no GPU for it come first."""
    made = [load("backends", name)(settings) for name in names("backends")]
    return sorted((each for each in made if isinstance(each, Compiler)), key=lambda each: each.needs_gpu)


def compiler_called(name: str, settings: Settings) -> Compiler:
    """A compiler by name; without a name, the first that is installed, or else the first. Raises UsageError."""
    known = compilers(settings)
    found = [each for each in known if each.name == name or (not name and each.installed())]
    if not found and name:
        raise UsageError(f"no backend {name}", f"there are {', '.join(sorted(each.name for each in known))}")
    return (found or known)[0]
