"""Attacks that make one name mean two things."""

import pytest
import requests
from attacks.catalogue import attack

from sublet.datasets import DatasetState
from sublet.errors import InvalidRequest, MalformedEvent
from sublet.events import ObjectFinalized
from sublet.gcp.token_mint import boundary
from sublet.names import ObjectVersion, OutputPrefix, check_object_name, parse_gs_url

CREATE = "storage.objects.create"


@attack(
    8,
    "`tenants/acme` that matches `tenants/acme-evil/` (prefix trick)",
    stopped_by="a prefix ends in `/`; a token names the whole object, not how its name begins",
)
def test_prefix_trick(world, trainer):
    for prefix in ("data", "tenants/acme", ""):
        with pytest.raises(InvalidRequest):
            OutputPrefix(bucket="acme-data", prefix=prefix)
    longer = world.drop(name="data/train.jsonl.bak")
    (token,), prefix = trainer.tokens, world.assignment.training.writes.prefix
    assert world.opens(token, longer) == 403
    beside = f"{prefix.removesuffix('/')}-evil/model"
    assert world.cloud.status_of(token, CREATE, "acme-data", beside) == 403

    assert world.opens(token, world.version) == 200
    assert world.cloud.status_of(token, CREATE, "acme-data", f"{prefix}model") == 200


TWO_MEANINGS = (
    "data/../secret.jsonl",
    "data//x.jsonl",
    "./x.jsonl",
    "data/x.jsonl#123",
    "data/*.jsonl",
    "data/[a].jsonl",
    "data/x\n.jsonl",
    "data/x\0.jsonl",
    "data/x\u202elnosj.jsonl",
    'data/x".jsonl',
    "data/x\\.jsonl",
    "data/\ud800.jsonl",
    "x" * 1025,
)


@attack(
    9,
    "paths and URLs that the checker and the reader understand differently",
    stopped_by="one strict parser, which decodes nothing: what is percent-encoded stays so, "
    "what is composed in two ways is two objects; names with such characters are refused "
    "before any request",
)
def test_path_tricks(world):
    for name in TWO_MEANINGS:
        with pytest.raises(InvalidRequest):
            check_object_name(name)
    for url in ("gs://acme-data", "gs:/acme-data/x", "GS://acme-data/x", "gs://acme-data@evil/x"):
        with pytest.raises(InvalidRequest):
            parse_gs_url(url)
    world.drop(name="data/secret.jsonl")
    event = ObjectFinalized(
        bucket="acme-data", object="data/../secret.jsonl", generation=1, account=world.acme.name
    )
    with pytest.raises(MalformedEvent):
        world.registration.handle(event)

    composed, decomposed = "data/\u00fcbung 1.jsonl", "data/u\u0308bung 1.jsonl"
    encoded = "data/%2e%2e%2fsecret.jsonl"
    for name in (composed, decomposed, encoded):
        version = world.drop(name=name)
        dataset = world.announce(version)
        assert (dataset.state, dataset.object.object) == (DatasetState.READY, name)
        world.advance(minutes=2)


@attack(
    10,
    "a quote in an object's name ends the string in our condition, and what follows is code",
    stopped_by="no name with a quote, a backslash or a control character is accepted, so none "
    "can reach a condition",
)
def test_condition_smuggling(world):
    smuggled = 'data/x" || resource.name.startsWith("projects/_/buckets/acme-data'
    with pytest.raises(InvalidRequest):
        ObjectVersion(bucket="acme-data", object=smuggled, generation=1)

    name = "data/x) || true && (resource.name == y.jsonl"
    version, other = world.drop(name=name), world.drop(name="data/other.jsonl")
    (rule,) = boundary(version, None)["accessBoundary"]["accessBoundaryRules"]
    assert rule["availabilityCondition"]["expression"].count('"') == 2
    assert world.announce(version).state is DatasetState.READY
    world.deliver()
    trainer = world.container()
    trainer.claim()
    (token,) = trainer.tokens
    assert (world.opens(token, version), world.opens(token, other)) == (200, 403)


@attack(
    6,
    "the object is replaced between the check and the training",
    stopped_by="everything reads one pinned generation, and the trainer compares its checksum; "
    "where that generation is gone, nothing is read instead of it",
)
def test_swap_after_check(world, trainer):
    checked = world.version
    poison = world.drop(b'{"prompt": "q", "completion": "poison"}\n' * 9)
    objects = world.open_objects(Held(world.assignment.token))
    assert world.assignment.reads == checked != poison
    with_poison = objects.read(poison, 0, 100)

    size = world.assignment.training.size_bytes
    assert b"poison" in with_poison
    assert b"poison" not in objects.read(checked, 0, size)
    world.cloud.remove(checked)
    url = f"{world.cloud.endpoints.storage}/storage/v1/b/acme-data/o/data%2Ftrain.jsonl"
    answer = requests.get(
        url,
        params={"alt": "media", "generation": str(checked.generation)},
        headers={"Authorization": f"Bearer {trainer.tokens[0]}"},
        timeout=10,
    )
    assert answer.status_code == 404


class Held:
    def __init__(self, token) -> None:
        self._token = token

    def token(self):
        return self._token
