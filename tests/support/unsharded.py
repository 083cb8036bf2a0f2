"""The same training without TorchRec's sharding: plain EmbeddingBags, plain optimizers, one process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from configs.schema import RunConfig
from modules.tables import TableSpec, build_tables
from sharding.initialisation import TableInit, initial_block
from tests.support.state import State
from trainer.assembly import build_task
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.opening import open_sources
from trainer.data.reading.order import RowOrder


class PlainTableRule:
    """Row-wise Adagrad, Adagrad or SGD of one table, written out."""

    def __init__(self, spec: TableSpec, weight: nn.Parameter) -> None:
        self.spec, self.weight = spec, weight
        shape = {"rowwise_adagrad": (spec.num_rows,), "adagrad": (spec.num_rows, spec.dim), "sgd": ()}[spec.optimizer]
        self.sum = torch.zeros(shape)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the weight's gradient."""
        spec, gradient = self.spec, self.weight.grad
        assert gradient is not None
        if spec.optimizer == "sgd":
            self.weight -= spec.lr * gradient
        elif spec.optimizer == "adagrad":
            self.sum += gradient.square()
            self.weight -= spec.lr * gradient / (self.sum.sqrt() + spec.eps)
        else:
            self.sum += gradient.square().mean(dim=1)
            self.weight -= spec.lr * gradient / (self.sum.sqrt() + spec.eps)[:, None]
        self.weight.grad = None


@dataclass(frozen=True, kw_only=True)
class PlainTrained:
    """What steps gave."""

    logits: list[np.ndarray]
    losses: list[np.ndarray]
    start: State
    end: State


def train_unsharded(config: RunConfig, num_steps: int) -> PlainTrained:
    """Steps on whole global batches."""
    torch.set_num_threads(1)
    source = open_sources(config.data).train
    built = build_task(config, features=source.features)
    task = built.task
    tables = build_tables(built.specs, device="cpu")
    task.ensemble.tables = tables
    rules = {}
    for spec in built.specs:
        weight = tables.embedding_bags[spec.name].weight
        whole = initial_block(
            TableInit(seed=spec.seed, bound=spec.init_bound),
            first_row=0,
            num_rows=spec.num_rows,
            first_column=0,
            num_columns=spec.dim,
            dim=spec.dim,
        )
        weight.data.copy_(torch.from_numpy(whole))
        rules[spec.name] = PlainTableRule(spec, weight)
    dense = torch.optim.Adam(task.ensemble.bank.parameters(), lr=config.dense.lr, eps=config.dense.eps)
    start = _state(task, rules, dense)
    reader = BatchReader(source=source, batch_size=config.train.batch_size, rank=0, world_size=1)
    order = RowOrder(num_rows=source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    logits, losses = [], []
    for step, batch in enumerate(reader.batches(order)):
        if step == num_steps:
            break
        dense.zero_grad()
        loss, output = task(batch)
        loss.backward()
        dense.step()
        for rule in rules.values():
            rule.step()
        logits.append(output.logits_BM[batch.mask_B > 0].numpy())
        losses.append(output.losses_M.numpy())
    return PlainTrained(logits=logits, losses=losses, start=start, end=_state(task, rules, dense))


def _state(task: nn.Module, rules: dict[str, PlainTableRule], dense: torch.optim.Adam) -> State:
    state = {f"model/{key}": value.numpy().copy() for key, value in task.state_dict().items()}
    for name, rule in rules.items():
        if rule.sum.ndim:
            state[f"optimizer/tables/{name}/sum"] = rule.sum.numpy().copy()
    for name, parameter in task.named_parameters():
        if ".bank." in name:
            kept = dense.state.get(parameter) or {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for key, value in kept.items():
                state[f"optimizer/dense/{name}/{key}"] = value.numpy().copy()
    return state
