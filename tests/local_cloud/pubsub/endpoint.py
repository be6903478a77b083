"""An HTTP server that pushes go to."""

import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local_cloud.pubsub.local_pubsub import PATIENCE_S


class Endpoint:
    """Answers pushes as it is told, and remembers them."""

    def __init__(self):
        self.requests = []
        self.answer = lambda _: 204
        self.in_flight = 0
        self.most_in_flight = 0
        self._changed = threading.Condition()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.receive(self, body)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/push"
        serve = partial(self._server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()

    def receive(self, handler, body):
        request = Request(handler.path, dict(handler.headers.items()), body, time.monotonic())
        with self._changed:
            self.requests.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
        status = self.answer(request)
        with self._changed:
            self.in_flight -= 1
        try:
            handler.send_response(status)
            if status >= 200:
                handler.send_header("Content-Length", "0")
            handler.end_headers()
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, PATIENCE_S), (
                f"{len(self.requests)} pushes came; expected {count}"
            )
            return list(self.requests)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Request:
    def __init__(self, path, headers, body, at):
        self.path = path
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body
        self.at = at
