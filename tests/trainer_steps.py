"""A training's steps without what is around them: rows in; losses, gradients and metrics out."""

import json
from dataclasses import replace

import torch

from sublet.jobs import TrainingSettings
from sublet.losses import Loss, LossMethod
from sublet_trainer.data.blocks import BlockReader
from sublet_trainer.data.corpus import START, Corpus
from sublet_trainer.data.packing import pack
from sublet_trainer.objectives.methods import objective_for
from sublet_trainer.processes.cores import Cores
from sublet_trainer.processes.ranks import Alone
from sublet_trainer.training import TrainingState, new_optimiser, row_losses, train

CPU = torch.device("cpu")
ONE_CORE = Cores(1)
GRPO = Loss(method=LossMethod.GRPO)
SETTINGS = TrainingSettings(
    epochs=2, batch_size=400, lora_rank=4, learning_rate=1e-2, weight_decay=0.0, seed=5
)


def corpus_of(tokeniser, rows, loss=GRPO, settings=SETTINGS):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    reader = BlockReader(
        lambda start, end: iter([data[start:end]]),
        tokeniser,
        url="gs://acme/in.jsonl",
        size_bytes=len(data),
        check=lambda: None,
        loss=loss,
    )
    return Corpus(reader, settings, url="gs://acme/in.jsonl", size_bytes=len(data))


def documents_of(tokeniser, rows, loss=GRPO):
    """Of all rows, as one step trains on them."""
    corpus = corpus_of(tokeniser, rows, loss, replace(SETTINGS, batch_size=10**6))
    corpus.survey(num_rows_registered=0)
    return next(corpus.steps(START)).documents


def trained_on(model, tokeniser, rows, *, loss=GRPO, settings=SETTINGS, cores=ONE_CORE):
    corpus = corpus_of(tokeniser, rows, loss, settings)
    state = TrainingState(num_steps=corpus.survey(num_rows_registered=0))
    optimiser = new_optimiser(model, settings)
    take_steps(model, optimiser, corpus, state, settings, objective_for(loss), cores=cores)
    return state.metrics


def take_steps(
    model,
    optimiser,
    corpus,
    state,
    settings,
    objective,
    *,
    ranks=None,
    cores=ONE_CORE,
    after_step=lambda: False,
):
    """From where the state stands to the end of the corpus, or to where `after_step` ends it."""
    train(
        model,
        optimiser,
        corpus.steps(state.position),
        state,
        settings,
        objective,
        ranks=ranks or Alone(),
        cores=cores,
        check=lambda: None,
        after_step=after_step,
    )


def gradient_of(model, row, *, recomputes=False):
    """Of a row's mean loss."""
    loss = -model.log_probs(row, recomputes=recomputes).mean()
    gradients = torch.autograd.grad(loss, [*model.parameters().values()])
    return torch.cat([one.flatten() for one in gradients])


def step_of(model, objective, documents, *, capacity=10_000, cores=ONE_CORE):
    """The loss, its gradient and the metrics of one step."""
    for parameter in model.parameters().values():
        parameter.grad = None
    total, sums = 0.0, {}
    rows = pack(documents, capacity=capacity, device=CPU, at_once=cores.at_once)
    for first in range(0, len(rows), cores.at_once):
        now = rows[first : first + cores.at_once]
        parts = row_losses(model, objective, now, capacity=10_000, cores=cores)
        losses = [part.loss / objective.divisor(documents) for part in parts]
        cores.backward(losses, [*model.parameters().values()])
        total += sum(loss.item() for loss in losses)
        for part in parts:
            sums = {name: sums.get(name, 0.0) + float(number) for name, number in part.sums.items()}
    gradient = torch.cat([one.grad.flatten() for one in model.parameters().values()])
    examples = {document.line for document in documents}
    return total, gradient, objective.metrics(sums, num_examples=len(examples))
