"""What Google's client has no words for is said in plain HTTP."""

import pytest
import requests


class PlainHttp:
    """Requests to the storage API's paths, without a library that knows them."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def __call__(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, f"{self.base_url}{path}", timeout=30, **options)


@pytest.fixture
def http(cloud) -> PlainHttp:
    return PlainHttp(cloud.addresses.storage)


@pytest.fixture
def subscribed(cloud):
    """A topic that Cloud Storage may publish to, and a subscription that shows what it did."""
    topic = f"projects/platform-project/topics/{cloud.name('topic')}"
    subscription = topic.replace("topics", "subscriptions")

    def prepare(inside):
        inside.pubsub.ensure_topic(topic)
        inside.pubsub.ensure_subscription(subscription, topic)
        agent = inside.projects.storage_agent("customer-project")
        inside.iam.policies.grant(topic, "roles/pubsub.publisher", f"serviceAccount:{agent}")

    cloud.do(prepare)
    return topic.rpartition("/")[2], subscription
