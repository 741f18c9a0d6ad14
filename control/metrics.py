"""GET /metrics: the process's metrics, public or for tokens that may read."""

from aiohttp import hdrs, web

from control.access import Access
from control.ports import MetricsPage, Permission


class MetricsRoute:
    """Serves the exposition. Metrics name no device and no file, so a scraper on loopback needs no token."""

    def __init__(self, access: Access, page: MetricsPage, *, public: bool) -> None:
        self._access = access
        self._page = page
        self._public = public

    async def scrape(self, request: web.Request) -> web.StreamResponse:
        """200 in the format that suits Accept; 401 or 403 unless public or an operator's read or admin token."""
        if not self._public:
            self._access.require_operator(request, Permission.READ, Permission.ADMIN)
        body, content_type = self._page.render(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
