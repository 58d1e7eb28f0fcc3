"""The native API, `/api/v1`: a router for each kind of thing."""

from gateway.api import dead, events, jobs, machines, pipelines, results, tus

routers = (jobs.router, events.router, results.router, pipelines.router, dead.router, machines.router, tus.router)
