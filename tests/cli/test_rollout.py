"""`sublet rollout`, from a bucket to a bucket, with nobody's credentials but the caller's own."""

import json

import pytest
import torch

from sublet.names import ModelName
from sublet.rows import RowFormat, check_rows
from sublet_trainer.catalogue.base_models import prepare
from sublet_trainer.models.adapter import LoraModel


@pytest.fixture
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    prepare("tiny-random", folder)
    return folder / "tiny-random"


@pytest.fixture
def bucket(cloud, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.addresses.storage)
    return cloud.bucket()


def test_answers_of_an_adapter_in_a_bucket_become_rows_in_a_bucket(said, base, bucket, tmp_path):
    model = LoraModel(base, rank=4, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    for name, content in model.each_file(ModelName.parse("accounts/fireworks/models/tiny-random")):
        bucket.blob(f"models/m/epoch-1/{name}").upload_from_string(bytes(content))
    prompts, url = tmp_path / "prompts.jsonl", f"gs://{bucket.name}/rl/round-1.jsonl"
    lines = [{"messages": [{"role": "user", "content": f"{n}?"}], "n": n} for n in range(3)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "ours.py").write_text("def reward(prompt, answer):\n    return prompt['n'] / 8\n")
    words = ["rollout", "--base-model", base, "--prompts", prompts, "--reward", "ours:reward"]
    few = ["--samples", 2, "--max-new-tokens", 4, "--seed", 3, "-o", "json"]
    adapter = ["--adapter", f"gs://{bucket.name}/models/m/epoch-1/"]
    done = said(*words, *adapter, "--to", url, *few)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["externalUrl"], printed["prompts"], printed["samples"]) == (url, 3, 6)
    assert printed["rewards"]["score"]["mean"] == pytest.approx(1 / 8)
    report = check_rows([bucket.blob("rl/round-1.jsonl").download_as_bytes()])
    assert (report.format, report.num_rows, report.num_problems) == (RowFormat.RL, 3, 0)


def test_a_users_file_is_never_overwritten_and_an_empty_folder_is_no_adapter(bucket, tmp_path):
    from sublet.errors import AlreadyExists, NotFound
    from sublet.gcp.own_bucket import OwnBucket

    url, file = f"gs://{bucket.name}/rl/rows.jsonl", tmp_path / "rows.jsonl"
    file.write_text("first")
    OwnBucket().put(url, file)
    file.write_text("second")
    with pytest.raises(AlreadyExists, match="choose another name"):
        OwnBucket().put(url, file)
    assert bucket.blob("rl/rows.jsonl").download_as_text() == "first"
    with pytest.raises(NotFound, match="holds nothing"):
        OwnBucket().fetch_folder(f"gs://{bucket.name}/models/none/", tmp_path)


def test_what_goes_wrong_in_the_users_function_is_told_and_nothing_is_written(
    said, base, bucket, tmp_path, capfd
):
    """One process more, but the only place where its exit code and ours meet."""
    (tmp_path / "p.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}]}\n')
    url = f"gs://{bucket.name}/rl/never.jsonl"
    words = ["rollout", "--base-model", base, "--prompts", tmp_path / "p.jsonl"]
    done = said(*words, "--reward", "nowhere:reward", "--to", url)
    assert done.exit_code == 1
    assert "No module named 'nowhere'" in capfd.readouterr().err
    assert not bucket.blob("rl/never.jsonl").exists()
