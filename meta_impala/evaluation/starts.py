"""Where the games of an evaluation start: a seed, and the actions that are played from it.

No-op starts have no actions. Human starts (Nair et al. 2015) are points within a person's games;
the original ones were never published, so they come from a file of our own (`meta-impala record`).
A start is replayed exactly, and the file holds a digest of the observation it leads to, so that
another emulator or ROM is noticed.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.config.fields import MAX_SEED
from meta_impala.environments import BatchedEnvironment
from meta_impala.errors import UserError, one_line, printable
from meta_impala.storage.files import write_atomically
from meta_impala.storage.json_files import read_json_object

FORMAT = "meta_impala starts, version 1"
_DIGITS = 16
# A hundred starts, 5 minutes into a game, need a fiftieth of it.
_MAX_BYTES = 2**26


class Start(NamedTuple):
    """A start: seed of the environment, the actions played from there, and the observation reached.

    `observation` is the digest of the last observation, empty if it is not to be checked.
    """

    seed: int
    actions: tuple[int, ...] = ()
    observation: str = ""


class Begun(NamedTuple):
    """A game at its start: observation `[...]`, return and frames so far."""

    observation: np.ndarray
    episode_return: float
    frames: int


def game_seeds(seed: int, game: int) -> tuple[int, int]:
    """Seeds of the environment and of the actions of one game of an evaluation, 31 bits each."""
    words = np.random.SeedSequence([seed, game]).generate_state(2)
    return int(words[0] >> 1), int(words[1] >> 1)


def digest(observation: np.ndarray) -> str:
    """A short digest of an observation."""
    return hashlib.sha256(np.ascontiguousarray(observation).tobytes()).hexdigest()[:_DIGITS]


def begin(environment: BatchedEnvironment, start: Start) -> Begun:
    """Starts a game and plays the actions of its start.

    Args:
      environment: of one game (`num_envs` 1).
      start: to be reached.

    Raises:
      UserError: if the game ends on the way, or the observation reached is not the recorded one.
    """
    observation = environment.reset(start.seed)[0]
    episode_return = 0.0
    for action in start.actions:
        step = environment.step(np.array([action]))
        if step.episode_ends[0]:
            raise UserError(f"the start with seed {start.seed}: its game ends before it is reached")
        observation = step.observations[0]
        episode_return += float(step.rewards[0])
    if start.observation and digest(observation) != start.observation:
        raise UserError(
            f"the start with seed {start.seed}: replaying it does not lead to the recorded "
            "observation; the file was made with another ROM, emulator or protocol"
        )
    return Begun(observation, episode_return, len(start.actions) * environment.action_repeat)


def write_starts(
    path: pathlib.Path,
    *,
    environment: str,
    protocol: str,
    recorded_from: str,
    made_with: dict[str, Any],
    starts: Sequence[Start],
) -> None:
    """Writes a file of starts: JSON, one start a line."""
    head = {
        "format": FORMAT,
        "environment": environment,
        "protocol": protocol,
        "recorded_from": recorded_from,
        "made_with": made_with,
    }
    lines = [json.dumps(start._asdict(), separators=(",", ":")) for start in starts]
    body = json.dumps(head, indent=1)[:-2] + ',\n "starts": [\n' + ",\n".join(lines) + "\n]}\n"
    write_atomically(path, body)


def recorded_from(path: pathlib.Path) -> str:
    """Whose games the starts of a file come from (one that `read_starts` has accepted)."""
    found = read_json_object(path, _MAX_BYTES).get("recorded_from", "unknown games")
    return printable(found)[:200]


def read_starts(
    path: pathlib.Path, *, environment: str, protocol: str, num_actions: int
) -> list[Start]:
    """Reads a file of starts.

    Raises:
      UserError: if it is not a file of starts, or is of another environment or protocol.
    """
    try:
        content = read_json_object(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{path}: cannot be read as a file of starts ({reason})") from None
    if content.get("format") != FORMAT:
        raise UserError(f'{path}: is not a file of starts (its "format" must be "{FORMAT}")')
    for name, wanted in (("environment", environment), ("protocol", protocol)):
        if content.get(name) != wanted:
            raise UserError(f"{path}: has starts of {name} {content.get(name)}; must be {wanted}")
    rows = content.get("starts")
    if not isinstance(rows, list):
        raise UserError(f"{path}: has a damaged list of starts")
    if not rows:
        raise UserError(f"{path}: has no starts")
    return [_start(path, row, num_actions) for row in rows]


def _start(path: pathlib.Path, row: Any, num_actions: int) -> Start:
    """One start of a file. Raises UserError if it is damaged."""
    if not isinstance(row, dict):
        raise UserError(f"{path}: has a damaged start ({row!r:.100})")
    seed, actions, observation = (row.get(name) for name in Start._fields)
    if type(seed) is not int or not isinstance(observation, str):
        raise UserError(
            f"{path}: has a damaged start (seed {seed!r:.100}, observation {observation!r:.100})"
        )
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"{path}: has the seed {seed!r:.100}; must be from 0 to {MAX_SEED}")
    if not isinstance(actions, list) or not all(type(action) is int for action in actions):
        raise UserError(f"{path}: has a damaged start (seed {seed}: its actions are not a list)")
    if not all(0 <= action < num_actions for action in actions):
        raise UserError(
            f"{path}: the start with seed {seed} has an action outside 0 to {num_actions - 1}"
        )
    return Start(seed, tuple(actions), observation)
