"""The native API, `/api/v1`: a router for each kind of thing."""

from gateway.api import (
    changes,
    dead,
    events,
    fleet,
    jobs,
    machines,
    models,
    pipelines,
    readiness,
    results,
    thumbnails,
    tus,
)

_MODULES = (jobs, events, results, thumbnails, changes, tus, pipelines, models, readiness, dead, machines, fleet)
routers = tuple(module.router for module in _MODULES)
