"""The composition of the control plane: every route, and what surrounds them."""

from dataclasses import dataclass, field

from aiohttp import web

from control.access import Access
from control.download import Delivery, DownloadRoutes
from control.files import FileRoutes, Lookup
from control.metrics import MetricsRoute
from control.middleware import Observer, add_headers, make_middleware
from control.operations import OperationRoutes
from control.ports import Ports
from control.tokens import TokenRoutes

OBSERVER = web.AppKey("observer", Observer)

BODY_BYTES_MAX = 16 * 1024
"""Bodies are a device's name and secret, or one flag."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may choose. `metrics_public`: `/metrics` asks for no token."""

    metrics_public: bool = True
    delivery: Delivery = field(default_factory=Delivery)


def make_app(ports: Ports, options: Options) -> web.Application:
    """The whole control plane over its ports."""
    observer = Observer(ports.clock, ports.http_metrics, ports.log, ports.request_ids)
    app = web.Application(middlewares=[make_middleware(observer)], client_max_size=BODY_BYTES_MAX)
    app[OBSERVER] = observer
    app.on_response_prepare.append(add_headers)
    app.router.add_routes(_routes(ports, options))
    return app


def _routes(ports: Ports, options: Options) -> list[web.RouteDef]:
    access = Access(ports.authenticator)
    lookup = Lookup(access, ports.files)
    tokens = TokenRoutes(ports.token_exchange)
    files = FileRoutes(access, ports.files, ports.uploads, lookup)
    downloads = DownloadRoutes(lookup, ports.contents, ports.request_ids, options.delivery)
    operations = OperationRoutes(access, ports.health, ports.cleaner)
    metrics = MetricsRoute(access, ports.metrics_page, public=options.metrics_public)
    # A name's slashes come as %2F, so it is one segment; aiohttp's own pattern would refuse braces in it.
    named = "/v1/devices/{device:[^/]+}/files/{name:[^/]+}"
    return [
        web.post("/v1/token", tokens.issue),
        web.get("/v1/files", files.list, allow_head=False),
        web.get("/v1/files/{id}", files.status_by_id, allow_head=False),
        web.delete("/v1/files/{id}", files.delete),
        web.get("/v1/files/{id}/content", downloads.by_id),
        web.get(named, files.status_by_name, allow_head=False),
        web.get(f"{named}/content", downloads.by_name),
        web.post("/v1/cleanup", operations.cleanup),
        web.get("/v1/openapi.yaml", operations.openapi, allow_head=False),
        web.get("/healthz", operations.alive),
        web.get("/readyz", operations.ready),
        web.get("/metrics", metrics.scrape, allow_head=False),
    ]
