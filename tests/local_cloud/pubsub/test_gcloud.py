"""The gcloud command line, which speaks REST; it needs nothing but the address."""

from local_cloud.gcloud import Gcloud, needs_gcloud
from running_cloud import CUSTOMER


@needs_gcloud
def test_gcloud_makes_publishes_pulls_changes_and_lists(cloud, tmp_path):
    gcloud = Gcloud(tmp_path, pubsub=cloud.serve_rest())
    (topic,) = gcloud.json("pubsub", "topics", "create", "drops")
    assert topic["name"] == f"projects/{CUSTOMER}/topics/drops"
    terms = ("--topic=drops", "--ack-deadline=20", '--message-filter=attributes.kind = "new"')
    gcloud("pubsub", "subscriptions", "create", "register", *terms)
    sent = gcloud.json(
        "pubsub", "topics", "publish", "drops", "--message=new", "--attribute=kind=new"
    )
    (received,) = gcloud.json("pubsub", "subscriptions", "pull", "register", "--auto-ack")
    assert received["message"]["messageId"] == sent["messageIds"][0]
    assert received["message"]["data"] == "bmV3"
    gcloud("pubsub", "subscriptions", "update", "register", "--ack-deadline=30")
    (listed,) = gcloud.json("pubsub", "subscriptions", "list")
    assert listed["name"] == f"projects/{CUSTOMER}/subscriptions/register"
    assert listed["ackDeadlineSeconds"] == 30
    missing = gcloud.refusal("pubsub", "topics", "delete", "none")
    assert "Resource not found (resource=none)" in missing
