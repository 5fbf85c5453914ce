"""Suites: games × seeds × variants from one declarative file (TOML), as runs of the trainer.

A run is the arguments of `meta_impala.train` and a folder. Its progress is read from that folder
alone (`stages`), so a suite can be stopped, killed and continued. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from meta_impala import config as config_lib
from meta_impala.config import AgentSettings, Config
from meta_impala.config.fields import MAX_SEED
from meta_impala.config.flags import define_config_flags, given_config_flags, parse_flags
from meta_impala.config.text import shown
from meta_impala.environments import ATARI_57, UnknownEnvironmentError, registry
from meta_impala.errors import UserError, one_line, printable
from meta_impala.evaluation.record import MAX_GAMES
from meta_impala.experiments.pbt_settings import (
    OF_ALL_MEMBERS,
    Population,
    define_population_flags,
    population_of,
    refuse_in_members,
)
from meta_impala.published import atari_n
from meta_impala.storage import trust as trust_lib
from meta_impala.storage.files import read_bounded
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust

_PACKAGE = pathlib.Path(str(importlib.resources.files("meta_impala")))
PRESETS = _PACKAGE / "presets"
SUITES = _PACKAGE / "suites"
ALL_GAMES = "atari57"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS: dict[str, Any] = {
    "title": str,
    "question": str,
    "games": (list, str),
    "seeds": list,
    "preset": str,
    "baseline": str,
    "settings": dict,
    "evaluation": dict,
    "variants": list,
}
_MAX_BYTES = 2**20
_MOST_BITS = 63
_NEEDED = ("title", "games", "seeds", "variants")
_POPULATION = ("size", "interval", "cpus", "learning_rate", "entropy_cost", "gamma", "lambda")
_EVALUATION = {"episodes": 200, "seed": 1, "num_envs": 16}
_MOST = {"episodes": MAX_GAMES, "seed": MAX_SEED, "num_envs": MAX_GAMES}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the agents that are compared: name of its folders, label in reports, its settings.

    `population` has, without their `population_`, the flags of `meta_impala.population`; empty for
    a run of `meta_impala.train`.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    population: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run and its evaluation.

    Attributes:
      arguments: of `meta_impala.train` (or `population`), without `--logdir`.
      config: the config that they give; of a population, that of all members together.
      population: what it is of; None if it is a run of its own.
    """

    variant: Variant
    game: str
    seed: int
    folder: RunFolder
    arguments: tuple[str, ...]
    config: Config
    population: Population | None = None

    @property
    def module(self) -> str:
        """The command that trains it."""
        return "meta_impala.population" if self.variant.population else "meta_impala.train"

    @property
    def name(self) -> str:
        """Name in messages and of log files."""
        return f"{self.variant.name}.{folder_name(self.game)}.seed_{self.seed}"


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite file, checked, with the changes of the command line.

    Attributes:
      baseline: a variant's name or a published column.
      typed: names of the settings that the command line gives.
    """

    title: str
    question: str
    games: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str | None
    baseline: str
    settings: Mapping[str, Any]
    evaluation: Mapping[str, int]
    variants: tuple[Variant, ...]
    typed: frozenset[str] = frozenset()

    @property
    def baseline_label(self) -> str:
        """Label of the baseline in the report."""
        labels = {variant.name: variant.label for variant in self.variants}
        return labels.get(self.baseline, self.baseline)


def folder_name(text: str) -> str:
    """A game's name as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


def find(text: str) -> pathlib.Path:
    """The suite file of this path, or the one of this name that ships with the program.

    Raises:
      UserError: if there is neither.
    """
    shipped = {path.stem: path for path in sorted(SUITES.glob("*.toml"))}
    if text in shipped:
        return shipped[text]
    path = pathlib.Path(os.path.expanduser(text))
    # `pathlib` may raise where a name is too long or has a null character; `os.path` finds no file.
    if os.path.isfile(path):
        return path
    near = config_lib.nearest(path.stem, shipped)
    names = ", ".join(shipped)
    raise UserError(f"'{shown(text)}': must be a suite file (TOML), or one of {names}{near}")


def read(path: pathlib.Path) -> Suite:
    """Reads and checks a suite file; that its settings make sense is checked by `expand`.

    Raises:
      UserError: naming the file, the key and what is allowed.
    """
    try:
        content = tomllib.loads(read_bounded(path, _MAX_BYTES).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML ({error})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
    for key, value in content.items():
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key}{config_lib.nearest(key, _KEYS)}")
        if _has_long_number(value):
            raise UserError(f"{path}: {key}: has a whole number of more than {_MOST_BITS} bits")
        if not isinstance(value, _KEYS[key]):
            raise UserError(f"{path}: {key} = {value!r}: has the wrong type")
    for key in _NEEDED:
        if not content.get(key):
            raise UserError(f"{path}: {key} is missing or empty")
    evaluation = _EVALUATION | content.get("evaluation", {})
    for key, number in evaluation.items():
        if key not in _MOST or type(number) is not int or not 1 <= number <= _MOST[key]:
            allowed = ", ".join(f"{name} in [1, {most}]" for name, most in _MOST.items())
            raise UserError(f"{path}: evaluation.{key} = {shown(number)}: must be one of {allowed}")
    variants = tuple(_variant(path, entry) for entry in content["variants"])
    for what in ("name", "label"):
        values = [getattr(variant, what) for variant in variants]
        doubled = next((value for value in values if values.count(value) > 1), None)
        if doubled is not None:
            raise UserError(f"{path}: two variants have the {what} {doubled}")
    return Suite(
        title=printable(content["title"]),
        question=printable(content.get("question", "")),
        games=_games(path, content["games"]),
        seeds=_seeds(path, content["seeds"]),
        preset=content.get("preset"),
        baseline=content.get("baseline", variants[0].name),
        settings=content.get("settings", {}),
        evaluation=evaluation,
        variants=variants,
    )


def _has_long_number(value: Any) -> bool:
    """Whether there is a whole number in it that TOML does not promise to hold. One of thousands of
    hexadecimal digits could not even be printed."""
    if isinstance(value, dict | list):
        entries = value.values() if isinstance(value, dict) else value
        return any(map(_has_long_number, entries))
    return isinstance(value, int) and value.bit_length() > _MOST_BITS


def _variant(path: pathlib.Path, entry: Any) -> Variant:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise UserError(f"{path}: every [[variants]] needs a name")
    name = entry["name"]
    if not _NAME.fullmatch(name):
        raise UserError(f"{path}: variant {name!r}: a name is of letters, digits, _, - and .")
    unknown = set(entry) - {"name", "label", "settings", "population"}
    settings, population = entry.get("settings", {}), entry.get("population", {})
    if unknown or not isinstance(settings, dict) or not isinstance(population, dict):
        raise UserError(
            f"{path}: variant {name}: may have name, label, settings and population, has "
            f"{', '.join(sorted(entry))}"
        )
    strange = next((key for key in population if key not in _POPULATION), None)
    if strange is not None or ("population" in entry and "size" not in population):
        raise UserError(
            f"{path}: variant {name}: population = {population}: must have size, and may have "
            f"{', '.join(_POPULATION[1:])}"
        )
    return Variant(name, printable(entry.get("label", name)), settings, population)


def games_of(names: Sequence[str]) -> tuple[str, ...]:
    """The games of a list, in which names such as atari57 mean several; without duplicates."""
    subsets = {ALL_GAMES: ATARI_57, **{name: tuple(of) for name, of in atari_n.subsets().items()}}
    return tuple(dict.fromkeys(game for name in names for game in subsets.get(name, (name,))))


def _games(path: pathlib.Path, games: Any) -> tuple[str, ...]:
    subsets = (ALL_GAMES, *atari_n.subsets())
    if isinstance(games, str) and games in subsets:
        return games_of([games])
    if not isinstance(games, list) or not all(isinstance(game, str) for game in games):
        raise UserError(
            f"{path}: games = {games!r}: must be a list of names, or one of {', '.join(subsets)}"
        )
    return tuple(games)


def _seeds(path: pathlib.Path, seeds: Sequence[Any]) -> tuple[int, ...]:
    are_seeds = all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    if not are_seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"{path}: seeds = {shown(seeds)}: must be different whole numbers from 0 to {MAX_SEED}"
        )
    return tuple(seeds)


def _as_flag(name: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"--{name}={text}"


def _preset_path(suite: Suite, beside: pathlib.Path) -> pathlib.Path:
    assert suite.preset is not None
    candidates = (
        beside / suite.preset, PRESETS / suite.preset, PRESETS / f"{suite.preset}.flags",
    )  # fmt: skip
    found = next(filter(os.path.isfile, candidates), None)
    if found is None:
        shipped = sorted(path.name for path in PRESETS.glob("*.flags"))
        raise UserError(
            f"preset {shown(suite.preset)}: is neither a file in {beside} nor one of "
            f"{', '.join(shipped)}{config_lib.nearest(suite.preset, shipped)}"
        )
    return found


def _config(
    arguments: Sequence[str],
    source: pathlib.Path,
    trust: Trust,
    typed: frozenset[str],
    *,
    of_population: bool,
    is_stored: bool,
) -> tuple[Config, Population | None]:
    """The config that the trainer, or a population, would make of these arguments.

    Raises:
      UserError: as the command would.
    """
    values = flags.FlagValues()
    define_config_flags(values)
    define_population_flags(values)
    parse_flags(["train", *arguments], values)
    given = given_config_flags(values)
    config_lib.refuse_addresses(given, typed)
    if of_population:
        refuse_in_members(given)
        given |= OF_ALL_MEMBERS
    config = config_lib.resolve(
        Config(**{config_lib.FIELDS[name].name: value for name, value in given.items()}),
        is_stored=is_stored,
    )
    trust_lib.refuse_modules(config, source, trust)
    try:
        spec = registry.resolve(config.environment)
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={config.environment}: {error}") from None
    config_lib.check_frames(config, spec.action_repeat)
    config_lib.refuse_background(config.part(AgentSettings), spec.game)
    population = population_of(values, config, spec.action_repeat) if of_population else None
    return dataclasses.replace(config, environment=spec.id), population


def _refuse_places(settings: Mapping[str, Any], path: pathlib.Path, variant: str) -> None:
    """Raises UserError for a setting that the lists of games and seeds decide."""
    for name, key in (("environment", "games"), ("seed", "seeds")):
        if name in settings:
            raise UserError(
                f"{path}: variant {variant}: {name} = {settings[name]!r}: must not be a setting; "
                f"{key} (or --{key}) says it"
            )


def expand(
    suite: Suite,
    suite_path: pathlib.Path,
    out: pathlib.Path,
    trust: Trust = trust_lib.NOBODY,
    *,
    is_only_read: bool = False,
) -> list[Run]:
    """All runs of a suite, ordered by seed, so that an early stop leaves complete comparisons.

    Args:
      suite: as read.
      suite_path: of its file; a preset may lie beside it.
      out: folder of the suite.
      trust: whose modules its environments and networks may name.
      is_only_read: whether none of them is started now, so that runs which a new one of this
        version may not be like are accepted.

    Raises:
      UserError: naming file and variant, if the trainer would refuse a run or a run is there twice.
    """
    preset = () if suite.preset is None else (_preset_path(suite, suite_path.parent),)
    runs = []
    for seed in suite.seeds:
        for game in suite.games:
            for variant in suite.variants:
                settings = {**suite.settings, **variant.settings}
                _refuse_places(settings, suite_path, variant.name)
                settings |= {"environment": game, "seed": seed}
                unknown = next((name for name in settings if name not in config_lib.FIELDS), None)
                if unknown is not None:
                    near = config_lib.nearest(unknown, config_lib.FIELDS)
                    raise UserError(
                        f"{suite_path}: variant {variant.name}: there is no setting {unknown}{near}"
                    )
                arguments = (
                    *(f"--flagfile={path}" for path in preset),
                    *(_as_flag(name, value) for name, value in settings.items()),
                    *(_as_flag(f"population_{k}", v) for k, v in variant.population.items()),
                )
                folder = RunFolder(out / "runs" / variant.name / folder_name(game) / f"seed_{seed}")
                try:
                    made = _config(
                        arguments, suite_path, trust, suite.typed,
                        of_population=bool(variant.population),
                        is_stored=is_only_read or os.path.exists(folder.config_path),
                    )  # fmt: skip
                except UserError as error:
                    raise UserError(f"{suite_path}: variant {variant.name}: {error}") from None
                runs.append(Run(variant, game, seed, folder, arguments, *made))
    _refuse_doubles(runs)
    return runs


def _refuse_doubles(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str, int], Run] = {}
    places: dict[str, Run] = {}  # folders, and the names of logs
    for run in runs:
        other = seen.setdefault((run.variant.name, run.config.environment, run.seed), run)
        if other is not run:
            games = run.game if run.game == other.game else f"{other.game} and {run.game}"
            raise UserError(f"games and seeds: {games}, seed {run.seed}: must be given only once")
        for place in (str(run.folder.path), f"{run.name}.log"):
            other = places.setdefault(place, run)
            if other is not run:
                raise UserError(
                    f"games: {other.game} (variant {other.variant.name}) and {run.game} (variant "
                    f"{run.variant.name}): both would have {place}; must be in suites of their own"
                )
