"""The native API, `/api/v1`: a router for each kind of thing."""

from gateway.api import events, jobs, pipelines, results

routers = (jobs.router, events.router, results.router, pipelines.router)
