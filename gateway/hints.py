"""Hints of errors for callers by HTTP: a route in place of a command, or the operator where only a command helps."""

import re

from schemas.settings import Settings

_ROUTES = (  # a command and its first argument -> the request that does the same; the first that fits
    (r"jobs (?:show|wait) (\S+)", "GET /api/v1/jobs/{}"),
    (r"jobs cancel (\S+)", "POST /api/v1/jobs/{}/cancel"),
    (r"jobs delete (\S+)", "DELETE /api/v1/jobs/{}"),
    (r"jobs list", "GET /api/v1/jobs"),
    (r"results (\S+)", "GET /api/v1/jobs/{}/results"),
    (r"dead show (\d+)", "GET /api/v1/dead-letters/{}"),
    (r"dead retry (\d+)", "POST /api/v1/dead-letters/{}/retry"),
    (r"dead drop (\d+)", "DELETE /api/v1/dead-letters/{}"),
    (r"dead list", "GET /api/v1/dead-letters"),
    (r"status", "GET /api/v1/fleet"),
    (r"pipelines list", "GET /api/v1/pipelines"),
    (r"model list", "GET /api/v1/models"),
    (r"model show (\S+)", "GET /api/v1/models/{}"),
    (r"model add", "POST /api/v1/models?name=NAME"),
    (r"search", "POST /api/v1/search"),
    (r"(?:publish|run)", "POST /api/v1/jobs"),
)
_PARAMETERS = {"--set": "set", "--model": "model", "--stream": "stream", "--name": "name"}
_COMMAND = re.compile(r"`rigflow ([^`]*)`|\brigflow ((?:jobs|dead|model|pipelines) (?:list|show|add)|status)\b")
_OTHERS = re.compile(r"(`(?!rigflow )[^`\s]+ [^`]*`)")  # commands of other programs, as they are
_OPTION = re.compile("|".join(f"`?{option}(?![a-z-])`?" for option in _PARAMETERS))
_SETTINGS = "|".join(name for name in Settings.model_fields if "_" in name)
_OF_OPERATORS = re.compile(rf"`rigflow \w|--[a-z]|RIGFLOW_|\bsettings?\b|pip install|the extra |\b(?:{_SETTINGS})\b")
_BETWEEN = re.compile(r"(; |, or | or (?=raise ))")  # what there is to choose from
_IMPERATIVE = re.compile(
    "(?:add|allow|build|check|choose|delete|drop|give|install|leave|make|name|publish|put|raise|run|see|set|start|stop|"
    "upgrade|use|write) "
)


def for_callers(hint: str) -> str:
    """A hint that names what a caller by HTTP can do; what needs a command line, a setting or a package is for the
    operator of the fleet: `send it again, or ask the operator of the fleet to raise its limits`.
    """
    parts = _OTHERS.split(hint)
    made = "".join(
        part if at % 2 else _OPTION.sub(_parameter, _COMMAND.sub(_route, part)) for at, part in enumerate(parts)
    )
    choices = _BETWEEN.split(made)
    for at, choice in enumerate(choices):
        if at % 2 == 0 and _OF_OPERATORS.search(_OTHERS.sub("", choice)):
            choices[at] = f"ask the operator of the fleet{' to' if _IMPERATIVE.match(choice) else ':'} {choice}"
            break
    return "".join(choices)


def _route(found: re.Match[str]) -> str:
    command = found[1] or found[2]
    matches = ((re.match(rf"{begin}(?![\w-])", command), route) for begin, route in _ROUTES)
    return next((route.format(*match.groups()) for match, route in matches if match), found[0])


def _parameter(found: re.Match[str]) -> str:
    return f"the parameter {_PARAMETERS[found[0].strip('`')]}"
