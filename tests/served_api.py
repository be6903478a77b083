"""
The control plane over the world in one process, behind a real socket: for whoever is to meet it as
HTTP. One server for the session; each test puts its own world behind it.
"""

import socket
import threading

import uvicorn


class ServedApi:
    def __init__(self) -> None:
        self.app = None
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self._asgi, lifespan="off", interface="asgi3", log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    async def _asgi(self, scope, receive, send):
        await self.app(scope, receive, send)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def variables(self, api_key: str = "key-acme", account_id: str = "acme") -> dict[str, str]:
        return {
            "SUBLET_BASE_URL": self.url,
            "SUBLET_API_KEY": api_key,
            "SUBLET_ACCOUNT_ID": account_id,
        }
