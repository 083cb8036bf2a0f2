"""What a report's figures say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.merge import MERGED
from trainer.analysis.drawing import number
from trainer.analysis.trained_rows import trained_note

Figures = Mapping[str, Any]
_ROUNDING = 1e-7  # merged logits are written as float32
_MOST_GROUPS = 4  # of equal members that are named


def conclusion(report: Figures) -> dict[str, Any]:
    """The verdict on merged against the best single member, and sentences that stand at the report's head."""
    names = [column["name"] for column in report["columns"] if column["is_member"]]
    if len(names) == 1:
        told = f"{names[0]} is the only member, so merging changes nothing and there is nobody to compare it with."
        return {"verdict": "single", "sentences": [told, *_warnings(report)]}
    difference = report["best"]["merged_minus_best"]
    verdict = _verdict(difference["log_loss_nats"])
    sentences = [_against_best(report, verdict), _auc(difference), _against_all(report), _further(report)]
    sentences += _warnings(report)
    return {"verdict": verdict, "sentences": [one for one in sentences if one]}


def between(interval: Figures, digits: int = 5, *, factor: float = 1.0) -> str:
    """Both bounds of an interval; turned with a negative factor."""
    if interval.get("low") is None:
        return "not known"
    low, high = sorted(factor * interval[key] for key in ("low", "high"))
    return f"{number(low, digits)} to {number(high, digits)}"


def is_clear(interval: Figures | None) -> bool:
    """Whether 0 is outside; never where only rounding tells predictions apart."""
    if interval is None or interval.get("low") is None or abs(interval["value"]) < _ROUNDING:
        return False
    return bool(interval["low"] > 0 or interval["high"] < 0)


def clear_of_all(report: Figures) -> list[str]:
    """The members that merged is clearly ahead of, all comparisons taken at once."""
    found = []
    for column in report["columns"]:
        if column["is_member"] and column["minus_merged"]["log_loss_nats"]["value"] is not None:
            behind = column["minus_merged"]["log_loss_nats"]["value"] - column["simultaneous_half_width_nats"]
            if behind > _ROUNDING:
                found.append(column["name"])
    return found


def bounds_of_slice(one: Figures) -> str:
    """The interval of a slice, or that it has too few rows for one."""
    return "too few rows" if one["is_too_few"] else between(one["difference"])


def same_members(report: Figures) -> str:
    """Which members are the same predictions; nothing where none are."""
    groups = report["studied"]["same_members"]
    told = [f"{', '.join(group[:-1])} and {group[-1]}" for group in groups[:_MOST_GROUPS]]
    more = f", and so are members in {len(groups) - _MOST_GROUPS} more groups" if len(groups) > _MOST_GROUPS else ""
    return f"{'; '.join(told)} are the same predictions{more}" if groups else ""


def called(report: Figures, name: str) -> str:
    """A column's name in a table, with the first member that it is the same as, where there is one."""
    same = [group[0] for group in report["studied"]["same_members"] if name in group[1:]]
    return f"{name} (same as {same[0]})" if same else name


def share(value: float | None, digits: int = 2) -> str:
    """A share in percent."""
    return "–" if value is None else f"{value * 100:.{digits}f}\u00a0%"


def _verdict(difference: Figures) -> str:
    if not is_clear(difference):
        return "unclear"
    return "ahead" if difference["value"] < 0 else "behind"


def _against_best(report: Figures, verdict: str) -> str:
    best, difference = report["best"]["name"], report["best"]["merged_minus_best"]["log_loss_nats"]
    num_members = sum(column["is_member"] for column in report["columns"])
    lower = "lower" if difference["value"] < 0 else "higher"
    bounds = f"95\u00a0% interval {between(difference, factor=-1.0 if lower == 'lower' else 1.0)}"
    by = f"its log loss is {lower} by {number(abs(difference['value']))} nats ({bounds})"
    relative = f", {abs(report['best']['merged_minus_best']['ne']['value']):.5f} in NE"
    who = f"The merged prediction of {num_members} members"
    if verdict == "ahead":
        return f"{who} is clearly ahead of the best single member, {best}: {by}{relative}."
    if verdict == "behind":
        return f"{who} is clearly behind the best single member, {best}: {by}{relative}."
    return f"{who} and the best single member, {best}, cannot be told apart on these rows: {by}{relative}."


def _auc(difference: Figures) -> str:
    delong, blocks = difference["auc_delong"], difference["auc"]
    more = "higher" if delong["value"] >= 0 else "lower"
    clear = is_clear(delong) and is_clear(blocks)
    bounds = between(delong, factor=1.0 if more == "higher" else -1.0)
    told = f"Its AUC is {more} by {number(abs(delong['value']))} ({bounds} by DeLong)"
    return told + (", which is clear, too." if clear else ", which the intervals do not tell from nothing.")


def _against_all(report: Figures) -> str:
    members = [column["name"] for column in report["columns"] if column["is_member"]]
    clear = clear_of_all(report)
    if len(clear) == len(members):
        return "With all comparisons taken at once it is ahead of every member."
    if not clear:
        return "With all comparisons taken at once it is clearly ahead of no member."
    return f"With all comparisons taken at once it is clearly ahead of {len(clear)} of the {len(members)} members."


def _further(report: Figures) -> str:
    curve = report["curve"]["log_loss_nats"]
    fit = curve["fit"]
    if report["studied"]["same_members"]:
        return f"{same_members(report)}, so what more members would bring is not extrapolated."
    if fit is None:
        return ""
    first, last = curve["points"][0], curve["points"][-1]
    gained = first["mean"] - last["mean"]
    told = f"From one member to {last['size']} the mean log loss falls by {number(gained)} nats"
    if gained <= 0:
        return (
            f"On average more members did not lower the log loss (by {number(gained)} nats from 1 to {last['size']})."
        )
    if fit["is_at_edge"]:
        return f"{told}; the curve's form is too uncertain to say what more members would bring."
    gain = fit["gain"]
    lower, factor = ("lower", 1.0) if gain["value"] >= 0 else ("higher", -1.0)
    return (
        f"{told}; the fitted curve puts {fit['size']} members of the same kinds {number(factor * gain['value'])}"
        f" {lower} than that (95\u00a0% range over other rows and other members of these kinds:"
        f" {between(gain, factor=factor)}), which is extrapolated, not measured."
    )


def _warnings(report: Figures) -> list[str]:
    return [f"Note: {trained_note(one)}" for one in report["scored"]["trained_on"]]


def rows_studied(report: Figures) -> str:
    """Which rows the intervals and subsets come from."""
    studied, scored = report["studied"], report["scored"]
    blocks = (
        f"{studied['replicates']:,} replicates of {studied['blocks']:,} blocks of {studied['block_rows']:,}"
        f" neighbouring rows, seed {studied['seed']}"
    )
    if not studied["is_sample"]:
        return f"All {scored['rows']:,} rows were studied. Intervals: paired block bootstrap, {blocks}."
    return (
        f"Intervals, subsets, correlations and slices come from {studied['rows']:,} of the {scored['rows']:,} rows,"
        f" taken in blocks at even distances; the figures of all rows stand beside them. Intervals: paired block"
        f" bootstrap, {blocks}."
    )


def subsets_studied(report: Figures) -> str:
    """Which subsets were merged, and how."""
    studied = report["studied"]
    rule = f"merged by {studied['rule']} ({studied['rule_note']})"
    if studied["all_subsets"]:
        return f"All {studied['subsets']:,} subsets of the members were {rule}; Shapley values are exact on these rows."
    return (
        f"{studied['subsets']:,} subsets were {rule}: all of the sizes with at most 200; of the others those of"
        f" neighbours on {studied['circles']} random circles of the members (seed {studied['seed']}). Orders round"
        f" these circles give the Shapley values, up to a standard error of"
        f" {number(report['worth']['shapley_error']['log_loss_nats'])} nats, which their intervals hold."
    )


def merged_name(report: Figures) -> str:
    """How merged came about."""
    return f"{MERGED} ({report['scored']['merge']['rule']})"


def multiplicity(report: Figures) -> str:
    """What many comparisons at once mean for the intervals."""
    num_members = sum(column["is_member"] for column in report["columns"])
    by_chance = (1 - report["studied"]["confidence"]) * num_members
    return (
        f"Each interval stands for itself: of {num_members} comparisons about {by_chance:.1f} would leave 0 out by"
        " chance alone. Members marked * are behind merged in log loss with all comparisons taken at once (largest"
        " standardised deviation of the replicates). The best single member was picked on these very rows, which"
        " favours it."
    )


def curve_told(report: Figures) -> str:
    """What the curve shows, what the fit says, and what it does not show: a line each."""
    studied, curve = report["studied"], report["curve"]["log_loss_nats"]
    told = "Each size's mean, spread and range over subsets of these members; the best subset of a size was picked on"
    told += " these very rows, so it looks a little too good."
    if not studied["all_subsets"]:
        told += " Sizes with many subsets are sampled, so range and best are those of the drawn ones."
    fit = curve["fit"]
    if report["studied"]["same_members"]:
        return f"{told} No curve is fitted: {same_members(report)}, and a member twice brings nothing new."
    if fit is None:
        return f"{told} A fit needs three members."
    told += (
        f"\nFit to the mean log loss: {number(fit['limit']['value'])} + {number(fit['scale'])} /"
        f" k^{fit['exponent']:.2f}, root mean square residual {number(fit['residual'], 7)} nats."
    )
    if fit["is_at_edge"]:
        told += " The exponent sits at the edge of what was searched: do not read the limit."
    told += (
        f" Extrapolated to {fit['size']} members: {number(fit['at']['value'])} ({between(fit['at'])}), that is"
        f" {number(fit['gain']['value'])} ({between(fit['gain'])}) below all of today's members; limit of ever more"
        f" members: {number(fit['limit']['value'])} ({between(fit['limit'])}). These 95\u00a0% ranges are of other rows"
        " and of other members of the same kinds together: the bootstrap over blocks of rows, and the jackknife over"
        " members, that is the fits without one member at a time. Over rows alone the gain's would be"
        f" {between(fit['of_rows']['gain'])}."
    )
    if fit["without_one"]:
        low, high = fit["without_one"]["at"]
        told += (
            f" Fitted without one member at a time, {fit['size']} members come to between {number(low)} and"
            f" {number(high)}."
        )
    return told + (
        "\nWhat it does not show: means over the subsets of one fixed set of members follow a + b / k almost by"
        " arithmetic, so a small residual is no proof that the curve goes on like that. It holds for more members of"
        " the same kinds, trained on the same data and judged on rows like these; another kind of member may bring"
        " more, another copy of one that is there less."
    )


def glossary_of(report: Figures) -> list[tuple[str, str]]:
    """The words of the report, in the order of its chapters."""
    confidence = f"{report['studied']['confidence'] * 100:.0f}\u00a0%"
    return [
        ("log loss", "Mean over rows of −ln(probability given to what happened), in nats. Lower is better."),
        (
            "NE",
            "Normalised entropy: log loss over that of always predicting the label rate. Below 1 is better than that.",
        ),
        ("Brier", "Mean squared difference of probability and label. Lower is better."),
        ("AUC", "Probability that a random positive row is ranked above a random negative one; ties count half."),
        ("calibration", "Sum of probabilities over sum of labels: 1 is right, above 1 promises too much."),
        (
            "GAUC",
            "AUC within each group (a user, a page), averaged with rows as weights; groups of one class are left out.",
        ),
        (
            "interval",
            f"{confidence} of it: how far other rows of this kind would move the figure, by drawing blocks of"
            " neighbouring rows with replacement. The models are held fixed: another training moves figures, too, and"
            " no interval here shows that.",
        ),
        ("DeLong", "The interval of a difference of AUC that takes rows as independent draws (DeLong et al. 1988)."),
        ("clear", f"0 lies outside the {confidence} interval; where it does not, charts are grey."),
        (
            "lost without it",
            "How much worse the merged prediction of all others is. Alike members hide each other here.",
        ),
        (
            "Shapley value",
            "The mean of what a member adds over all orders in which members may join; they sum to the whole.",
        ),
        ("ambiguity", "What differing takes away from the members' mean loss; exact, not estimated."),
        (
            "distance from the merge",
            "A member's own term of the ambiguity: its mean divergence from the merged prediction.",
        ),
    ]
