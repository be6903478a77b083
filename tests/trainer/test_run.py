"""A whole attempt, from the claim to the ending, against the twin of the remote side."""

import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from xml.etree import ElementTree as ET

import pytest
import torch
from references import AutoModelForCausalLM, AutoTokenizer, PeftModel
from trainer_world import PREFIX, chat, jsonl

from sublet_trainer.leased import storage


def only_ending(world):
    (ending,) = world.endings
    return ending


# --- what is written ------------------------------------------------------------------------------


def test_the_adapter_loads_with_peft_as_it_lies_in_the_bucket(world, models, tmp_path):
    assert world.train() == 0
    world.download(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(models / "tiny-random")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template
    ids = tokenizer("What is 3?", return_tensors="pt")
    before = base(**ids).logits
    tuned = PeftModel.from_pretrained(base, tmp_path)
    assert not torch.equal(tuned(**ids).logits, before)
    config = json.loads((tmp_path / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "accounts/fireworks/models/tiny-random"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["modules_to_save"] is None


def test_the_manifest_is_written_last_and_names_every_file_as_the_server_has_it(world):
    assert world.train() == 0
    assert world.created[-1] == f"{PREFIX}manifest.json"
    files = {one["name"]: one for one in world.manifest["files"]}
    folder = world.manifest["adapter"]["folder"]
    assert sorted(folder + name for name in files) == sorted(world.created[:-1])
    for name, said in files.items():
        assert said["generation"] == str(world.live[folder + name])
        assert said["size_bytes"] == len(world.content(f"epoch-1/{name}"))


def test_the_manifest_says_what_was_trained_on_what_and_with_what(world, models):
    world.settings = type(world.settings)(batch_size=300, epochs=2, max_context_length=60)
    world.put("in/rows.jsonl", jsonl([chat(f"{n}?", "yes " * n) for n in range(3, 12)]))
    assert world.train() == 0
    manifest = world.manifest
    assert manifest["dataset"]["object"]["generation"] == str(world.reads.generation)
    assert manifest["dataset"]["rows"]["num_rows"] == 9
    assert manifest["dataset"]["rows"]["num_truncated"] == 2
    assert manifest["base_model"]["sha256"] in (models / "tiny-random/SHA256").read_text()
    assert manifest["settings"]["max_context_length"] == 60
    assert manifest["software"]["torch"] == version("torch")
    assert manifest["is_compiled"] is False
    assert manifest["trained"]["steps"] == manifest["last_step"]["step"]
    metrics = world.content("epoch-1/metrics.jsonl").splitlines()
    assert json.loads(metrics[-1]) == manifest["last_step"]


def test_training_lowers_the_loss_and_heartbeats_tell_of_it(world):
    assert world.train() == 0
    metrics = [json.loads(one) for one in world.content("epoch-1/metrics.jsonl").splitlines()]
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 1
    last = world.heartbeats[-1]
    assert (last.progress.step, last.progress.num_steps) == (len(metrics), len(metrics))
    assert last.progress.loss == metrics[-1]["loss"]
    assert last.is_writing_results
    assert only_ending(world).progress == last.progress


def test_the_receipt_counts_every_byte_of_the_dataset_that_was_read(world):
    assert world.train() == 0
    assert only_ending(world).bytes_read == world.size_bytes


# --- the card and the plot ------------------------------------------------------------------------


def test_the_model_card_says_what_was_trained_on_what_and_quotes_no_row(world):
    world.settings = replace(world.settings, lora_rank=32, lora_dropout=0.1)
    assert world.train() == 0
    card = world.content("epoch-1/README.md").decode()
    _, front_matter, body = card.split("---\n", 2)
    assert "base_model: accounts/fireworks/models/tiny-random\n" in front_matter
    assert "library_name: peft\n" in front_matter
    assert f"`gs://acme-data/in/rows.jsonl#{world.reads.generation}`" in body
    assert "24 rows, of which 0 were cut" in body
    assert f"| loss of the last step | {world.manifest['last_step']['loss']:.4f} |" in body
    assert "| lora_dropout | 0.1 |" in body
    assert "--max-lora-rank 32" in body
    assert "What is" not in card
    assert "![Loss by step](loss.svg)" in body


@pytest.mark.parametrize(("rank", "said"), [(16, []), (17, ["32"]), (33, ["64"]), (64, ["64"])])
def test_the_card_names_a_max_lora_rank_that_vllm_can_be_started_with(world, rank, said):
    """It takes none between these, and needs none up to 16."""
    world.settings = replace(world.settings, lora_rank=rank, epochs=1)
    assert world.train() == 0
    card = world.content("epoch-1/README.md").decode()
    assert re.findall(r"--max-lora-rank (\d+)", card) == said


def test_a_dora_adapters_card_says_that_vllm_does_not_load_it(world):
    world.settings = replace(world.settings, use_dora=True, epochs=1)
    assert world.train() == 0
    assert "which vLLM does not load" in world.content("epoch-1/README.md").decode()


def test_the_loss_plot_is_an_image_of_every_step(world):
    assert world.train() == 0
    plot = ET.fromstring(world.content("epoch-1/loss.svg"))  # noqa: S314  what we wrote ourselves
    (line,) = plot.findall("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    losses = [
        json.loads(one)["loss"] for one in world.content("epoch-1/metrics.jsonl").splitlines()
    ]
    assert len(points) == len(losses)
    lowest_on_the_page = max(range(len(points)), key=lambda place: points[place][1])
    assert lowest_on_the_page == losses.index(min(losses))


# --- rows that are too long -----------------------------------------------------------------------


@pytest.mark.parametrize(("drops", "counted"), [(False, "num_truncated"), (True, "num_dropped")])
def test_rows_that_are_too_long_are_cut_or_dropped_as_set_and_counted(world, drops, counted):
    world.settings = replace(world.settings, max_context_length=60, drops_long_rows=drops)
    world.put("in/rows.jsonl", jsonl([chat(f"{n}?", "yes " * n) for n in range(3, 12)]))
    assert world.train() == 0
    rows = world.manifest["dataset"]["rows"]
    long = {"num_truncated": 0, "num_dropped": 0, counted: 2}
    assert rows == rows | {"num_rows": 9, **long}


def test_rows_that_are_all_too_long_fail_the_job_and_say_so(world):
    world.settings = replace(world.settings, max_context_length=16, drops_long_rows=True)
    assert world.train() == 0
    assert only_ending(world).code == "INVALID_ARGUMENT"
    assert "24 of 24 rows were dropped as longer than 16 tokens" in only_ending(world).message


# --- training an adapter further ------------------------------------------------------------------


def test_an_adapter_is_trained_further_from_where_it_was(world, new_world):
    assert world.train() == 0
    further = new_world(world.models)
    further.put("out/job-0/adapter_model.safetensors", world.adapter())
    further.starts_from = further.pinned("out/job-0/adapter_model.safetensors")
    further.base_sha256 = only_ending(world).adapter.base_sha256
    assert further.train() == 0
    assert further.losses()[0] < world.losses()[0] - 1  # it goes on, and does not begin anew
    assert further.manifest["started_from"]["weights"]["version"]["generation"] == str(
        further.starts_from.version.generation
    )
    expected = further.size_bytes + further.starts_from.size_bytes
    assert only_ending(further).bytes_read == expected
    written = only_ending(world).adapter.weights
    assert written.version.url == "gs://acme-data/out/job-1/epoch-1/adapter_model.safetensors"
    assert written.size_bytes == len(world.adapter())


def test_an_adapter_is_not_trained_further_around_other_weights_than_its_own(world):
    """The operator put another model under the same name."""
    world.put("out/job-0/adapter_model.safetensors", b"tensors")
    world.starts_from = world.pinned("out/job-0/adapter_model.safetensors")
    world.base_sha256 = "0" * 64
    assert world.train() == 0
    assert only_ending(world).code == "FAILED_PRECONDITION"
    assert f"expected {'0' * 64}" in only_ending(world).message


def test_an_adapter_that_is_gone_fails_the_job_before_a_row_is_read(world, monkeypatch):
    monkeypatch.setattr(storage, "REFUSAL_PAUSES_S", (0, 0))
    world.put("out/job-0/adapter_model.safetensors", b"tensors")
    world.starts_from = world.pinned("out/job-0/adapter_model.safetensors")
    world.put("out/job-0/adapter_model.safetensors", b"overwritten")
    assert world.train() == 0
    assert not only_ending(world).is_success
    assert "job-0/adapter_model.safetensors generation" in only_ending(world).message
    assert "overwritten or deleted" in only_ending(world).message
    assert world.reads_of_dataset == []


# --- the pinned generation ------------------------------------------------------------------------


def overwrite_before_the_first_read(world, fault):
    fault("GET", "in%2Frows", before=lambda: world.put("in/rows.jsonl", jsonl([chat("a", "b")])))


def test_the_registered_generation_is_trained_on_though_the_object_is_overwritten(world, fault):
    world.keeps_versions = True
    overwrite_before_the_first_read(world, fault)
    assert world.train() == 0
    assert world.manifest["dataset"]["rows"]["num_rows"] == 24


def test_a_generation_that_is_gone_fails_the_job_and_says_why(world, fault):
    overwrite_before_the_first_read(world, fault)
    assert world.train() == 0
    ending = only_ending(world)
    assert (ending.is_success, ending.code) == (False, "NOT_FOUND")
    assert f"generation {world.reads.generation} is gone" in ending.message
    assert "turn on object versioning" in ending.message
    assert world.created == []


# --- what cannot be mended ------------------------------------------------------------------------


def test_a_bad_row_is_named_by_its_line_and_never_quoted(world, capfd):
    bad = {"messages": [{"role": "tyrant", "content": "TOP SECRET"}]}
    world.put("in/rows.jsonl", jsonl([*[chat("a", "b")] * 6, bad]))
    assert world.train() == 0
    ending = only_ending(world)
    assert ending.code == "INVALID_ARGUMENT"
    assert "gs://acme-data/in/rows.jsonl line 7: role is not one of" in ending.message
    written = "".join(capfd.readouterr())
    assert "TOP SECRET" not in ending.message + written
    assert world.created == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "none of 0 rows has a token to learn"),
        (b"\n\n\n", "none of 0 rows has a token to learn"),
        (b"\x00\xff\xfe garbage", "line 1"),
        (
            jsonl([chat("a", "b"), {"prompt": "a", "completion": "b"}]),
            "line 2: is a COMPLETION row",
        ),
    ],
    ids=["empty", "blank", "garbage", "mixed"],
)
def test_garbage_fails_the_job_not_the_process(world, content, reason):
    world.put("in/rows.jsonl", content)
    assert world.train() == 0
    assert only_ending(world).code == "INVALID_ARGUMENT"
    assert reason in only_ending(world).message


def test_a_base_model_that_is_not_there_fails_the_job(world):
    world.base_model = "gpt-9"
    assert world.train() == 0
    assert only_ending(world).code == "NOT_FOUND"
    assert "gpt-9 holds no base model" in only_ending(world).message
    assert world.reads_of_dataset == []


def test_a_grant_that_was_removed_fails_the_job_after_fresh_tokens_were_tried(
    world, fault, monkeypatch
):
    monkeypatch.setattr(storage, "REFUSAL_PAUSES_S", (0, 0))
    fault("GET", "in%2Frows", status=403, times=9)
    assert world.train() == 0
    assert only_ending(world).code == "PERMISSION_DENIED"
    assert "grant roles/storage.objectViewer again" in only_ending(world).message
    assert len(world.tokens) == 3
    assert len(world.reads_of_dataset) == 3


def test_an_unexpected_failure_says_its_type_and_place_and_nothing_else(world, tmp_path, capfd):
    shutil.copytree(world.models, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tiny-random/config.json").write_text('{"model_type": "TOP SECRET"}')
    world.models = tmp_path
    assert world.train() == 0
    ending = only_ending(world)
    assert ending.code == "INTERNAL"
    assert "failed with ValueError at others.py:" in ending.message
    assert "TOP SECRET" not in ending.message + "".join(capfd.readouterr())


def test_logs_are_json_lines_without_tokens_or_rows(world, capfd):
    assert world.train() == 0
    lines = capfd.readouterr().out.splitlines()
    assert all({"severity", "message"} <= json.loads(line).keys() for line in lines)
    text = "".join(lines)
    assert not [secret for secret in (*world.tokens, *world.identities) if secret in text]
    assert "What is" not in text


# --- several attempts -----------------------------------------------------------------------------


def test_a_manifest_that_stands_is_reported_without_training_again(world):
    assert world.train() == 0
    world.is_over, first = False, world.endings.pop()
    num_created, num_reads = len(world.created), len(world.reads_of_dataset)
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="1") == 0
    assert only_ending(world).adapter == first.adapter
    assert (len(world.created), len(world.reads_of_dataset)) == (num_created, num_reads)


def test_of_two_attempts_that_finish_together_the_first_manifest_wins(world, fault):
    assert world.train() == 0
    other = world.content("manifest.json")
    world.is_over = False
    world.endings.clear()
    del world.objects[f"{PREFIX}manifest.json"], world.live[f"{PREFIX}manifest.json"]

    def other_writes_first():
        if len([one for one in world.created if "epoch-2" in one]) == 7:
            world.put(f"{PREFIX}manifest.json", other)

    fault("POST", "uploadType=multipart", before=other_writes_first, times=8)
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="1") == 0
    assert only_ending(world).adapter.folder == f"{PREFIX}epoch-1/"
    assert world.content("manifest.json") == other
