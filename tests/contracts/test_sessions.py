"""Requests to Google's APIs: what is tried again, who is sent along, where nobody follows to."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import urllib3
from google.auth.credentials import Credentials

from sublet.errors import TryAgain
from sublet.gcp.answers import translated
from sublet.gcp.sessions import AGAIN, Session


class Renewed(Credentials):
    """Each refresh gives the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.num_refreshed = 0

    def refresh(self, _request) -> None:
        self.num_refreshed += 1
        self.token = f"token-{self.num_refreshed}"


class Server:
    """Answers with the statuses that it was given, the last one for ever."""

    def __init__(self) -> None:
        self.statuses, self.seen, self.connections = [200], [], set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                server.seen.append((self.path, self.headers.get("Authorization"), body))
                server.connections.add(self.client_address)
                status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def test_a_read_that_fails_for_a_passing_reason_is_made_again_and_a_write_is_not(server):
    session = Session(retries=AGAIN)
    for ask, status, num_asked in ((session.get, 200, 2), (session.post, 503, 1)):
        server.statuses, server.seen = [503, 200], []
        assert ask(f"{server.url}/x", timeout=5).status_code == status
        assert len(server.seen) == num_asked


def test_a_token_that_is_refused_is_renewed_once(server):
    server.statuses = [401]
    credentials = Renewed()
    assert Session(credentials).get(server.url, timeout=5).status_code == 401
    assert [token for _, token, _ in server.seen] == ["Bearer token-1", "Bearer token-2"]


def test_nobody_is_followed_to_where_an_answer_points(server):
    server.statuses = [302]
    answer = Session(retries=AGAIN).get(f"{server.url}/here", timeout=5)
    assert answer.status_code == 302
    assert [path for path, _, _ in server.seen] == ["/here"]


def test_all_sessions_share_their_connections_and_none_closes_them(server):
    """google.auth's own for this pool clears it when it is let go, as each lease's session is."""
    for _ in range(3):
        assert Session(Renewed()).get(server.url, params={"a": "b c"}, timeout=5).json() == {}
    assert len(server.connections) == 1
    assert {path for path, _, _ in server.seen} == {"/?a=b+c"}


def test_a_body_is_json_a_form_or_bytes(server):
    session = Session()
    for body in ({"json": {"a": 1}}, {"data": {"a": "b c"}}, {"data": b"\x00"}):
        session.post(server.url, timeout=5, **body)
    assert [body for _, _, body in server.seen] == [b'{"a": 1}', b"a=b+c", b"\x00"]


def test_no_answer_is_worth_another_try():
    with pytest.raises(TryAgain), translated("asking nobody"):
        Session(retries=urllib3.Retry(0)).get("http://127.0.0.1:9/", timeout=1)
