"""The results of evaluated runs: one `Result` per run folder, grouped by variant and game.

Config files are read as plain JSON, so that runs of older versions can still be compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from meta_impala.analysis import variants
from meta_impala.config.schema import FIELDS, field_type
from meta_impala.config.text import shown
from meta_impala.environments import UnknownEnvironmentError, registry
from meta_impala.errors import UserError, one_line, printable
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation import scores
from meta_impala.published.tables import HUMAN_STARTS, NO_OP, STICKY, constants_for
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import module_of

# What every version's config has, and what a comparison reads of a population.
_KINDS: dict[str, Any] = {
    "environment": str,
    "protocol": str,
    "seed": int,
    "meta_parameters": str,
    "gamma": (int, float),
    "lambda": (int, float),
}
_MAX_BYTES = 2**24
_LARGEST = 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_rom(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str | None)


def _are_ranges(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
        for pair in value.values()
    )


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


# What a value in a config is, by the type of its setting.
_OF_KIND: dict[type, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and abs(value) < _LARGEST,
    float: _is_number,
    str: _is_text,
}
# Entries that a comparison computes with; those that are not there are checked where they are read.
_OF_CONFIG = {"seed": _is_count, "gamma": _is_number, "lambda": _is_number,
              "reference_gamma": _or_none(_is_number)}  # fmt: skip
_OF_EVALUATION = {
    "protocol": _is_text, "frames_trained": _is_count, "episodes": _is_count, "mean": _is_number,
    "standard_error": _or_none(_is_number), "starts": _is_text, "eta_is_from": _is_text,
    "starts_recorded_from": _or_none(_is_text), "starts_sha256": _or_none(_is_text),
    "rom": _or_none(_is_rom), "max_episode_frames": _or_none(_is_count),
}  # fmt: skip
_OF_POPULATION = {
    "size": _is_count, "interval": _is_count, "frames": _is_count, "seed": _is_count,
    "ranges": _are_ranges,
}  # fmt: skip
_POPULATION_KEYS = {"size", "interval", "ranges", "frames"}


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluated run.

    Attributes:
      folder: of the run.
      variant: label of what it shares with the other seeds and games.
      environment: id; `game` is its name in CamelCase, or None if it is not an Atari game.
      starts: how games begin, in the words of the published tables.
      frames: environment frames trained.
      episodes: full games evaluated; `mean` and `standard_error` are of their raw returns.
      caveats: how this evaluation differs from the published protocol.
      config: of `read_config`.
      digests: SHA-256 of the file of starts and of the ROM; None where the evaluation has none.
    """

    folder: RunFolder
    variant: str
    environment: str
    game: str | None
    seed: int
    protocol: str
    starts: str
    frames: int
    episodes: int
    mean: float
    standard_error: float | None
    caveats: tuple[str, ...]
    config: Mapping[str, Any]
    digests: Mapping[str, str | None]

    @property
    def name(self) -> str:
        """The game, or the id if it is not an Atari game."""
        return self.game or self.environment

    @property
    def human_normalised(self) -> float | None:
        """Human-normalised score of the mean, by the constants that go with the starts."""
        return scores.human_normalised(self.game, self.mean, constants_for(self.starts))


class Results(NamedTuple):
    """What was found: results, and one line for each run that could not be used."""

    found: list[Result]
    missing: list[str]

    @property
    def variants(self) -> list[str]:
        """Labels, in the order of their first result."""
        return list(dict.fromkeys(result.variant for result in self.found))

    @property
    def names(self) -> list[str]:
        """Games, sorted."""
        return sorted({result.name for result in self.found})

    def of(self, variant: str, name: str | None = None) -> list[Result]:
        """The results of a variant (and game), by seed."""
        chosen = [
            result
            for result in self.found
            if result.variant == variant and (name is None or result.name == name)
        ]
        return sorted(chosen, key=lambda result: (result.name, result.seed))


def _check(
    path: pathlib.Path, content: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]
) -> None:
    """Raises UserError for the first entry that is not what this program writes."""
    for name, check in checks.items():
        if name in content and not check(content[name]):
            raise UserError(f"{path}: is damaged ({name} is {content[name]!r:.100})")


def _check_kinds(path: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Raises UserError for the first setting of another kind; null counts as absent."""
    for name, field in FIELDS.items():
        kind, _ = field_type(field)
        value = config.get(name)
        if value is not None and not _OF_KIND[kind](value):
            told = shown(repr(value) if isinstance(value, str) else value)  # '32' from 32
            raise UserError(f"{path}: {name}={told}: must be of type {kind.__name__}")


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Raises UserError if it is not a JSON object."""
    try:
        return read_json_object(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)})") from None


def read_config(folder: RunFolder) -> dict[str, Any]:
    """`config.json` of any version, without entries that are null; for a population with its
    settings, as "population".

    Raises:
      UserError: if there is none, or it is not JSON, or lacks what every version has.
    """
    if not folder.has_run():
        raise UserError(f"{folder.path}: must be the folder of a run (there is no config.json)")
    config = _read_json(folder.config_path)
    if folder.population_path.exists():
        config["population"] = _read_json(folder.population_path)
    absent = [name for name in _KINDS if name not in config]
    if absent:
        raise UserError(f"{folder.config_path}: missing keys: {', '.join(absent)}")
    for name, kind in _KINDS.items():
        if not isinstance(config[name], kind) or isinstance(config[name], bool):
            what = "a name" if kind is str else "a number"
            raise UserError(f"{folder.config_path}: {name}={config[name]}: must be {what}")
    if "population" in config and not config["population"].keys() >= _POPULATION_KEYS:
        raise UserError(
            f"{folder.population_path}: must have {', '.join(sorted(_POPULATION_KEYS))}"
        )
    _check(folder.config_path, config, _OF_CONFIG)
    _check_kinds(folder.config_path, config)
    _check(folder.population_path, config.get("population", {}), _OF_POPULATION)
    return {name: value for name, value in config.items() if value is not None}


def id_and_game(environment: str) -> tuple[str, str | None]:
    """The id of an environment, and its game, or None if it is not an Atari game.

    The module that a foreign run names is not imported: its name is enough here.
    """
    if not module_of(environment):
        with contextlib.suppress(UnknownEnvironmentError):
            spec = registry.resolve(environment)
            return spec.id, spec.game
    return environment, None


def starts_of(protocol: str, starts: str) -> str:
    """How the games of an evaluation with `noop` or `human` starts begin, in the words of the
    published tables."""
    if starts == "human":
        return HUMAN_STARTS
    return STICKY if protocol == "machado" else NO_OP


def _caveats(evaluation: Mapping[str, Any], game: str | None) -> tuple[str, ...]:
    caveats = []
    if game and evaluation["episodes"] < 200:
        caveats.append(f"{evaluation['episodes']} games evaluated (published: 200)")
    whole = evaluation_record.DEFAULT_MAX_EPISODE_FRAMES
    limit = evaluation.get("max_episode_frames")  # absent in those of early versions
    if game and limit is not None and limit != whole:
        caveats.append(f"games cut after {limit:,} frames (published: {whole:,})")
    if evaluation.get("eta_is_from", "checkpoint") != "checkpoint":
        caveats.append("the network was given another η than it had learned")
    if evaluation.get("starts", "noop") == "human":
        of = evaluation.get("starts_recorded_from")
        caveats.append(
            "human starts of our own (the published ones were never released)"
            + (f", from {printable(of)}" if of else "")
        )
        if evaluation["protocol"] == "machado":
            caveats.append("sticky actions")
    return tuple(caveats)


def _seed(config: Mapping[str, Any]) -> int:
    """Of the run; of a population its own, not that of the member that came out best."""
    return int(config.get("population", {}).get("seed", config["seed"]))


def _of_all_members(config: Mapping[str, Any]) -> int | None:
    """Frames of a population: its total cost, not those of its best member."""
    return config["population"]["frames"] if "population" in config else None


def _caveats_of_population(config: Mapping[str, Any]) -> tuple[str, ...]:
    if "population" not in config:
        return ()
    size = config["population"]["size"]
    return (
        f"the best of {size} members by training return; frames of all members counted (the "
        "learning curve is the best member's, over its own frames)",
    )


def _result(folder: RunFolder, config: Mapping[str, Any], variant: str, starts: str) -> Result:
    """Raises UserError if there is no valid evaluation."""
    path = evaluation_record.result_path(folder, starts)
    if not path.exists():
        how = " --starts=human" if starts == "human" else ""
        raise UserError(
            f"{folder.path}: not evaluated; run: meta-impala evaluate {folder.path}{how}"
        )
    evaluation = _read_json(path)
    _check(path, evaluation, _OF_EVALUATION)
    try:
        environment, game = id_and_game(config["environment"])
        return Result(
            folder=folder,
            variant=variant,
            environment=printable(environment),
            game=game,
            seed=_seed(config),
            protocol=printable(evaluation["protocol"]),
            starts=starts_of(evaluation["protocol"], evaluation.get("starts", "noop")),
            frames=int(_of_all_members(config) or evaluation["frames_trained"]),
            episodes=int(evaluation["episodes"]),
            mean=float(evaluation["mean"]),
            standard_error=evaluation["standard_error"],
            caveats=_caveats(evaluation, game) + _caveats_of_population(config),
            config=config,
            digests={
                "file of starts": evaluation.get("starts_sha256"),
                "ROM": (evaluation.get("rom") or {}).get("sha256"),
            },
        )
    except KeyError as error:
        raise UserError(f"{path}: has no {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({error})") from None


def read(
    folders: Iterable[RunFolder], labels: Sequence[str] | None = None, starts: str = "noop"
) -> Results:
    """The results of run folders.

    Args:
      folders: of runs; those without an evaluation are reported as missing.
      labels: the variant of each, or None to name them by their settings.
      starts: whether the evaluations with `noop` or with `human` starts are read.

    Raises:
      UserError: if a folder is not a run, two runs are the same seed of the same game and variant,
        or the runs were evaluated under different protocols, or a game on another file of starts or
        ROM.
    """
    folders = list(folders)
    configs = [read_config(folder) for folder in folders]
    labels = [printable(label) for label in labels or variants.labels(configs)]
    found, missing = [], []
    for folder, config, label in zip(folders, configs, labels, strict=True):
        try:
            found.append(_result(folder, config, label, starts))
        except UserError as error:
            missing.append(str(error))
    _refuse_doubles(found)
    refuse_different_protocols((f"{r.folder.path}", r.game, r.starts, r.protocol) for r in found)
    _refuse_different_files(found)
    return Results(found, missing)


def _refuse_doubles(found: Sequence[Result]) -> None:
    seen: dict[tuple[str, str, int], Result] = {}
    for result in found:
        other = seen.setdefault((result.variant, result.name, result.seed), result)
        if other is not result:
            raise UserError(
                f"{result.folder.path}: is seed {result.seed} of {result.name}, "
                f"{result.variant}, and so is {other.folder.path}; give only one of them"
            )


def refuse_different_protocols(evaluations: Iterable[tuple[str, str | None, str, str]]) -> None:
    """Refuses evaluations, made or to be made, whose scores cannot be compared.

    Args:
      evaluations: of each a name for the message, the game (None if it is not an Atari game), how
        games start (`starts_of`), and the protocol.

    Raises:
      UserError: if Atari games are evaluated under several protocols, with an example of each.
    """
    protocols: dict[tuple[str, str], str] = {}
    for name, game, starts, protocol in evaluations:
        if game:
            protocols.setdefault((starts, protocol), name)
    if len(protocols) > 1:
        examples = "; ".join(
            f"{name}: {starts}, protocol {protocol}"
            for (starts, protocol), name in protocols.items()
        )
        raise UserError(
            f"the runs are evaluated under different protocols ({examples}); compare the runs of "
            "each protocol separately"
        )


def _refuse_different_files(found: Sequence[Result]) -> None:
    for what in ("file of starts", "ROM"):
        seen: dict[str, tuple[str, Result]] = {}
        for result in found:
            digest = result.digests.get(what)  # results of early versions have none
            if digest is None:
                continue
            other, first = seen.setdefault(result.name, (digest, result))
            if other != digest:
                raise UserError(
                    f"{result.folder.path}: was evaluated on {result.name} with another {what} "
                    f"than {first.folder.path}; compare each of them separately"
                )
