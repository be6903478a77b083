"""
`--dry-run`: the very request that would be sent, printed at the point where it would leave; without
the API key.
"""

import json

import httpx

from sublet.cli.connection import NotSent


class PrintsRequests(httpx.BaseTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        raise NotSent(request.method, str(request.url), json.loads(body) if body else None)
