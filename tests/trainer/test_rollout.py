"""Drawing answers, scoring them, and writing the rows that a reinforcement job trains on."""

import json
import sys
from pathlib import Path

import pytest
import torch
from trainer_steps import documents_of
from trainer_world import chat

from sublet.errors import InvalidRequest
from sublet.names import ModelName
from sublet.rows import RowFormat, check_rows, parse_row
from sublet_trainer import rollout
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.conversations import ChatTemplate
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.data.packing import pack
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.llama import Memory
from sublet_trainer.models.sampling import Sampler

CPU = torch.device("cpu")
PROMPT = [1, 40, 41, 42, 2, 1, 50]
REWARDS = """
def seen(prompt, answer):
    assert answer["role"] == "assistant" and answer["finish_reason"] in ("stop", "length")
    return {"length": len(answer["content"]), "wanted": float(prompt["wanted"])}

def none(prompt, answer):
    return float("nan")
"""


@pytest.fixture(scope="module")
def tokenizer(folder):
    return BaseTokenizer.load(folder)


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """One that changes what is said."""
    model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
    torch.manual_seed(1)
    for parameter in model.parameters().values():
        torch.nn.init.normal_(parameter, std=0.2)
    made = tmp_path_factory.mktemp("adapter")
    for name, content in model.each_file(ModelName.parse("accounts/fireworks/models/tiny-random")):
        (made / name).write_bytes(content)
    return made


@pytest.fixture
def draw(folder, tokenizer):
    def draws(adapter=None, seed=(0,), **manner):
        sampler = Sampler(folder, adapter, end_id=tokenizer.end_id)
        manner = {"number": 4, "max_new_tokens": 12, "temperature": 1.0, **manner}
        return sampler.draw(PROMPT, seed=seed, **manner)

    return draws


def test_remembering_a_sequence_gives_the_numbers_of_reading_it_anew(folder, adapter):
    """For each of several sequences that begin alike and go on apart."""
    model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
    model.continue_from((adapter / "adapter_model.safetensors").read_bytes())
    torch.manual_seed(2)
    further = torch.randint(3, 200, (3, 5))
    with torch.no_grad():
        memory = Memory(model.base, limit=20)
        remembered = [model.base.next_hidden(torch.tensor([PROMPT]), memory).expand(3, -1)]
        memory.repeat(3)
        remembered += [model.base.next_hidden(one, memory) for one in further.T[:, :, None]]
    told = torch.stack(remembered, dim=1) @ model.base.head_VD.T
    expected = model.base.head_VD
    for sequence, logits in zip(further, told, strict=True):
        ids = torch.cat([torch.tensor(PROMPT), sequence])
        with torch.no_grad():
            hidden = model.base.hidden(whole_row(ids), recomputes=False)
        torch.testing.assert_close(logits, (hidden @ expected.T)[len(PROMPT) - 1 :])


def whole_row(ids):
    """A row of all of them: the one more is what the last is there to predict."""
    from sublet_trainer.data.documents import Document

    ids = torch.cat([ids, ids[-1:]])
    one = Document(ids.int().numpy(), (torch.arange(len(ids)) > 0).numpy(), 1.0, is_truncated=False)
    (row,) = pack([one], capacity=1000, device=CPU)
    return row


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_model_says(folder, draw, temperature):
    """Of 20,000 first tokens, the likeliest ones within four standard errors."""
    number = 20_000
    drawn = draw(number=number, max_new_tokens=1, temperature=temperature)
    model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
    with torch.no_grad():
        hidden = model.base.hidden(whole_row(torch.tensor(PROMPT)), recomputes=False)
    chances = torch.softmax((hidden[-1] @ model.base.head_VD.T) / temperature, dim=0)
    came = torch.bincount(torch.tensor([*(i for one in drawn for i in one.ids)]), minlength=259)
    likeliest = chances.topk(5)
    for chance, token in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True):
        error = (chance * (1 - chance) / number) ** 0.5
        assert came[token] / number == pytest.approx(chance, abs=4 * error)


def test_equal_seeds_draw_equal_answers_and_others_do_not(draw):
    assert draw(seed=(1, 2)) == draw(seed=(1, 2)) != draw(seed=(2, 1))
    assert len({tuple(one.ids) for one in draw()}) == 4


def test_the_adapter_is_what_answers(draw, adapter):
    assert draw(adapter) != draw()


def test_an_answer_ends_with_the_end_token_or_is_said_to_be_cut_short(draw, tokenizer):
    drawn = draw(number=300, max_new_tokens=6, temperature=3.0)
    finished = [one for one in drawn if one.is_finished]
    assert 0 < len(finished) < 300
    assert all(tokenizer.end_id not in one.ids and len(one.ids) <= 6 for one in drawn)
    assert all(len(one.ids) == 6 for one in drawn if not one.is_finished)


def test_a_prompt_that_leaves_no_room_is_refused(draw):
    with pytest.raises(InvalidRequest, match="leaves 2041 for an answer; got a limit of 4000"):
        draw(max_new_tokens=4000)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Called with rewards:FUNCTION and more options: exit code, rows, and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "our_rewards.py").write_text(REWARDS)

    def runs(prompts, function="seen", *options, few=True):
        lines = "".join(json.dumps(one) + "\n" for one in prompts)
        Path("prompts.jsonl").write_text(lines)
        words = ["--base", str(folder), "--prompts", "prompts.jsonl", "--out", "rows.jsonl"]
        reward = ["--reward", f"our_rewards:{function}"]
        limits = ["--max-new-tokens", "6", *(["--samples", "3"] if few else [])]
        code = rollout.main([*words, *reward, *limits, *options])
        made = Path("rows.jsonl").read_bytes() if code == 0 else b""
        return code, made, capsys.readouterr()

    return runs


def prompt(question, **more):
    return {"messages": chat(question, "")["messages"][:1], **more}


def test_rows_are_those_that_a_job_trains_on_with_the_functions_rewards(run, tokenizer):
    code, rows, printed = run([prompt(f"{n}?", wanted=n) for n in range(3)], "seen", "--seed", "7")
    assert code == 0
    report = check_rows([rows])
    assert (report.format, report.num_rows, report.num_problems) == (RowFormat.RL, 3, 0)
    for number, line in enumerate(rows.splitlines()):
        row = parse_row(line)
        for sample in row.samples:
            words = sample.messages[-1].text
            assert sample.rewards == {"length": len(words), "wanted": float(number)}
            assert sample.messages[0].text == f"{number}?"
    said = json.loads(printed.out)
    assert (said["prompts"], said["samples"]) == (3, 9)
    assert said["rewards"]["wanted"]["mean"] == 1.0


def test_what_is_trained_on_is_the_prompt_that_was_sampled_from(tokenizer, run):
    """The same tokens, to the last of the header."""
    _, rows, _ = run([prompt("q?", wanted=0)])
    row = json.loads(rows)
    for sample in row["samples"]:
        sample["evals"] = {"score": len(sample["messages"][-1]["content"])}
        sample["finish_reason"] = "stop"
    row["samples"][0]["evals"]["score"] = -1
    text = ChatTemplate(tokenizer).asked(parse_row(rows).samples[0].messages[:-1], None)
    asked = tokenizer.backend.encode(text, add_special_tokens=False).ids
    for document in documents_of(Tokeniser(tokenizer, max_tokens=1000), [row]):
        assert document.ids_T[: len(asked)].tolist() == asked
        assert document.is_supervised_T.argmax() == len(asked)


def test_an_answer_of_no_words_is_a_sample_like_any_other(tokenizer):
    samples = [{**chat("q", answer), "score": score} for answer, score in (("", 1.0), ("a", 0.0))]
    silent, _ = documents_of(Tokeniser(tokenizer, max_tokens=1000), [{"samples": samples}])
    assert silent.ids_T[silent.is_supervised_T].tolist() == [tokenizer.end_id]


def test_without_options_eight_answers_are_drawn(run):
    code, rows, _ = run([prompt("q", wanted=0)], "seen", few=False)
    assert code == 0
    assert len(json.loads(rows)["samples"]) == 8


@pytest.mark.parametrize(
    ("prompts", "function", "words"),
    [
        ([prompt("q")], "none", "returned no finite number"),
        ([prompt("q")], "missing", "expected MODULE:FUNCTION"),
        ([{"question": "q"}], "seen", "prompt 1: Object missing required field `messages`"),
    ],
)
def test_what_cannot_be_scored_or_asked_is_told_in_words(run, prompts, function, words):
    code, _, printed = run(prompts, function)
    assert code == 1
    assert words in printed.err
