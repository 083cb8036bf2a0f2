"""The same training without TorchRec's sharding: plain EmbeddingBags, plain optimizers, one process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.schema import RunConfig
from modules.tables import TableSpec, build_tables
from sharding.constraints import piece_columns
from sharding.initialisation import TableInit, initial_block
from tests.support.state import State
from trainer.built_task import build_task
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.opening import open_sources
from trainer.data.reading.order import RowOrder


class PlainTableRule:
    """The rule of one table, written out.

    Row-wise Adagrad keeps one sum a row, and under the column-wise placements one for each piece of a
    row, which it then updates by itself. Adam moves the rows of the batch alone.
    """

    def __init__(self, spec: TableSpec, weight: nn.Parameter) -> None:
        self.spec, self.weight = spec, weight
        self.in_pieces = spec.optimizer == "rowwise_adagrad" and spec.placement in COLUMN_PLACEMENTS
        self.num_pieces = spec.dim // piece_columns(spec.dim) if self.in_pieces else 1
        whole = (spec.num_rows, spec.dim)
        states: dict[str, dict[str, torch.Tensor]] = {
            "sgd": {},
            "adagrad": {"sum": torch.zeros(whole)},
            "rowwise_adagrad": {
                "column_sums" if self.in_pieces else "sum": torch.zeros(self.num_pieces * spec.num_rows)
            },
            "adam": {"exp_avg": torch.zeros(whole), "exp_avg_sq": torch.zeros(whole), "step": torch.tensor(0.0)},
        }
        self.state = states[spec.optimizer]

    @torch.no_grad()
    def step(self) -> None:
        """One update from the weight's gradient."""
        spec, gradient, state = self.spec, self.weight.grad, self.state
        assert gradient is not None
        if spec.optimizer == "sgd":
            self.weight -= spec.lr * gradient
        elif spec.optimizer == "adagrad":
            state["sum"] += gradient.square()
            self.weight -= spec.lr * gradient / (state["sum"].sqrt() + spec.eps)
        elif spec.optimizer == "rowwise_adagrad":
            columns = spec.dim // self.num_pieces
            sums = state["column_sums" if self.in_pieces else "sum"].view(self.num_pieces, spec.num_rows)
            for piece, of_piece in enumerate(gradient.split(columns, dim=1)):
                sums[piece] += of_piece.square().mean(dim=1)
                step = spec.lr * of_piece / (sums[piece].sqrt() + spec.eps)[:, None]
                self.weight[:, piece * columns : (piece + 1) * columns] -= step
        else:
            rows = gradient.abs().sum(dim=1) > 0
            state["step"] += 1
            mean = 0.9 * state["exp_avg"] + 0.1 * gradient
            square = 0.999 * state["exp_avg_sq"] + 0.001 * gradient.square()
            state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean[rows], square[rows]
            mean, square = mean / (1 - 0.9 ** state["step"]), square / (1 - 0.999 ** state["step"])
            self.weight[rows] -= (spec.lr * mean / (square.sqrt() + spec.eps))[rows]
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
        for key, value in rule.state.items():
            state[f"optimizer/tables/{name}/{key}"] = value.numpy().copy()
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
