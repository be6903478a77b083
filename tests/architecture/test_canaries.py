"""The search for secrets that ends each promise test finds one wherever it is."""

from canaries import REWARD_CANARY, ROW_CANARY, spoken_in


def test_a_secret_in_any_place_would_be_found(tmp_path):
    plants = {
        "logs/x.log": b"Bearer ya29.aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "registry.db": b"x" * 9 + b"-----BEGIN RSA PRIVATE KEY-----",
        "storage/blobs/1": b"notes: " + ROW_CANARY.encode(),
        "homes/a/b": str(REWARD_CANARY).encode(),
        "logs/y.log": b"key=the-seal-key",
    }
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "seal-key").write_bytes(b"the-seal-key")
    for name, content in plants.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = spoken_in(tmp_path)
    assert {place for places in found.values() for place in places} == set(plants)


def test_a_dataset_in_the_owners_bucket_may_hold_its_own_rows(tmp_path):
    (tmp_path / "storage" / "blobs").mkdir(parents=True)
    row = b'{"messages": [{"content": "' + ROW_CANARY.encode() + b'"}]}'
    (tmp_path / "storage" / "blobs" / "1").write_bytes(row)
    assert spoken_in(tmp_path) == {}
