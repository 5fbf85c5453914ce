"""Records starts for `evaluate --starts=human`: points within a person's or an agent's games.

python tools/record_starts.py --out=pong_starts.json --environment=Pong
python tools/record_starts.py --out=pong_starts.json --logdir=runs/pong --games=20

The first opens a window (needs pygame: pip install 'meta_impala[play]'); the keys are w, a, s, d
and space, and closing the window (or Ctrl-C) ends the recording. The second lets the newest
checkpoint play.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys

from absl import app, flags

from meta_impala.config import Config
from meta_impala.environments import PROTOCOLS, registry
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.errors import UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation import start_recorder
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.starts import Start
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_run import open_trained_run
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow

_OUT = flags.DEFINE_string("out", "starts.json", "File to write.")
_ENVIRONMENT = flags.DEFINE_string("environment", "Pong", "What a person plays.")
_PROTOCOL = flags.DEFINE_enum("protocol", "impala", list(PROTOCOLS), "Atari protocol.")
_LOGDIR = flags.DEFINE_string("logdir", None, "Folder of a run whose newest checkpoint plays.")
_GAMES = flags.DEFINE_integer("games", 20, "Games that the checkpoint plays.", lower_bound=1)
_STARTS = flags.DEFINE_integer("starts", 100, "Starts to draw from the games.", lower_bound=1)
_MAX_STEPS = flags.DEFINE_integer(
    "max_steps", 4500, "Agent steps into a game at most (4500: 5 minutes of Atari).", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 1, "Of games and draws.", lower_bound=0)
define_trust_flag()
_SPEED = flags.DEFINE_float("frames_per_second", 15.0, "Agent steps a second for a person.")


def _make(environment: str, protocol: str) -> BatchedEnvironment:
    noops, _ = evaluation_record.noops(protocol)
    return registry.make(environment, 1, protocol, min_noops=noops)


def _by_person(environment: str, protocol: str) -> list[start_recorder.Recording]:
    with contextlib.closing(_make(environment, protocol)) as made:
        keys = start_recorder.keys_to_actions(environment, protocol, made.num_actions)
        return start_recorder.record_person(
            made,
            keys,
            _SEED.value,
            _SPEED.value,
            on_start=lambda: print(
                f"keys: {', '.join('+'.join(k).replace(' ', 'space') for k in keys)}; close the "
                "window to end",
                flush=True,
            ),
        )


def _by_agent(logdir: str) -> tuple[Config, list[start_recorder.Recording], str]:
    folder, config, description = open_trained_run(logdir, trust_of_flags())
    quiet_tensorflow()
    import_tensorflow()
    from meta_impala.evaluation.games import GamePolicy, play_games
    from meta_impala.storage.trained_agent import load_agent
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    agent = load_agent(folder.checkpoints, config, description)
    count = min(8, _GAMES.value)
    tables = [
        start_recorder.RecordedGames(_make(config.environment, config.protocol))
        for _ in range(count)
    ]
    starts = [
        (number, Start(game_starts.game_seeds(_SEED.value, number)[0]))
        for number in range(_GAMES.value)
    ]
    play_games(
        GamePolicy(agent.network, config, description, count),
        agent.snapshot,
        tables,
        starts,
        _SEED.value,
        core_state_size=agent.network.settings.core_state_size,
        on_game=lambda game: print(f"game {game.number}: {game.episode_return:g}", flush=True),
    )
    recordings = [recording for table in tables for recording in table.recordings]
    for table in tables:
        table.close()
    recordings.sort(key=lambda recording: recording.seed)
    return config, recordings, f"games of {agent.checkpoint} of a run"


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        if len(arguments) > 1:
            raise UserError(f"{arguments[1]}: unexpected argument")
        out = pathlib.Path(_OUT.value).expanduser()
        if out.is_dir() or not out.parent.is_dir():
            raise UserError(f"--out={out}: must be a file in a folder that exists")
        if RunFolder(out.parent).has_run():
            raise UserError(f"--out={out}: lies in the folder of a run; must be elsewhere")
        if not os.access(out if out.exists() else out.parent, os.W_OK):
            raise UserError(f"--out={out}: cannot be written")
        if _LOGDIR.value:
            config, recordings, source = _by_agent(_LOGDIR.value)
            environment, protocol = config.environment, config.protocol
        else:
            environment, protocol = registry.resolve(_ENVIRONMENT.value).id, _PROTOCOL.value
            recordings, source = _by_person(environment, protocol), "a person's games"
        starts = start_recorder.draw_starts(
            recordings, _STARTS.value, _SEED.value, _MAX_STEPS.value
        )
        spec = registry.resolve(environment)
        game_starts.write_starts(
            out,
            environment=spec.id,
            protocol=protocol,
            recorded_from=source,
            made_with={
                "rom": evaluation_record.rom(spec),
                "versions": evaluation_record.versions(),
            },
            starts=starts,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --out={out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    games = sum(bool(recording.actions) for recording in recordings)
    print(f"{len(starts)} starts from {games} games written to {out}")
    return 0


if __name__ == "__main__":
    app.run(main)
