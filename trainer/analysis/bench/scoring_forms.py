"""The forms of scoring measured: coarser members, coarser tables, copies as one; rows/s and what they do to quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import Run
from modules.merge import MERGED
from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.one_process import in_one_process
from trainer.analysis.bench.place import BenchPlace
from trainer.analysis.bench.scored_model import ScoredModel
from trainer.analysis.bench.scoring_speed import Rounds
from trainer.predictions.columns import logit_column
from trainer.predictions.reading import Predictions
from trainer.runtime import Runtime

EXACT = "fp32"
FORMS: Mapping[str, tuple[str, ...]] = {
    EXACT: ("--dense.precision=fp32",),
    "bf16 members": ("--dense.precision=bf16",),
    "copies as one": ("--dense.precision=fp32", "--dense.batch_copies=true"),
    "copies as one, bf16": ("--dense.precision=bf16", "--dense.batch_copies=true"),
    "fp16 tables": ("--dense.precision=fp32", "--score.tables=fp16"),
    "int8 tables": ("--dense.precision=fp32", "--score.tables=int8"),
    "int8 tables, bf16 members": ("--dense.precision=bf16", "--score.tables=int8"),
}
# By how much a form may move log loss (nats) and AUC of a member or of the merge.
BOUNDS: Mapping[str, float] = {"bf16 members": 1e-4, "copies as one": 1e-6, "fp16 tables": 1e-4, "int8 tables": 1e-3}


@dataclass(frozen=True, kw_only=True)
class FormSpeed:
    """Passes of a checkpoint in several forms."""

    num_rows: int  # of a pass
    seconds: Mapping[str, Sequence[float]]  # form -> of each round
    table_bytes: Mapping[str, int]  # form -> what a rank's tables take


def measure_forms(
    place: BenchPlace, *, checkpoint: str, words: Sequence[str], rounds: Rounds, forms: Sequence[str] = tuple(FORMS)
) -> Findings:
    """Every form's rows/s, and its figures minus those of float32 on the same rows.

    Args:
        place: Where predictions lie for a while.
        checkpoint: What scores.
        words: Keys that win, as the data's root and the parts.
        rounds: Of passes, in which the forms take turns.
        forms: Of `FORMS`, the exact one among them.

    Raises:
        ChorusError: a program failed, or the checkpoint does not take a form.
    """
    findings = Findings()
    place.say(f"{rounds.repeats} rounds of passes in {len(forms)} forms")
    found: FormSpeed = in_one_process(form_seconds, checkpoint, [*words], list(forms), place.path("scratch"), rounds)
    for form in forms:
        rates = [found.num_rows / seconds for seconds in found.seconds[form]]
        note = f"tables take {found.table_bytes[form] / 1e6:,.1f} MB"
        findings.add(f"{form}: speed", rates, "rows/s", note=note)
        ratios = [exact / seconds for exact, seconds in zip(found.seconds[EXACT], found.seconds[form], strict=True)]
        if form != EXACT:
            findings.add(f"{form}: speed beside {EXACT}", ratios, "x")
    predictions = {}
    for number, form in enumerate(forms):
        output = place.path(f"predictions_{number}")
        place.remove(f"predictions_{number}")
        place.run("trainer/score.py", "--checkpoint", checkpoint, "--output", output, *words, *FORMS[form])
        predictions[form] = Predictions(output)
    exact = predictions[EXACT]
    findings.facts = {"table_bytes": found.table_bytes, "rows": exact.num_rows, EXACT: dict(exact.manifest.metrics)}
    for form in forms:
        if form != EXACT:
            _add_quality(findings, form, predictions[form], exact)
    return findings


def form_seconds(
    checkpoint: str, words: Sequence[str], forms: Sequence[str], scratch: str, rounds: Rounds
) -> FormSpeed:
    """Passes by form, in rounds behind one that is not counted."""
    with Runtime(Run()) as runtime:
        models = {
            form: ScoredModel(
                checkpoint, words=[*words, *FORMS[form]], scratch=scratch, runtime=runtime, clock=rounds.clock
            )
            for form in forms
        }
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for turn in range(rounds.repeats + 1):
            for form, scored in models.items():
                found = scored.pass_seconds()
                if turn:
                    seconds[form].append(found)
        return FormSpeed(
            num_rows=models[EXACT].source.num_rows,
            seconds=seconds,
            table_bytes={form: scored.table_bytes for form, scored in models.items()},
        )


def _add_quality(findings: Findings, form: str, coarse: Predictions, exact: Predictions) -> None:
    apart = max(
        float(np.abs(coarse.column(logit_column(name)) - exact.column(logit_column(name))).max())
        for name in exact.members
    )
    findings.add(f"{form}: largest difference of a logit", apart, "")
    for what, key, unit in (("log loss", "log_loss_nats", "nats"), ("AUC", "auc", "")):
        changes = {
            name: coarse.manifest.metrics[name][key] - exact.manifest.metrics[name][key]
            for name in (*exact.members, MERGED)
        }
        worst = max(changes, key=lambda name: abs(changes[name]))
        note = f"of {worst}; of merged {changes[MERGED]:+.2g}"
        target = BOUNDS.get(form)
        findings.add(
            f"{form}: largest change of {what}", abs(changes[worst]), unit, target=target, bound="most", note=note
        )
