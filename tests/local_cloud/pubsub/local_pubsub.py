"""
A local Pub/Sub on a thread of its own, and Google's client for it, unmodified. Time is a clock that
tests move.
"""

import asyncio
import socket
import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.buckets import Policy
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.grpc_server import PubSubServer
from sublet.local.pubsub.rest_api import RestApi
from sublet.local.servers import HttpServers

PATIENCE_S = 9
"""Less than the shortest lease: no test passes because one ran out in real time."""


class MovedClock:
    """Real time and what was added to it."""

    def __init__(self):
        self.moved = timedelta(0)

    def now(self):
        return datetime.now(UTC) + self.moved


class LoopThread:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def call(self, function, *args, **kwargs):
        answer = Future()

        def answered():
            try:
                answer.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  it is raised in the test's thread
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(answered)
        return answer.result(PATIENCE_S)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)


class _Authorized(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Puts the token into each call; gRPC sends no call credentials over plain text."""

    def __init__(self, token):
        self._metadata = (("authorization", f"Bearer {token}"),)

    def _with_token(self, details):
        metadata = (*(details.metadata or ()), *self._metadata)
        return details._replace(metadata=metadata)

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with_token(details), request)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(self._with_token(details), requests)


class LocalPubSub:
    """One Pub/Sub, its state in a directory; `restart` keeps the directory and the port."""

    def __init__(self, thread, directory, id_tokens, clock, *, anonymous_is_owner=True):
        self.id_tokens = id_tokens
        self.clock = clock
        self._thread = thread
        self._directory = directory
        self._anonymous_is_owner = anonymous_is_owner
        self._channels = []
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        self._thread.run(self._start())

    async def _start(self):
        self.database = Database(self._directory / "cloud.db")
        self.iam = Iam(self.database, self.clock, anonymous_is_owner=self._anonymous_is_owner)
        self.pubsub = PubSub(self.database, self.clock, self.iam, self.id_tokens)
        self.server = PubSubServer(self.pubsub)
        self.http = None
        self.address = await self.server.start(self.address)

    def stop(self):
        self._thread.run(self._stop())

    async def _stop(self):
        if self.http:
            await self.http.stop()
        await self.server.stop()
        self.database.close()

    def restart(self):
        self.stop()
        self.start()

    def close(self):
        for channel in self._channels:
            channel.close()
        self.stop()

    def call(self, function, *args, **kwargs):
        """Call into the cloud on the thread that owns it."""
        return self._thread.call(function, *args, **kwargs)

    def advance(self, **by):
        self.clock.moved += timedelta(**by)
        self.call(self.pubsub.wake)

    def held(self):
        """How many messages the database has, and how many backlogs they are in, all told."""
        counts = "SELECT (SELECT COUNT(*) FROM pubsub_messages), COUNT(*) FROM pubsub_backlogs"
        return tuple(self.call(self.database.row, counts))

    def serve_rest(self):
        """The base URL of the REST API; it is served when it is first asked for."""
        if self.http is None:
            self.http = HttpServers()
            listener = socket.create_server(("127.0.0.1", 0))
            app = RestApi(self.pubsub).app()
            self.rest_url = "http://" + self._thread.run(self.http.serve(app, listener))
        return self.rest_url

    # --- clients ----------------------------------------------------------------------------------

    def channel(self, token=None):
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 50),
        ]
        channel = grpc.insecure_channel(self.address, options=options)
        self._channels.append(channel)
        return grpc.intercept_channel(channel, _Authorized(token)) if token else channel

    def publisher(self, token=None, **options):
        transport = PublisherGrpcTransport(channel=self.channel(token))
        return pubsub_v1.PublisherClient(transport=transport, **options)

    def subscriber(self, token=None):
        transport = SubscriberGrpcTransport(channel=self.channel(token))
        return pubsub_v1.SubscriberClient(transport=transport)

    # --- identities -------------------------------------------------------------------------------

    def account(self, account_id, project="proj-local"):
        return self.call(self.iam.service_accounts.ensure, project, account_id).email

    def token(self, email):
        return self.call(self.iam.tokens.mint, email, timedelta(hours=1)).secret

    def grant(self, resource, role, email):
        self.call(self.iam.policies.grant, resource, role, f"serviceAccount:{email}")

    def revoke_all(self, resource):
        empty = Policy(version=1, etag="", bindings=())
        self.call(self.iam.policies.set, resource, empty, wrote_version=1)
