"""For operators and their tools: liveness, readiness, cleanup, and the description of the interface."""

from dataclasses import asdict
from importlib.resources import files as package_files

from aiohttp import web

from control.access import Access
from control.bodies import json_response, read_object
from control.errors import RequestError
from control.ports import CleanupRunner, HealthCheck, Permission
from protocol.errors import ErrorCode

OPENAPI = package_files("control") / "openapi.yaml"


class OperationRoutes:
    """Health, cleanup and the description of the interface."""

    def __init__(self, access: Access, health: HealthCheck, cleaner: CleanupRunner) -> None:
        self._access = access
        self._health = health
        self._cleaner = cleaner
        self._openapi = OPENAPI.read_bytes()

    async def alive(self, _: web.Request) -> web.StreamResponse:
        """200 while the event loop runs."""
        return json_response({"status": "ok"})

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """200 when nothing is wrong, else 503 that names each part and what is wrong with it."""
        problems = await self._health.problems()
        if not problems:
            return json_response({"status": "ready"})
        listed = [{"component": problem.component, "detail": problem.detail} for problem in problems]
        detail = "; ".join(f"{problem.component}: {problem.detail}" for problem in problems)
        raise RequestError(ErrorCode.UNAVAILABLE, f"not ready: {detail}", extra={"problems": listed})

    async def cleanup(self, request: web.Request) -> web.StreamResponse:
        """One cleanup pass of the whole data directory, now; with `dry_run` it only reports what it would do."""
        self._access.require(request, Permission.ADMIN)
        members = await read_object(request, frozenset({"dry_run"}))
        dry_run = members.get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise RequestError(ErrorCode.REQUEST_INVALID, "dry_run: send true or false")
        return json_response(asdict(await self._cleaner.run(dry_run)))

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._openapi, content_type="application/yaml", headers={"Cache-Control": "no-cache"})
