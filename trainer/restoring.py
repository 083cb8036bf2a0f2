"""What a run starts from: its own newest checkpoint, another run's by name, or single members' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from configs.errors import CheckpointError, ConfigError
from configs.schema import RunConfig
from modules.tables import FIRST_ORDER_SUFFIX
from sharding.shards import table_name
from trainer.checkpoints.loading import Wanted, left_out, load
from trainer.checkpoints.manifest import CheckpointManifest, ModelFacts, read_manifest, verify
from trainer.checkpoints.matching import check_same_features, check_same_model
from trainer.checkpoints.pieces import State
from trainer.checkpoints.run_checkpoints import RunCheckpoints
from trainer.early_stop import BEST_PREFIX
from trainer.launcher import is_restart
from trainer.votes import Ranks

Say: TypeAlias = Callable[[str], None]

_MEMBERS = "ensemble.bank.members."


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """All that a checkpoint holds, live: `model/KEY` and `optimizer/KEY`."""

    tensors: State
    column_pieces: Mapping[str, list[tuple[int, int]]]
    facts: ModelFacts
    data: Mapping[str, Any]


def restore(
    config: RunConfig, *, state: LiveState, run_checkpoints: RunCheckpoints, ranks: Ranks, say: Say
) -> CheckpointManifest | None:
    """Loads what the config says, in place; gives the checkpoint of this run that it goes on from. A collective.

    Raises:
        CheckpointError: a checkpoint is damaged, or of another model where it must be of this one.
        ConfigError: the keys contradict what is there.
    """
    resumed = _checkpoint_to_resume(config, run_checkpoints, ranks=ranks, say=say)
    if resumed is not None:
        check_same_model(resumed, state.facts)
        if resumed.averaged:
            raise CheckpointError(
                f"{resumed.folder}: the mean of {len(resumed.averaged['of'])} checkpoints, without optimizer state; go"
                " on from it in another run.folder with checkpoint.start_from"
            )
        _check_same_data(resumed, state.data)
        _check_early_stop(resumed, stops=config.train.early_stop.evaluations > 0)
        keys = {key: key for key in state.tensors}
        wanted = Wanted(state=state.tensors, keys=keys, column_pieces=state.column_pieces)
        dropped = left_out(resumed, wanted, ranks=ranks)
        if dropped:
            raise CheckpointError(
                f"{resumed.folder}: {dropped[0]} and {len(dropped) - 1} more tensors have no place in this run; keep"
                " the optimizers it was saved with, or start from it in another run.folder with checkpoint.start_from"
            )
        load(resumed, wanted, ranks=ranks, say=say)
        return resumed
    taken: set[str] = set()
    origins: dict[str, tuple[str, str]] = {}
    if config.checkpoint.start_from:
        taken |= _start_from(config.checkpoint.start_from, state=state, ranks=ranks, say=say)
        origins |= {
            state.facts.groups[name]: (config.checkpoint.start_from, state.facts.groups[name]) for name in taken
        }
    for name, member in config.expanded_members():
        if member.weights_from:
            _take_member(name, member.weights_from, state=state, origins=origins, ranks=ranks, say=say)
            taken.add(name)
    for name, member in config.expanded_members():
        if member.freeze and name not in taken:
            raise ConfigError(
                f"members.{name}.freeze: its weights would stay as they were drawn; give members.{name}.weights_from or"
                " checkpoint.start_from"
            )
    return None


def _checkpoint_to_resume(
    config: RunConfig, run_checkpoints: RunCheckpoints, *, ranks: Ranks, say: Say
) -> CheckpointManifest | None:
    wish = config.checkpoint.resume
    # The checkpoints there are this job's own. A host that was replaced knows of no restart.
    if wish == "never" and any(ranks.gather(is_restart())):
        wish = "auto"
    if wish == "never":
        if ranks.from_main(run_checkpoints.whole):
            raise ConfigError(
                f"run.folder: {config.run.folder!r} holds checkpoints and checkpoint.resume is 'never';"
                " take another folder, or resume = 'auto'"
            )
        return None
    own = run_checkpoints.newest(say=say)
    if own is not None and wish != "auto":
        say(f"checkpoint.resume: this run has a checkpoint of its own, {own.folder}, and goes on from that; not {wish}")
    if own is not None or wish == "auto":
        return own
    return _whole_manifest(wish, ranks=ranks, say=say)


def _whole_manifest(folder: str, *, ranks: Ranks, say: Say) -> CheckpointManifest:
    manifest: CheckpointManifest = ranks.from_main(lambda: read_manifest(folder))
    verify(manifest, ranks=ranks)
    return manifest


def _check_same_data(manifest: CheckpointManifest, facts: Mapping[str, Any]) -> None:
    for name, saved in manifest.data["dense_optimizer"].items():
        ours = facts["dense_optimizer"].get(name)
        if saved != ours:
            raise CheckpointError(
                f"dense.optimizer: {saved!r} for member {name} in {manifest.folder}, {ours!r} in this run; the state of"
                " one is of no use to the other: keep the old value, or start in another run.folder"
            )
    theirs, epoch, is_within = manifest.data, manifest.progress["epoch"], manifest.progress["row"] > 0
    if theirs["day_by_day"] != facts["day_by_day"]:
        raise CheckpointError(
            f"train.day_by_day: {theirs['day_by_day']} in {manifest.folder}, {facts['day_by_day']} in this run; keep"
            " it, or start in another run.folder with checkpoint.start_from"
        )
    if facts["day_by_day"]:  # days may be appended; those that were trained on, wholly or in part, must stay
        days = epoch + is_within
        theirs, facts = ({**of, "parts": of["parts"][:days]} for of in (theirs, facts))
        if theirs["parts"] != facts["parts"]:
            trained = ", ".join(f"{name} ({rows:,} rows)" for name, rows in theirs["parts"])
            raise CheckpointError(
                f"data.train: {manifest.folder} was trained on {trained}; name these first and new days behind them, or"
                " start in another run.folder with checkpoint.start_from"
            )
    # At an epoch's start any order may follow; within it, another order would repeat some rows and miss others.
    if not is_within:
        return
    for key, value in facts.items():
        if theirs[key] != value:
            raise CheckpointError(
                f"data.{'train' if key == 'parts' else key}: {theirs[key]} in {manifest.folder}, {value} in this"
                " run; within an epoch the row order must stay: keep the old value, or start in another run.folder"
            )


def _check_early_stop(manifest: CheckpointManifest, *, stops: bool) -> None:
    stopped = bool(manifest.learning["early_stop"]["groups"])
    if stopped != stops:
        raise CheckpointError(
            f"train.early_stop.evaluations: {manifest.folder} was saved {'with' if stopped else 'without'} it, and so"
            f" {'with' if stopped else 'without'} best weights beside the last; keep it so, or start in another"
            " run.folder with checkpoint.start_from"
        )


def _owner(key: str) -> tuple[str, str]:
    """("table", its name) or ("member", its name) of a key of the state."""
    table = table_name(key)
    if table is None and key.startswith("optimizer/tables/"):
        table = "/".join(key.split("/")[2:4])
    if table is not None:
        return "table", table
    return "member", key.partition(_MEMBERS)[2].partition(".")[0]


def _start_from(folder: str, *, state: LiveState, ranks: Ranks, say: Say) -> set[str]:
    """Takes by name what both have; gives the members that were taken."""
    manifest = _whole_manifest(folder, ranks=ranks, say=say)
    check_same_features(manifest, state.facts.features, root="data.root")
    ours, theirs = state.facts.as_json(), manifest.model
    common = [name for name in ours["members"] if name in theirs["members"]]
    if not common:
        raise ConfigError(
            f"checkpoint.start_from: {folder} has none of this run's members; it has {', '.join(theirs['members'])}"
        )
    for what in ("members", "inputs", "groups"):
        for name in common:
            if ours[what][name] != theirs[what][name]:
                raise CheckpointError(
                    f"members.{name}: {theirs[what][name]!r} in {folder}, {ours[what][name]!r} in this run; keep it as"
                    " it is there, or give the new one another name"
                )
    tables = {name for name in ours["tables"] if name in theirs["tables"]}
    for name in sorted(tables):
        _check_same_size(name, name, ours=ours, theirs=theirs, folder=folder)
    keys = {
        key: key
        for key in state.tensors
        if not key.startswith(BEST_PREFIX)
        and (owner := _owner(key))
        and owner[1] in (tables if owner[0] == "table" else common)
    }
    _load(manifest, keys, state=state, rename={name: name for name in tables}, ranks=ranks, say=say)
    new = [name for name in ours["members"] if name not in common]
    left = [name for name in theirs["members"] if name not in common]
    say(
        f"started from {folder} (step {manifest.step}): members {', '.join(common)} and {len(tables)} tables"
        + (f"; new here: {', '.join(new)}" if new else "")
        + (f"; left there: {', '.join(left)}" if left else "")
    )
    return set(common)


def _take_member(
    name: str, source: str, *, state: LiveState, origins: dict[str, tuple[str, str]], ranks: Ranks, say: Say
) -> None:
    """Takes one member and its tables from FOLDER or FOLDER#NAME.

    `origins`: table group -> the folder and group that its tables were taken from so far.
    """
    folder, _, their_name = source.partition("#")
    their_name = their_name or name
    manifest = _whole_manifest(folder, ranks=ranks, say=say)
    check_same_features(manifest, state.facts.features, root="data.root")
    ours, theirs = state.facts.as_json(), manifest.model
    key = f"members.{name}.weights_from"
    if their_name not in theirs["members"]:
        raise ConfigError(
            f"{key}: no member {their_name!r} in {folder}, which has {', '.join(theirs['members'])}; write FOLDER#NAME"
        )
    if ours["members"][name] != theirs["members"][their_name]:
        raise ConfigError(
            f"{key}: {their_name} is {theirs['members'][their_name]} there, {name} is {ours['members'][name]} here;"
            " give them the same architecture"
        )
    if ours["inputs"][name] != theirs["inputs"][their_name]:
        raise ConfigError(
            f"{key}: {their_name} reads {theirs['inputs'][their_name]} there, {name} reads {ours['inputs'][name]} here;"
            f" give members.{name}.numeric the same value"
        )
    our_group, their_group = ours["groups"][name], theirs["groups"][their_name]
    origin = origins.setdefault(our_group, (folder, their_group))
    if origin != (folder, their_group) and list(ours["groups"].values()).count(our_group) > 1:
        raise ConfigError(
            f"{key}: its tables.{our_group} are shared and would replace those from {origin[0]}, group {origin[1]};"
            ' give it tables = "own", or take its weights from there'
        )
    rename: dict[str, str] = {}
    read = set(ours["inputs"][name]["features"])
    for suffix in ("", FIRST_ORDER_SUFFIX):
        prefix = f"{our_group}{suffix}/"
        rename |= {
            table: f"{their_group}{suffix}/{table.removeprefix(prefix)}"
            for table in ours["tables"]
            if table.removeprefix(prefix) in read
            and table.startswith(prefix)
            and (not suffix or f"{their_group}{suffix}/" in _prefixes(theirs["tables"]))
        }
    for table, their_table in rename.items():
        _check_same_size(table, their_table, ours=ours, theirs=theirs, folder=folder)
    keys = {}
    for ours_key in state.tensors:
        if ours_key.startswith(BEST_PREFIX):
            continue
        kind, owner = _owner(ours_key)
        if kind == "member" and owner == name:
            keys[ours_key] = ours_key.replace(f"{_MEMBERS}{name}.", f"{_MEMBERS}{their_name}.", 1)
        elif kind == "table" and owner in rename:
            keys[ours_key] = ours_key.replace(owner, rename[owner], 1)
    _load(manifest, keys, state=state, rename=rename, ranks=ranks, say=say)
    say(f"members.{name}: weights and {len(rename)} tables from {folder}#{their_name} (step {manifest.step})")


def _prefixes(tables: Iterable[str]) -> set[str]:
    return {table.partition("/")[0] + "/" for table in tables}


def _check_same_size(
    table: str, their_table: str, *, ours: Mapping[str, Any], theirs: Mapping[str, Any], folder: str
) -> None:
    saved, mine = theirs["tables"].get(their_table), ours["tables"][table]
    if saved != mine:
        if saved is None:
            raise CheckpointError(
                f"tables {table}: {folder} has no {their_table}; leave out of data and members.NAME.numeric what that"
                " run did not read, or train anew"
            )
        raise CheckpointError(
            f"tables {table}: {mine[0]} x {mine[1]} in this run, {saved[0]} x {saved[1]} in {folder}; give them the"
            " same dim"
        )


def _load(
    manifest: CheckpointManifest,
    keys: dict[str, str],
    *,
    state: LiveState,
    rename: Mapping[str, str],
    ranks: Ranks,
    say: Say,
) -> None:
    """Weights, and optimizer state where the rule is the same; elsewhere the state starts anew, and that is said."""
    ours, theirs = state.facts.as_json(), manifest.model
    other_rule = {
        table
        for table, their_table in rename.items()
        if ours["table_rules"][table] != theirs["table_rules"][their_table]
    }
    other_dense = {
        owner
        for key, source in keys.items()
        if (owner := _owner(key)[1]) in state.data["dense_optimizer"]
        and state.data["dense_optimizer"][owner] != manifest.data["dense_optimizer"].get(_owner(source)[1])
    }

    def starts_anew(key: str) -> bool:
        kind, owner = _owner(key)
        is_other = owner in (other_rule if kind == "table" else other_dense)
        return key.startswith("optimizer/") and (is_other or bool(manifest.averaged))

    keys = {key: source for key, source in keys.items() if not starts_anew(key)}
    wanted = Wanted(state={key: state.tensors[key] for key in keys}, keys=keys, column_pieces=state.column_pieces)
    load(manifest, wanted, ranks=ranks, say=say)
    if manifest.averaged:
        say(f"{manifest.folder} is a mean of checkpoints and has no optimizer state: all of it starts anew")
    else:
        _say_new_state(other_rule, other_dense, manifest=manifest, say=say)


def _say_new_state(
    tables: set[str], dense: set[str], *, manifest: CheckpointManifest, say: Callable[[str], None]
) -> None:
    if tables:
        some = ", ".join(sorted(tables)[:3])
        say(
            f"{len(tables)} tables ({some} ...) have another optimizer than in {manifest.folder}: its state starts anew"
        )
    if dense:
        names = ", ".join(sorted(dense))
        say(f"members {names} have another dense.optimizer than in {manifest.folder}: its state starts anew")
