"""In which order documents are trained on, and that going on needs only three numbers."""

import tracemalloc
from itertools import islice
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer_world import jsonl

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.jobs import TrainingSettings
from sublet_trainer.data import blocks, corpus
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.blocks import BlockReader
from sublet_trainer.data.corpus import START, Corpus, cut_evenly
from sublet_trainer.data.documents import Tokeniser

BATCH = 300


def rows(num):
    return [{"prompt": f"{n}:", "completion": "x" * (1 + n * 7 % 40)} for n in range(num)]


@pytest.fixture
def open_corpus(models):
    tokenizer = BaseTokenizer.load(models / "tiny-random")

    def opened(data, *, epochs=2, seed=3, max_tokens=500, reads=None, holds_out=False):
        def read(start, end):
            if reads is not None:
                reads.append((start, end))
            for at in range(start, end, 7):  # lines are cut anywhere
                yield data[at : min(at + 7, end)]

        reader = BlockReader(
            read,
            Tokeniser(tokenizer, max_tokens=max_tokens),
            url="gs://acme/in.jsonl",
            size_bytes=len(data),
            check=lambda: None,
        )
        settings = TrainingSettings(
            epochs=epochs, seed=seed, batch_size=BATCH, eval_auto_carveout=holds_out
        )
        return Corpus(reader, settings, url="gs://acme/in.jsonl", size_bytes=len(data))

    return opened


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 1000)


def contents(steps):
    return [[bytes(one.ids_T.tobytes()) for one in step.documents] for step in steps]


def flat(steps):
    return [document for step in steps for document in step]


def trained(opened):
    opened.survey(num_rows_registered=0)
    return contents(opened.steps(START))


def test_each_epoch_trains_every_document_once_in_another_order(open_corpus):
    opened = open_corpus(jsonl(rows(50)))
    opened.survey(num_rows_registered=50)
    steps = list(opened.steps(START))
    first = flat(contents(step for step in steps if step.epoch <= 1))
    second = flat(contents(step for step in steps if step.epoch > 1))
    assert len(set(first)) == 50
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_same_seed_gives_the_same_order_and_another_seed_another(open_corpus):
    data = jsonl(rows(50))
    assert trained(open_corpus(data)) == trained(open_corpus(data))
    assert trained(open_corpus(data)) != trained(open_corpus(data, seed=4))


def test_the_number_of_steps_is_known_before_the_first(open_corpus):
    opened = open_corpus(jsonl(rows(50)), epochs=3)
    assert opened.survey(num_rows_registered=0) == len(list(opened.steps(START)))


def test_a_small_dataset_is_read_once_for_all_epochs(open_corpus):
    reads, data = [], jsonl(rows(50))
    trained(open_corpus(data, epochs=5, reads=reads))
    assert reads == [(0, len(data))]


@pytest.mark.usefixtures("small_blocks")
def test_a_large_dataset_is_trained_block_by_block_and_still_whole(open_corpus):
    data = jsonl(rows(300))
    opened = open_corpus(data)
    estimate = opened.survey(num_rows_registered=300)
    steps = list(opened.steps(START))
    documents = flat(contents(steps))
    assert len(opened.blocks) > 5
    assert all(data[block.end - 1 : block.end] == b"\n" for block in opened.blocks)
    assert sorted(documents) == sorted(2 * flat(trained(open_corpus(data, epochs=1))))
    assert len(set(documents)) == 300
    assert 0.7 < estimate / len(steps) < 1.4


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num_rows", [50, 300])
def test_resuming_after_any_step_goes_on_as_if_never_stopped(open_corpus, num_rows):
    data = jsonl(rows(num_rows))
    original = open_corpus(data)
    original.survey(num_rows_registered=0)
    steps = list(original.steps(START))
    for done in range(1, len(steps), 3):
        resumed = open_corpus(data)
        resumed.restore(original.blocks, {})
        rest = contents(resumed.steps(steps[done - 1].following))
        assert rest == contents(steps[done:])


@pytest.mark.usefixtures("small_blocks")
def test_reading_through_a_large_dataset_finds_the_last_bad_row_before_any_step(open_corpus):
    opened = open_corpus(jsonl(rows(300)) + b'{"prompt": "secret"}\n')
    with pytest.raises(InvalidRequest, match="line 301") as refusal:
        opened.survey(num_rows_registered=0)
    assert "secret" not in str(refusal.value)


@pytest.mark.usefixtures("small_blocks")
def test_a_row_that_only_its_block_shows_to_be_bad_is_named_by_its_line_in_the_file(open_corpus):
    data = jsonl(rows(300))
    opened = open_corpus(data)
    opened.survey(num_rows_registered=0)
    block = opened.blocks[3]
    spoilt = data[: block.start] + b"?" + data[block.start + 1 :]
    line = data[: block.start].count(b"\n") + 1
    with pytest.raises(InvalidRequest, match=f"line {line}:"):
        open_corpus(spoilt)._reader.load(block)


def test_memory_does_not_grow_with_the_dataset(models, monkeypatch):
    """Blocks of 16 KiB here, of 64 MiB there: a dataset eight times as large needs no more."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 16 * 1024)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 16 * 1024)
    line = jsonl([{"prompt": "What is it?", "completion": "x" * 450}])
    tokeniser = Tokeniser(BaseTokenizer.load(models / "tiny-random"), max_tokens=500)

    def peak(num_rows):
        size_bytes = num_rows * len(line)

        def read(start, end):
            for at in range(start, end, len(line)):
                yield line[: min(len(line), end - at)]

        reader = BlockReader(
            read, tokeniser, url="gs://acme/in.jsonl", size_bytes=size_bytes, check=lambda: None
        )
        settings = TrainingSettings(batch_size=4096)
        opened = Corpus(reader, settings, url="gs://acme/in.jsonl", size_bytes=size_bytes)
        tracemalloc.start()
        opened.survey(num_rows_registered=num_rows)
        num_trained = sum(len(step.documents) for step in opened.steps(START))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert num_trained == num_rows
        return peak_bytes

    peak(50)
    assert peak(800) < 1.3 * peak(100)


@pytest.mark.usefixtures("small_blocks")
def test_a_block_is_let_go_before_the_next_is_read(open_corpus, monkeypatch):
    """Also while a step of it is still being trained."""
    loaded = []
    load = BlockReader.load

    def watched(reader, block):
        assert [one for one in loaded if one() is not None] == []
        found = load(reader, block)
        loaded.append(ref(found._ids_N))
        return found

    monkeypatch.setattr(BlockReader, "load", watched)
    opened = open_corpus(jsonl(rows(300)), epochs=1)
    opened.survey(num_rows_registered=300)
    for step in opened.steps(START):
        assert step.documents
    assert len(loaded) == len(opened.blocks) > 5


def test_rows_without_anything_to_learn_are_passed_over_and_counted(open_corpus):
    hopeless = {"prompt": "y" * 100, "completion": "no room for this"}
    opened = open_corpus(jsonl([*rows(9), hopeless]), max_tokens=100, epochs=1)
    opened.survey(num_rows_registered=10)
    assert len(flat(contents(opened.steps(START)))) == 9
    assert (opened.tally.num_rows, opened.tally.num_truncated) == (10, 1)
    assert opened.tally.num_without_supervised_tokens == 1


def test_a_dataset_without_anything_to_learn_is_refused(open_corpus):
    opened = open_corpus(jsonl([{"prompt": "y" * 100, "completion": "none"}] * 3), max_tokens=50)
    with pytest.raises(InvalidRequest, match="none of 3 rows has a token to learn"):
        opened.survey(num_rows_registered=0)


def test_fewer_rows_than_were_registered_is_an_error_and_not_a_smaller_dataset(open_corpus):
    with pytest.raises(FailedPrecondition, match="has 50 rows; the registration counted 51"):
        open_corpus(jsonl(rows(50))).survey(num_rows_registered=51)


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    batch_size=st.integers(16, 2000),
)
def test_steps_are_even_keep_the_order_and_are_never_empty(lengths, batch_size):
    order = np.arange(len(lengths))
    steps = cut_evenly(order, np.asarray(lengths), batch_size)
    sizes = [sum(lengths[index] for index in step) for step in steps]
    share = sum(lengths) / -(-sum(lengths) // batch_size)
    assert np.concatenate(steps).tolist() == order.tolist()
    assert all(len(step) for step in steps)
    assert all(size < share + max(lengths) + 1 for size in sizes)


def test_a_rows_weight_travels_with_its_document(open_corpus):
    data = jsonl([{"prompt": "a", "completion": "b", "weight": 0.5}, *rows(4)])
    opened = open_corpus(data, epochs=1)
    opened.survey(num_rows_registered=0)
    documents = [one for step in islice(opened.steps(START), 5) for one in step.documents]
    assert sorted(one.weight for one in documents) == [0.5, 1, 1, 1, 1]


# --- held out for evaluation ----------------------------------------------------------------------


def content_of(documents):
    return [one.ids_T.tobytes() for one in documents]


def held_out_and_trained(opened):
    opened.survey(num_rows_registered=0)
    held_out = content_of(opened.held_out())
    return held_out, flat(contents(opened.steps(START)))


def test_what_is_held_out_is_in_no_step_of_any_epoch_and_all_else_is_in_each(open_corpus):
    data = jsonl(rows(50))
    held_out, steps = held_out_and_trained(open_corpus(data, holds_out=True))
    everything = content_of(first_epoch_of(open_corpus(data)))
    assert len(held_out) == 5  # a tenth
    assert sorted([*held_out, *held_out, *steps]) == sorted([*everything, *everything])


def first_epoch_of(opened):
    opened.survey(num_rows_registered=0)
    return [one for step in opened.steps(START) if step.epoch <= 1 for one in step.documents]


@pytest.mark.usefixtures("small_blocks")
def test_of_a_large_dataset_rows_of_the_first_block_are_held_out(open_corpus):
    opened = open_corpus(jsonl(rows(200)), holds_out=True)
    held_out, steps = held_out_and_trained(opened)
    assert len(opened.blocks) > 3
    assert 0 < len(held_out) < 5
    assert len(steps) == 2 * (200 - len(held_out)) and not set(held_out) & set(steps)


def test_which_rows_are_held_out_is_the_seeds_choice(open_corpus):
    data = jsonl(rows(50))
    choices = [
        held_out_and_trained(open_corpus(data, seed=n, holds_out=True))[0] for n in (1, 1, 2)
    ]
    assert choices[0] == choices[1] != choices[2]
