"""A step's documents, dealt out to ranks."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from sublet_trainer.data.corpus import Position, StepDocuments
from sublet_trainer.data.documents import Document
from sublet_trainer.processes.sharing import decode_share, encode_share, shares_of

CPU = torch.device("cpu")


def document(length, line, **more):
    return Document(
        ids_T=np.arange(length, dtype=np.int32) + line,
        is_supervised_T=np.arange(length) > 1,
        weight=1.0,
        is_truncated=False,
        line=line,
        **more,
    )


def step_of(lengths):
    documents = [document(length, line) for line, length in enumerate(lengths, 1)]
    return StepDocuments(documents, Position(0, 0, 1), 0.5)


def dealt(step, num_ranks, capacity=100, at_once=1):
    return shares_of(step, divisor=len, num_ranks=num_ranks, capacity=capacity, at_once=at_once)


def factors_of(share):
    return [factor for _, factors in share.rounds(CPU) for factor in factors]


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_every_document_is_dealt_once_and_every_rank_has_as_many_rows(num_ranks, at_once):
    step = step_of([5, 90, 7, 60, 61, 20, 20, 20, 3])
    shares = dealt(step, num_ranks, at_once=at_once)
    lines = [one.line for share in shares if share.counts for one in share.documents]
    assert sorted(lines) == list(range(1, 10))
    assert len({share.num_rows for share in shares}) == 1
    for share in shares:
        rounds = list(share.rounds(CPU))
        assert all(len(rows) == at_once for rows, _ in rounds[:-1])
        rows = [pair for rows, factors in rounds for pair in zip(rows, factors, strict=True)]
        assert len(rows) == share.num_rows
        assert all(row.num_tokens <= 100 for row, _ in rows)
        counted = sum(row.num_supervised for row, counts in rows if counts)
        assert counted == sum(one.num_supervised for one in share.documents) * share.counts


def test_a_rank_with_fewer_rows_repeats_one_that_does_not_count():
    long, short = dealt(step_of([100, *[10] * 10]), 2, capacity=50)
    assert factors_of(long) == [1.0, 0.0]
    assert factors_of(short) == [1.0, 1.0]


def test_rows_that_run_at_once_have_about_as_many_tokens():
    (share,) = dealt(step_of([400, 90, 70, 60, 60, 50, 40, 30]), 1, capacity=1024, at_once=2)
    ((rows, _),) = share.rounds(CPU)
    assert [row.num_tokens for row in rows] == [399, 400 - 7]


def test_a_step_of_one_document_is_one_row_however_many_could_run():
    (share,) = dealt(step_of([30]), 1, at_once=2)
    assert factors_of(share) == [1.0]


def test_where_even_rows_do_not_fit_they_are_filled_in_order():
    (share,) = dealt(step_of([50, 50, 35, 35, 30]), 1, capacity=100)
    assert [rows[0].num_tokens for rows, _ in share.rounds(CPU)] == [49 + 49, 34 + 34 + 29]


def test_ranks_get_about_as_many_tokens():
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 200, size=64)
    tokens = [
        sum(len(one.ids_T) for one in share.documents)
        for share in dealt(step_of(lengths.tolist()), 4)
    ]
    assert max(tokens) - min(tokens) < 0.05 * sum(tokens)


def test_one_rank_gets_the_documents_as_they_come():
    step = step_of([5, 90, 7, 60])
    (share,) = dealt(step, 1)
    assert share.documents == step.documents


def test_what_is_said_of_the_step_is_said_of_the_whole_step():
    for share in dealt(step_of([5, 90, 7]), 2):
        assert (share.divisor, share.num_tokens, share.num_supervised) == (3, 102, 96)
        assert (share.lines, share.following, share.epoch) == ([1, 2, 3], Position(0, 0, 1), 0.5)


def test_rivals_are_dealt_to_one_rank():
    documents = [document(9 + line, line, has_rival=line % 2 == 1) for line in range(1, 9)]
    for share in dealt(StepDocuments(documents, Position(), 0.5), 3):
        lines = [one.line for one in share.documents]
        assert lines == [line for first in lines[::2] for line in (first, first + 1) if first % 2]


def test_a_share_arrives_as_it_was_sent():
    rich = document(
        4, 3, reward=0.5, advantage=-1.25, sampled_logp_S=np.asarray([-0.5, -2.0], np.float32)
    )
    (sent,) = dealt(StepDocuments([rich], Position(1, 2, 3), 0.25), 1)
    arrived = decode_share(encode_share(sent))
    assert replace(arrived, documents=[]) == replace(sent, documents=[])
    (got,) = arrived.documents
    for field in fields(Document):
        assert np.array_equal(getattr(got, field.name), getattr(rich, field.name)), field.name
        assert type(getattr(got, field.name)) is type(getattr(rich, field.name)), field.name
