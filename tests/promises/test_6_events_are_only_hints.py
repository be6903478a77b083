"""
Promise 6: events may repeat, arrive late, out of order, or be forged; one generation is trained
once.
"""

import json

import grpc
import requests
from google.pubsub_v1 import PublisherClient, PubsubMessage
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from running_stack import NO_ROWS, PLATFORM


def publish(stack, topic: str, attributes: dict[str, str], data: bytes = b"{}") -> None:
    """As whoever may publish to a topic: the message itself can say anything."""
    channel = grpc.insecure_channel(stack.variables["PUBSUB_EMULATOR_HOST"])
    with PublisherClient(transport=PublisherGrpcTransport(channel=channel)) as client:
        message = PubsubMessage(data=data, attributes=attributes)
        client.publish(topic=f"projects/{PLATFORM}/topics/{topic}", messages=[message])


def notification(blob, **changes: str) -> dict[str, str]:
    return {
        "bucketId": blob.bucket.name,
        "objectId": blob.name,
        "objectGeneration": str(blob.generation),
        "eventType": "OBJECT_FINALIZE",
        **changes,
    }


def test_a_generation_that_is_announced_five_times_is_trained_once(stack):
    tenant = stack.tenant()
    blob = tenant.drop()
    topic = f"sublet-objects-{tenant.name}"
    for _ in range(4):
        publish(stack, topic, notification(blob))
    job = tenant.job_of(blob)
    publish(stack, topic, notification(blob))
    publish_request_again(stack, job)
    later = tenant.drop(NO_ROWS, name="data/later.jsonl")
    tenant.dataset_of(later)
    assert [d["externalGeneration"] for d in tenant.datasets].count(str(blob.generation)) == 1
    assert [j["externalGeneration"] for j in tenant.jobs].count(str(blob.generation)) == 1
    _, executions = stack.run_clients()
    started = [
        e for e in executions.list_executions(parent=f"{training_job()}") if runs(e, job["lease"])
    ]
    assert len(started) == 1


def training_job() -> str:
    return f"projects/{PLATFORM}/locations/local1/jobs/sublet-trainer"


def runs(execution, lease: str) -> bool:
    return any(
        v.name == "SUBLET_LEASE" and v.value == lease for v in execution.template.containers[0].env
    )


def publish_request_again(stack, job) -> None:
    fact = {"job": job["name"], "requested_at": job["createTime"]}
    attributes = {"ce-type": "dev.sublet.training.requested.v1", "ce-id": "again"}
    publish(stack, "sublet-training-requested", attributes, json.dumps(fact).encode())


def test_an_announcement_of_another_tenants_object_registers_nothing(stack):
    """
    A topic is writable by whoever may publish to it; what it names is looked up, not believed.
    """
    victim, thief = stack.tenant(watch=None), stack.tenant()
    blob = victim.drop()
    publish(stack, f"sublet-objects-{thief.name}", notification(blob))
    own = thief.drop()
    thief.dataset_of(own)
    assert len(thief.datasets) == 1 and victim.datasets == []


def test_another_tenants_bucket_cannot_be_watched_into_ones_own_account(stack):
    """The confused deputy: the bucket trusts the platform, but not this tenant."""
    victim, thief = stack.tenant(watch=None), stack.tenant(watch=None)
    template = {"baseModel": "accounts/fireworks/models/tiny-random"}
    watch = {"bucket": victim.bucket_name, "prefix": "data/", "trainingTemplate": template}
    thief.post("watches", {"watchId": "theft", "watch": watch})
    blob = victim.drop()
    publish(stack, f"sublet-objects-{thief.name}", notification(blob))
    dataset = thief.dataset_of(blob)
    assert dataset["status"]["code"] == "PERMISSION_DENIED"
    assert thief.jobs == [] and thief.leases == []


def test_a_forged_delivery_is_acknowledged_counted_and_does_nothing(stack):
    tenant = stack.tenant()
    blob = tenant.bucket.blob("data/forged.jsonl")
    url = f"http://127.0.0.1:{stack.ports['register-dataset']}/"
    push = {
        "subscription": f"projects/{PLATFORM}/subscriptions/sublet-objects-{tenant.name}",
        "message": {"attributes": {"eventType": "OBJECT_FINALIZE", "objectGeneration": "1"}},
    }
    before = quarantined(stack)
    for headers in ({}, {"Authorization": "Bearer forged"}, {"Authorization": "Bearer a.b.c"}):
        assert requests.post(url, json=push, headers=headers, timeout=10).status_code == 204
    assert quarantined(stack) == before + 3
    assert tenant.datasets == [] and not blob.exists()


def quarantined(stack) -> int:
    status = json.loads(
        stack.sublet("local", "status", "--data-dir", stack.directory, "-o", "json")
    )
    return sum(q["count"] for q in status["quarantined"] if q["unit"] == "register-dataset")
