"""GET /metrics: the process's metrics, public or for tokens that may read."""

from aiohttp import hdrs, web

from control.access import Access
from control.ports import Exposition, Scope


class MetricsRoute:
    """Serves the exposition. Metrics name no device and no file, so a scraper on loopback needs no token."""

    def __init__(self, access: Access, exposition: Exposition, *, public: bool) -> None:
        self._access = access
        self._exposition = exposition
        self._public = public

    async def scrape(self, request: web.Request) -> web.StreamResponse:
        """200 in the format that suits Accept; 401 or 403 unless public or an operator's read or admin token."""
        if not self._public:
            self._access.require_operator(request, Scope.READ, Scope.ADMIN)
        rendered = self._exposition.render(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(
            body=rendered.body, headers={"Content-Type": rendered.content_type, "Cache-Control": "no-store"}
        )
