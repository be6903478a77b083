"""google.iam.v1.IAMPolicy, for gRPC and REST: requests in, one call, answers out."""

from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

from sublet.errors import Conflict, FailedPrecondition
from sublet.local.grpc_calls import Proto
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.guard import Guard
from sublet.local.pubsub.methods import Unary
from sublet.local.pubsub.names import collection_of, parse_resource
from sublet.local.pubsub.resources import Snapshot, Subscription, Topic
from sublet.local.pubsub.wire import policy_from_proto, policy_to_proto


class IamPolicyApi:
    """
    Policies of topics, subscriptions and snapshots.

    Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._guard = Guard(pubsub.iam)

    def methods(self) -> dict[str, Unary]:
        return {
            "GetIamPolicy": Unary(iam_policy_pb2.GetIamPolicyRequest, self.get_policy),
            "SetIamPolicy": Unary(iam_policy_pb2.SetIamPolicyRequest, self.set_policy),
            "TestIamPermissions": Unary(
                iam_policy_pb2.TestIamPermissionsRequest, self.test_permissions
            ),
        }

    def get_policy(self, caller: Caller, request: Proto) -> Proto:
        name = parse_resource(request.resource)
        self._guard.check(caller, "getIamPolicy", name)
        self._verify_exists(name)
        return policy_to_proto(
            self._pubsub.iam.policies.get(name), request.options.requested_policy_version
        )

    def set_policy(self, caller: Caller, request: Proto) -> Proto:
        name = parse_resource(request.resource)
        self._guard.check(caller, "setIamPolicy", name)
        self._verify_exists(name)
        policy = policy_from_proto(request.policy)
        try:
            kept = self._pubsub.iam.policies.set(name, policy, wrote_version=policy.version)
        except FailedPrecondition as stale:
            # This API answers ABORTED to a stale etag, which clients take for "read it again".
            raise Conflict(str(stale)) from None
        return policy_to_proto(kept, policy.version)

    def test_permissions(self, caller: Caller, request: Proto) -> Proto:
        name = parse_resource(request.resource)
        return iam_policy_pb2.TestIamPermissionsResponse(
            permissions=self._guard.permitted(caller, list(request.permissions), name)
        )

    def _verify_exists(self, name: str) -> None:
        catalogue = self._pubsub.catalogue
        match collection_of(name):
            case Topic.collection:
                catalogue.get(Topic, name)
            case Subscription.collection:
                catalogue.get(Subscription, name)
            case _:
                catalogue.get(Snapshot, name)
