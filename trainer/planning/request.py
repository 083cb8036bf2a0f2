"""Request: what a capacity study is asked for, read from a command line and checked before anything is planned."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.command import CONFIG, Command, Flag, Program, parse_command
from configs.errors import ConfigError
from configs.hardware_schema import HardwareFile
from configs.loader import read_hardware
from configs.schema import Data, RunConfig
from trainer import storage
from trainer.command_line import training_config
from trainer.output_files import check_output_files
from trainer.planning.data_facts import DataFacts, data_facts
from trainer.planning.growth import read_rate
from trainer.planning.planned_point import check_threads
from trainer.planning.plans import Budget
from trainer.planning.quality import read_quality
from trainer.planning.search import Range, check_sizes
from trainer.planning.serving import check_request_rows
from trainer.planning.study import Asked, Variant
from trainer.planning.sweep import plain, read_sweeps, split_values, variants

_HARDWARE_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "hardware"
_OUTPUTS = ("json", "csv", "html", "plan")


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where a study goes; None: not asked for."""

    json: str | None
    csv: str | None
    html: str | None
    plan: str | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A study, ready to begin."""

    asked: Asked
    variants: tuple[Variant, ...]
    sizes: Range
    budget: Budget
    growth_rate: float | None  # more rows a month, as a share
    request_rows: int | None  # None: serving is not asked for
    quality: list[dict[str, Any]] | None
    files: Files


def read_request(options: Mapping[str, Any], words: Sequence[str], *, command: str) -> Request:
    """Reads flags and keys.

    Args:
        options: Flag, with underscores -> its value, as argparse gives them.
        words: The other words, keys of the run.
        command: The command line, for people.

    Raises:
        ChorusError: the first thing that is wrong, with its remedy.
    """
    files = Files(**{name: options[name] for name in _OUTPUTS})
    outputs = {f"--{name}": getattr(files, name) for name in _OUTPUTS}
    check_output_files(outputs)
    _probe(outputs)
    _check_numbers(options)
    axes = read_sweeps(options["sweep"])
    hardware = _hardware(_one_way("hardware", options["hardware"], axes.pop("hardware", None)))
    ranks = _ranks(_one_way("ranks", options["ranks"], axes.pop("ranks", None)))
    check_sizes(ranks, hardware=hardware)
    rate = None if options["growth"] is None else read_rate(options["growth"])
    quality = None if options["quality"] is None else read_quality(options["quality"])
    if options["serving"]:
        check_request_rows(options["request_rows"])
    made = _variants(axes, options, _overrides(options, words))
    _check_devices(made, hardware)
    swept: dict[str, Sequence[Any]] = {key: [plain(value) for value in values] for key, values in axes.items()}
    swept |= {"hardware": [one.name for one in hardware]} if len(hardware) > 1 else {}
    swept |= {"ranks": ranks} if len(ranks) > 1 else {}
    return Request(
        asked=Asked(
            command=command,
            config=made[0].config.run.name,
            hardware=hardware,
            purposes=("train", "score") if options["purpose"] == "both" else (options["purpose"],),
            epoch_hours=options["epoch_hours"],
            swept=swept,
        ),
        variants=tuple(made),
        sizes=Range(ranks=ranks, most=options["max_ranks"], climbs=options["search"] or not ranks),
        budget=Budget(max_plans=options["max_plans"], seconds=options["timeout"]),
        growth_rate=rate,
        request_rows=options["request_rows"] if options["serving"] else None,
        quality=quality,
        files=files,
    )


def hardware_path(name: str) -> str:
    """The file of a machine: a path as it is, a bare name one of configs/hardware.

    Raises:
        ConfigError: there is none of that name.
    """
    if "/" in name or name.endswith(".toml"):
        return name
    path = _HARDWARE_FOLDER / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"--hardware: no {name!r} in configs/hardware; give a path, or one of {_shipped()}")
    return str(path)


def _shipped() -> str:
    return ", ".join(sorted(file.stem for file in _HARDWARE_FOLDER.glob("*.toml")))


def _probe(outputs: Mapping[str, str | None]) -> None:
    """Writes a file beside each that is asked for and removes it: a full disk is met before planning, not behind it."""
    for flag, path in outputs.items():
        if path is None:
            continue
        probe = f"{path}.tmp"  # the name that it is written under at first
        try:
            with storage.open_file(probe, "w") as file:
                file.write("probe")
            storage.remove_file(probe)
        except OSError as error:
            why = error.strerror or " ".join(str(error).split())
            raise ConfigError(f"{flag}: {path!r} cannot be written ({why}); name another place") from error


def _check_devices(made: Sequence[Variant], hardware: Sequence[HardwareFile]) -> None:
    for device in dict.fromkeys(one.config.run.device for one in made):
        for machine in hardware:
            if device not in ("auto", machine.device):
                raise ConfigError(
                    f'run.device: "{device}", but {machine.name} of --hardware is {machine.device}; add'
                    f" --run.device=auto, or name machines with {device} alone"
                )
    for one in made:
        for machine in hardware:
            check_threads(one.config, hardware=machine)


def _check_numbers(options: Mapping[str, Any]) -> None:
    for key in ("rows", "epoch_hours", "max_ranks", "max_plans", "timeout"):
        value = options[key]
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"--{key.replace('_', '-')}: {value} must be above zero")


def _one_way(name: str, flag: str | None, swept: Sequence[str] | None) -> list[str]:
    """The values of what is a flag and may be swept as well."""
    if flag is not None and swept is not None:
        raise ConfigError(f"--sweep: {name} is given by --{name}, too; name all values in one of them")
    return list(swept) if swept is not None else [] if flag is None else [one.strip() for one in split_values(flag)]


def _hardware(names: Sequence[str]) -> tuple[HardwareFile, ...]:
    if not names or not all(names):
        raise ConfigError(f"--hardware: not given; name a hardware file, or one of {_shipped()}")
    machines: dict[str, HardwareFile] = {}
    for name in names:
        machine = read_hardware(hardware_path(name))
        if machine.name in machines:
            raise ConfigError(f"--hardware: {name}: a machine called {machine.name!r} is there already; rename one")
        machines[machine.name] = machine
    return tuple(machines.values())


def _ranks(texts: Sequence[str]) -> tuple[int, ...]:
    found = []
    for text in texts:
        try:
            found.append(int(text))
        except ValueError:
            raise ConfigError(f"--ranks: {text!r} is not a whole number; write them as --ranks 8,16") from None
    return tuple(sorted(set(found)))


def _overrides(options: Mapping[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    flags = tuple(Flag(name=f"--{key.replace('_', '-')}", meaning="") for key in options)
    program = Program(name="tools/plan_capacity.py", purpose="", examples=(), flags=flags)
    return parse_command(words, program=program).overrides


def _variants(
    axes: Mapping[str, Sequence[str]], options: Mapping[str, Any], overrides: tuple[str, ...]
) -> list[Variant]:
    def read(further: Sequence[str]) -> RunConfig:
        given = Command(flags={CONFIG.name: (options["config"],)}, overrides=(*overrides, *further))
        return training_config(given)

    @functools.cache
    def facts_of(data: Data, parts: tuple[str, ...], raw: tuple[str, ...], batch_size: int) -> DataFacts:
        found = data_facts(configs[data, parts, raw, batch_size], path=options["data"])
        rows = options["rows"]
        return found if rows is None else dataclasses.replace(found, train_rows=rows, score_rows=rows)

    configs: dict[tuple[Data, tuple[str, ...], tuple[str, ...], int], RunConfig] = {}

    def facts(config: RunConfig) -> DataFacts:
        key = (config.data, config.score.parts, config.score.input, config.train.batch_size)
        configs[key] = config
        return facts_of(*key)

    return variants(axes, read=read, facts=facts)
