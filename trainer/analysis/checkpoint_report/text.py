"""Reports on checkpoints as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharding.shards import table_name
from trainer.analysis.checkpoint_report.comparison import TensorDifference
from trainer.checkpoints.averaging import Average
from trainer.checkpoints.stored_checkpoint import MEMBER_WEIGHTS
from trainer.checkpoints.verification import Verdict


def contents_text(found: Mapping[str, Any]) -> str:
    """What `contents` gave."""
    progress, sizes = found["progress"], found["bytes"]
    quality = (
        "not evaluated"
        if found["quality"] is None
        else f"{found['quality']:.6g} (the watched figure, higher is better)"
    )
    lines = [
        found["folder"],
        f"step {found['step']:,}; epoch {progress['epoch']}, row {progress['row']:,} of it;"
        f" {progress['rows_total']:,} rows seen; saved by {found['world_size']} rank(s); quality {quality}",
        f"on disk {readable(sizes['on_disk'])} in {sizes['num_files']} files: tables {readable(sizes['tables'])}, their"
        f" optimizer state {readable(sizes['table_states'])}, members {readable(sizes['dense'])}, their optimizer state"
        f" {readable(sizes['dense_states'])}",
    ]
    if found["averaged"]:
        steps = ", ".join(f"{source['step']} ({source['share']:.3g})" for source in found["averaged"]["of"])
        rows = found["averaged"].get("batch_norm_rows")
        anew = f"; batch norm by {rows:,} rows" if rows else ""
        lines.append(f"mean by {found['averaged']['rule']} of steps {steps}; no optimizer state{anew}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["plan"]["tables_per_sharding_type"].items())
    lines.append(f"plan for {found['plan']['world_size']} rank(s): {kinds}")
    return "\n".join([*lines, "", *_members(found), "", *_tables(found["tables"])])


def _members(found: Mapping[str, Any]) -> list[str]:
    members = found["members"]
    width = max(len(member["name"]) for member in members)
    lines = [f"{'member':<{width}}  {'group':<12}{'parameters':>14}{'norm':>12}{'max |w|':>12}  architecture"]
    for member in members:
        arch = dict(member["architecture"])
        shape = ", ".join(f"{key} = {value}" for key, value in arch.items() if key != "kind" and value is not None)
        lines.append(
            f"{member['name']:<{width}}  {member['group']:<12}{member['num_parameters']:>14,}{_number(member, 'norm')}"
            f"{_number(member, 'max_abs')}  {arch['kind']}({shape}){_not_finite(member)}"
        )
    states = ", ".join(members[0]["optimizer_states"]) or "no state"
    return [*lines, f"members' optimizer: {found['dense_optimizer']} ({states})"]


def _tables(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    width = max((len(table["name"]) for table in tables), default=5)
    lines = [
        f"{'table':<{width}}{'rows':>14}{'dim':>6}{'norm':>12}{'mean |w|':>12}{'max |w|':>12}{'untouched':>14}"
        "  optimizer, norms of its state; placement"
    ]
    for table in tables:
        states = ", ".join(f"{name} {of['norm']:.4g}" if of else name for name, of in table["states"].items())
        untouched = table.get("rows_untouched")
        lines.append(
            f"{table['name']:<{width}}{table['rows']:>14,}{table['dim']:>6}{_number(table, 'norm')}"
            f"{_number(table, 'mean_abs')}{_number(table, 'max_abs')}"
            f"{'-' if untouched is None else f'{untouched:,}':>14}"
            f"  {table['optimizer']}{f' ({states})' if states else ''}; {table['placement']}{_not_finite(table)}"
        )
    told = sorted({table["untouched_by"] for table in tables if "untouched_by" in table})
    return lines + ([f"untouched rows: {'; '.join(told)}"] if told else [])


def _number(of: Mapping[str, Any], name: str) -> str:
    return f"{of[name]:>12.5g}" if name in of else f"{'-':>12}"


def _not_finite(of: Mapping[str, Any]) -> str:
    return f"  NOT FINITE: {of['num_not_finite']:,} values" if of.get("num_not_finite") else ""


def comparison_text(differences: Sequence[TensorDifference], *, tolerance: float, all_of_them: bool) -> str:
    """A line for each tensor that is not equal, or for all, and a sentence."""
    shown = [found for found in differences if all_of_them or found.finding != "equal"]
    lines = []
    if shown:
        width = max(len(_label(found.key)) for found in shown)
        lines.append(f"{'tensor':<{width}}  {'shape':<18}{'max |A - B|':>12}{'|A - B|/|A|':>13}  finding")
    for found in shown:
        shape = " or ".join(dict.fromkeys(_shape(shape) for shape in found.shapes if shape is not None))
        values = f"{found.max_abs:>12.4g}{found.relative_norm:>13.4g}" if found.finding == "different" else f"{'':>25}"
        lines.append(f"{_label(found.key):<{width}}  {shape:<18}{values}  {found.finding}")
    equal = sum(found.finding == "equal" for found in differences)
    within = sum(found.finding != "equal" and found.within(tolerance) for found in differences)
    close = f", {within} within {tolerance:g}" if tolerance else ""
    rest = len(differences) - equal - (within if tolerance else 0)
    return "\n".join([*lines, f"{len(differences)} tensors: {equal} equal bit for bit{close}, {rest} different"])


def _label(key: str) -> str:
    """A table's name, a member's parameter; a key of optimizer state as it is."""
    return table_name(key) or key.removeprefix(MEMBER_WEIGHTS)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one value"


def verdict_text(verdict: Verdict) -> str:
    """What `verify_checkpoint` found."""
    if verdict.is_whole:
        lines = [f"whole: {verdict.folder}  ({verdict.num_files} files, {readable(verdict.num_bytes)})"]
    else:
        lines = [f"DAMAGED: {verdict.folder}", *(f"  {problem}" for problem in verdict.problems)]
    return "\n".join([*lines, *(f"  not part of it: {name}" for name in verdict.extra)])


def average_text(average: Average, *, folder: str) -> str:
    """What was averaged, and how much of each."""
    lines = [f"  {share:.6f}  {source.folder}" for source, share in zip(average.sources, average.shares, strict=True)]
    return "\n".join([f"{folder}: the mean of", *lines])


def readable(num_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:,.0f} bytes" if unit == "bytes" else f"{num_bytes:,.1f} {unit}"
