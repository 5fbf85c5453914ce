"""What defines an evaluation, its result, and the games that an interrupted one has played.

The definition holds everything that determines a game's result: agent, environment, ROM, protocol,
starts, seed and versions. Games are continued only under an equal definition. No TensorFlow here.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.metadata
import json
import math
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from meta_impala import __version__
from meta_impala.environments import PROTOCOLS, EnvironmentSpec, atari, registry
from meta_impala.errors import UserError, one_line
from meta_impala.evaluation import scores
from meta_impala.evaluation import starts as game_starts
from meta_impala.storage.files import write_atomically
from meta_impala.storage.json_files import json_document, read_json_object
from meta_impala.storage.manifest import file_digest
from meta_impala.storage.run_folder import RunFolder

_PACKAGES = ("tensorflow", "numpy", "gymnasium", "ale-py")
_SECONDS_BETWEEN_SAVES = 2.0
# A game takes about 30 bytes, up to 60.
_MAX_BYTES = 2**24
MAX_GAMES = 200_000
_MAX_COUNT = 2**63
_PARTIAL = ".partial-"


def versions() -> dict[str, str]:
    """Versions of the packages that determine a game."""
    found = {"meta_impala": __version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def rom(spec: EnvironmentSpec) -> dict[str, str] | None:
    """Name and SHA-256 of the game's ROM; None if it is not an Atari game."""
    if spec.game is None:
        return None
    path = atari.rom_path(spec.game)
    return {"file": path.name, "sha256": file_digest(path)}


def result_path(folder: RunFolder, starts: str, *, best: bool = False) -> pathlib.Path:
    """Path of an evaluation's result in a run's folder.

    Args:
      folder: of the run.
      starts: `noop` or `human`.
      best: whether it is of the best checkpoint, not of the newest.
    """
    human = "_human_starts" if starts == "human" else ""
    return folder.evaluation_path.with_name(f"evaluation{'_best' * best}{human}.json")


def partial_path(result: pathlib.Path, definition: Mapping[str, Any]) -> pathlib.Path:
    """Path of the games of an unfinished evaluation: beside its result, with a digest of the
    definition in the name, so that another evaluation started meanwhile does not overwrite them."""
    text = json.dumps(definition, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return result.with_suffix(f"{_PARTIAL}{digest}.json")


def other_partials(path: pathlib.Path | None) -> list[pathlib.Path]:
    """The files of other unfinished evaluations with the same result file; empty for None."""
    if path is None:
        return []
    stem = glob.escape(path.name.rpartition(_PARTIAL)[0])
    return sorted(other for other in path.parent.glob(f"{stem}{_PARTIAL}*.json") if other != path)


def noops(protocol: str) -> tuple[int, int]:
    """Fewest and most no-ops that an evaluated game of Atari begins with."""
    most = PROTOCOLS[protocol].max_noops
    return min(1, most), most


# Of a game in an environment that has no time limit of its own; that of Atari, in frames.
DEFAULT_MAX_EPISODE_FRAMES = atari.MAX_EPISODE_FRAMES


def own_limit(environment: str, environment_kwargs: Mapping[str, Any] | None = None) -> int | None:
    """The frames after which the environment of an evaluated game ends it by itself, or None.

    Args:
      environment, environment_kwargs: as for `frame_limit`.
    """
    return registry.time_limit(*registry.evaluated_in(environment, environment_kwargs))


def frame_limit(
    environment: str, environment_kwargs: Mapping[str, Any] | None = None
) -> int | None:
    """After how many frames an evaluated game is cut.

    Args:
      environment: of the run; one that was made before in this process.
      environment_kwargs: its arguments.

    Returns:
      None if it ends its episodes after a number of steps by itself, as far as it says so.
    """
    own = own_limit(environment, environment_kwargs)
    return DEFAULT_MAX_EPISODE_FRAMES if own is None else None


def where_games_are_played(
    environment: str,
    protocol: str,
    starts_path: pathlib.Path | None,
    environment_kwargs: Mapping[str, Any] | None = None,
    *,
    max_episode_frames: int | None = None,
) -> dict[str, Any]:
    """The part of a definition that is not the agent's.

    Args:
      environment, protocol, environment_kwargs: of the run; the definition has those in which its
        agents are scored (`registry.evaluated_in`).
      starts_path: file of human starts; None for no-op starts.
      max_episode_frames: after which a game is cut; None for the environment's own limit.
    """
    name, arguments = registry.evaluated_in(environment, environment_kwargs)
    spec = registry.resolve(name)
    # No key where there are none, so that older unfinished evaluations can be continued.
    return ({"environment_kwargs": arguments} if arguments else {}) | {
        "environment": spec.id,
        "rom": rom(spec),
        "protocol": protocol,
        "starts": "human" if starts_path else "noop",
        "starts_sha256": file_digest(starts_path) if starts_path else None,
        "starts_recorded_from": game_starts.recorded_from(starts_path) if starts_path else None,
        "noops": list(noops(protocol)) if spec.game else None,
        "max_episode_frames": max_episode_frames
        or (atari.MAX_EPISODE_FRAMES if spec.game else None),
    }


class Game(NamedTuple):
    """A full game: its number in the evaluation, raw return, and length in environment frames.

    Steps played to reach its start count in neither.
    """

    number: int
    episode_return: float
    frames: int


def with_finite_returns(games: Iterable[Game]) -> list[Game]:
    """The games that a mean can be taken of, sorted.

    Raises:
      UserError: if there is none.
    """
    found = sorted(game for game in games if math.isfinite(game.episode_return))
    if not found:
        raise UserError("no game has a finite return: the environment's rewards must be finite")
    return found


def result(
    definition: Mapping[str, Any],
    games: Sequence[Game],
    frames_before: Callable[[int], int] = lambda number: 0,
) -> dict[str, Any]:
    """The content of the file: the scores, and everything that defines them.

    Games whose return is not finite are left out, and counted as `episodes_left_out`.

    Args:
      definition: of the evaluation.
      games: that were played.
      frames_before: of the start of the game with this number; a limit counts them.

    Raises:
      UserError: if no game has a finite return.
    """
    played, games = len(games), with_finite_returns(games)
    left_out = played - len(games)
    returns = [game.episode_return for game in games]
    summary = scores.summarize(returns)
    constants = "human_start" if definition["starts"] == "human" else "noop"
    game_name = registry.resolve(definition["environment"]).game
    limit = definition["max_episode_frames"] or registry.time_limit(
        definition["environment"], definition.get("environment_kwargs")
    )
    lengths = [frames_before(game.number) + game.frames for game in games]
    return {
        **definition,
        **summary._asdict(),
        "episodes_at_limit": sum(length >= limit for length in lengths) if limit else 0,
        "human_normalised": scores.human_normalised(game_name, summary.mean, constants),
        "mean_episode_frames": sum(game.frames for game in games) / len(games),
        "returns": returns,
        "episode_frames": [game.frames for game in games],
    } | ({"episodes_left_out": left_out} if left_out else {})


def games_played(found: Mapping[str, Any]) -> int:
    """How many games a result is of, those left out included.

    Args:
      found: of `result`, or the content of its file.

    Raises:
      KeyError, TypeError: if it does not have a number of `episodes`.
    """
    episodes: int = found["episodes"]
    left_out = found.get("episodes_left_out", 0)
    return episodes + left_out if type(left_out) is int and left_out > 0 else episodes


class PartialGames:
    """The file of an evaluation in progress; removed once the result is written."""

    def __init__(self, path: pathlib.Path | None, definition: Mapping[str, Any]) -> None:
        """Reads the games of an interrupted evaluation of the same definition; any other
        file is overwritten with the first game.

        Args:
          path: of the file; None to keep nothing.
          definition: of the evaluation.
        """
        self._path = path
        self._definition = json.loads(json.dumps(definition))
        self.games: list[Game] = []
        self._saved_at = time.monotonic()
        if path is None:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json_object(path, _MAX_BYTES)
            if content["definition"] == self._definition:
                self.games = list(_games(content["games"]))

    def add(self, game: Game) -> None:
        """Adds a game; saves from time to time."""
        self.games.append(game)
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Writes the file.

        Raises:
          UserError: if it cannot be written.
        """
        if self._path is None or not self.games:
            return
        games = [
            # JSON has no NaN.
            (number, total if math.isfinite(total) else None, frames)
            for number, total, frames in sorted(self.games)
        ]
        content = {"definition": self._definition, "games": games}
        try:
            write_atomically(self._path, json.dumps(content) + "\n")
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written ({one_line(error)})") from None
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Removes the file; a failure to do so is ignored, since the result is written."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _games(rows: Any) -> Iterator[Game]:
    """The games of a file; a number that is there twice counts once.

    Raises:
      ValueError, TypeError: if they are not what `save` writes.
    """
    seen = set()
    for number, episode_return, frames in rows:
        counts = type(number) is int and type(frames) is int
        if not counts or not 0 <= number < _MAX_COUNT or not 0 < frames < _MAX_COUNT:
            raise ValueError(f"game {number} of {frames} frames")
        if episode_return is None:
            episode_return = math.nan
        elif type(episode_return) not in (int, float) or not math.isfinite(episode_return):
            raise ValueError(f"a return of {episode_return}")
        if number not in seen:
            seen.add(number)
            yield Game(number, float(episode_return), frames)


def save_result(path: pathlib.Path, found: Mapping[str, Any]) -> None:
    """Writes the result of an evaluation, to be done before anything is printed.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        write_atomically(path, json_document(found))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({one_line(error)})") from None


# Of a definition, what may differ between two evaluations of the same thing.
_MAY_DIFFER = ("seed", "versions")


def games_to_keep(path: pathlib.Path, definition: Mapping[str, Any], episodes: int) -> int:
    """How many games a result has that a shorter evaluation must not replace.

    Args:
      path: of the result, which may be missing or something else.
      definition: of the evaluation to come; its seed and versions may be other ones.
      episodes: its games.

    Returns:
      The games of the result, if they are more, of the same agent and under the same settings;
      otherwise 0. Settings that an older result does not name count as the same.
    """
    try:
        found = read_result(path)
    except UserError:
        return 0
    wanted = json.loads(json.dumps(definition))
    is_same = found.get("agent_digest") == wanted["agent_digest"] and all(
        found.get(name, value) == value for name, value in wanted.items() if name not in _MAY_DIFFER
    )
    played = games_played(found)
    return played if is_same and played > episodes else 0


# What every result has, and its type.
_RESULT_TYPES: dict[str, tuple[type, ...]] = {
    "environment": (str,),
    "protocol": (str,),
    "starts": (str,),
    "frames_trained": (int,),
    "episodes": (int,),
    "mean": (int, float),
    "standard_error": (int, float, type(None)),
}


def read_result(path: pathlib.Path) -> dict[str, Any]:
    """The result of an evaluation; the entries that others compute with are checked.

    Raises:
      UserError: if it cannot be read, or is not an evaluation.
    """
    try:
        found = read_json_object(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an evaluation ({one_line(error)})") from None
    for name, kinds in _RESULT_TYPES.items():
        value = found.get(name)
        is_sound = name in found and type(value) in kinds
        if isinstance(value, int | float):
            is_sound = is_sound and -_MAX_COUNT < value < _MAX_COUNT
        if not is_sound:
            raise UserError(f"{path}: is no evaluation, or damaged ({name} is {value!r})")
    return found
