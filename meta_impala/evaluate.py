"""Evaluates the newest checkpoint of a run: full games, raw returns, stochastic policy.

    meta-impala evaluate runs/pong
    meta-impala evaluate --agent=pong.npz --episodes=10

Training may be running. The result is printed, and written to `evaluation.json` of the folder.
An evaluation that was interrupted is continued by the same command. One with more games of the
same checkpoint and settings is not replaced, unless --out or --override says so.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.config import AgentSettings, Config
from meta_impala.config.number_flags import define_frames, define_integer, define_seed
from meta_impala.config.parsers import PathOrBoolParser, parse_eta
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import UserError, warn
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation import result_text, video
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.starts import Start
from meta_impala.storage import shipped_agents
from meta_impala.storage.folder_use import check_evaluation_file
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import describe_dead_trainer
from meta_impala.storage.trained_run import (
    check_best_checkpoint,
    open_folder,
    read_agent_file,
    refuse_larger_network,
    refuse_other_environment,
)
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.signals import StopRequest
from meta_impala.system.user_path import define_path, one_path, user_path
from meta_impala.training import memory

if TYPE_CHECKING:
    from meta_impala.evaluation.evaluator import Evaluation

FLAGS = flags.FLAGS

POSITIONAL = "[RUN]"

_STOP = StopRequest()
_DEFAULT_NUM_ENVS = 16


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    _define_agent_flags()
    _define_game_flags()
    define_path(
        "out",
        None,
        "Where the result is written. Default: evaluation.json of the run's folder "
        "(evaluation_human_starts.json with --starts=human, evaluation_best.json with --best); "
        "nowhere with --agent.",
    )
    flags.DEFINE_bool(
        "override",
        False,
        "Replace the result of an evaluation with more games of the same checkpoint and settings. "
        "Otherwise it is kept, and the new result is only shown. A file named by --out is always "
        "written.",
    )
    _define_video_flag()


def _define_agent_flags() -> None:
    """Whose games are played."""
    define_path(
        "logdir",
        None,
        "Folder of the run, if it is not given as RUN; a running training is not disturbed.",
    )
    flags.DEFINE_string(
        "agent",
        None,
        "In place of a run: a file that `meta-impala export` has written, or the name of an agent "
        f"that comes with the program: {', '.join(shipped_agents.names())}.",
    )
    flags.DEFINE_bool(
        "best",
        False,
        "Of --logdir: the checkpoint with the best evaluation while training "
        "(--keep_best_checkpoint of the training) instead of the newest. It plays other games than "
        "those by which it was chosen.",
    )
    flags.DEFINE_string(
        "evaluation_eta",
        None,
        "GAMMA,LAMBDA as the network's input, in place of the η of the checkpoint. "
        "Allowed: two numbers in [0, 1].",
    )


def _define_game_flags() -> None:
    """Which games, from where, and how long."""
    define_integer("episodes", 200, "Full games to play.", high=evaluation_record.MAX_GAMES)
    define_integer(
        "num_envs",
        None,
        f"Games that are played side by side. Default: the smaller of --episodes and "
        f"{_DEFAULT_NUM_ENVS}. At most --episodes.",
        high=evaluation_record.MAX_GAMES,
    )
    define_seed(
        "Seed of games and actions: game number n of a seed and agent is always the same, up to "
        "rounding if --num_envs differs.",
    )
    flags.DEFINE_enum(
        "starts",
        "noop",
        ["noop", "human"],
        "Where games begin: after 1 to 30 no-ops (--protocol=impala), or at the points within a "
        "person's games that --starts_file holds, taken in turn.",
    )
    define_path(
        "starts_file", None, "File of starts for --starts=human; made by `meta-impala record`."
    )
    define_frames(
        "max_episode_frames",
        None,
        "A game that has not ended after this many environment frames, its start included, is cut; "
        "its return counts as it is. At most, and by default, the time limit of the environment; "
        f"by default {evaluation_record.DEFAULT_MAX_EPISODE_FRAMES:,} for one that has none.",
    )


def _define_video_flag() -> None:
    flags.DEFINE_flag(
        flags.Flag(
            PathOrBoolParser(),
            flags.ArgumentSerializer(),
            "record_video",
            "",
            "Record one more game: to video.mp4 in the folder of the run, or to the path given. "
            "Needs pip install 'meta_impala[video]'.",
            boolean=True,
        )
    )


def _num_envs() -> int:
    """How many environments play."""
    num_envs: int = FLAGS.num_envs or min(FLAGS.episodes, _DEFAULT_NUM_ENVS)
    if num_envs > FLAGS.episodes:
        raise UserError(f"--num_envs={num_envs}: must be at most {FLAGS.episodes} (--episodes)")
    return num_envs


def _max_episode_frames(config: Config) -> int | None:
    """After how many frames a game is cut; None if the environment has its own limit."""
    place = config.environment, config.environment_arguments
    given: int | None = FLAGS.max_episode_frames
    if given is None:
        return evaluation_record.frame_limit(*place)
    most = evaluation_record.own_limit(*place)
    if most is not None and given > most:
        raise UserError(
            f"--max_episode_frames={given}: must be at most {most}, the time limit of the "
            "environment"
        )
    return given


def _eta(config: Config) -> tuple[float, float] | None:
    """The η to feed in place of the checkpoint's."""
    if FLAGS.evaluation_eta is None:
        return None
    eta = parse_eta(FLAGS.evaluation_eta)
    if config.eta_is_per_state:
        raise UserError(
            f"--evaluation_eta={FLAGS.evaluation_eta}: the network of this run computes η for "
            f"every state (its meta_parameter_scope is {config.meta_parameter_scope})"
        )
    if not config.eta_embedding_size:
        raise UserError(
            f"--evaluation_eta={FLAGS.evaluation_eta}: would have no effect: the network of this "
            "run is not fed η (its eta_embedding_size is 0)"
        )
    return eta


def _video_path(folder: RunFolder | None) -> pathlib.Path | None:
    if not FLAGS.record_video:
        return None
    if FLAGS.record_video == "true":
        return folder.path / "video.mp4" if folder else user_path("video.mp4")
    return user_path(FLAGS.record_video, "record_video")


def _out(folder: RunFolder | None) -> pathlib.Path | None:
    """Path of the result."""
    if FLAGS.out:
        path = pathlib.Path(FLAGS.out)
        check_evaluation_file(path)
        return path
    if folder is None:
        return None
    return evaluation_record.result_path(folder, FLAGS.starts, best=FLAGS.best)


class Inputs(NamedTuple):
    """The checked inputs of the command, as far as they can be checked without TensorFlow.

    `folder` or `agent_path` is where the agent is; `starts` is empty for no-op starts.
    """

    folder: RunFolder | None
    agent_path: pathlib.Path | None
    config: Config
    description: Description
    num_envs: int
    max_episode_frames: int | None
    starts: list[Start]
    starts_path: pathlib.Path | None
    out: pathlib.Path | None
    eta: tuple[float, float] | None
    video_path: pathlib.Path | None
    recorded: video.RecordedEnvironment | None


def _open_run(logdir: str) -> tuple[RunFolder, Config]:
    folder, config = open_folder(logdir, trust_of_flags())
    if FLAGS.best:
        check_best_checkpoint(folder, config)
    if not FLAGS.out or FLAGS.record_video == "true":  # what is only read may be read-only
        folder.prepare()
    if died := describe_dead_trainer(folder):
        warn(f"warning: {died}")
    return folder, config


def _inputs(arguments: list[str]) -> Inputs:
    logdir = one_path(arguments, "logdir", FLAGS.logdir)
    num_envs = _num_envs()
    if FLAGS.evaluation_eta is not None:
        parse_eta(FLAGS.evaluation_eta)
    if bool(logdir) == bool(FLAGS.agent):
        raise UserError("give one of: the folder of a run, or --agent=FILE")
    if FLAGS.best and not logdir:
        raise UserError("--best=True: needs --logdir, the folder of a run")
    if FLAGS.override and not (logdir or FLAGS.out):
        raise UserError("--override=True: needs --out=FILE beside --agent, or nothing is written")
    folder, agent_path, named = None, None, None
    if logdir:
        folder, config = _open_run(logdir)
        source = folder.config_path
    else:
        agent_path = source = shipped_agents.find(FLAGS.agent)
        named = read_agent_file(agent_path, trust_of_flags())
        config = named.config
    out = _out(folder)
    eta = _eta(config)
    video_path, recorded = _video_path(folder), None
    try:
        description = registry.describe(
            config.environment, config.protocol, config.environment_arguments
        )
        if video_path is not None:
            video.check_path(video_path)
            video.check_packages()
            name, kwargs = registry.evaluated_in(config.environment, config.environment_arguments)
            recorded = video.RecordedEnvironment(name, config.protocol, FLAGS.seed, kwargs)
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"{source}: {error}") from None
    if named is not None:
        assert agent_path is not None
        refuse_other_environment(agent_path, named, description)
    memory.check_games(num_envs, description)
    config = config_lib.resolve_network(config, description.observation_shape)
    if folder is not None:
        refuse_larger_network(folder, config, description.observation_shape)
    starts, starts_path = _starts(config, description)
    return Inputs(
        folder=folder,
        agent_path=agent_path,
        config=config,
        description=description,
        num_envs=num_envs,
        max_episode_frames=_max_episode_frames(config),
        starts=starts,
        starts_path=starts_path,
        out=out,
        eta=eta,
        video_path=video_path,
        recorded=recorded,
    )


def _starts(config: Config, description: Description) -> tuple[list[Start], pathlib.Path | None]:
    """The recorded starts; empty for no-op starts."""
    if FLAGS.starts == "noop":
        if FLAGS.starts_file:
            raise UserError(f"--starts_file={FLAGS.starts_file}: needs --starts=human")
        return [], None
    if not FLAGS.starts_file:
        raise UserError("--starts_file: must be given with --starts=human, a file of starts")
    path = pathlib.Path(FLAGS.starts_file)
    starts = game_starts.read_starts(
        path,
        environment=registry.resolve(config.environment).id,
        protocol=config.protocol,
        num_actions=description.num_actions,
    )
    longest = max(len(start.actions) for start in starts) * description.action_repeat
    if FLAGS.max_episode_frames is not None and FLAGS.max_episode_frames <= longest:
        raise UserError(
            f"--max_episode_frames={FLAGS.max_episode_frames}: must be above {longest}, the frames "
            f"of the longest start in {path}"
        )
    return starts, path


def _is_kept(out: pathlib.Path | None, evaluation: Evaluation) -> bool:
    """Whether the result that is there has more games of the same kind, and stays; says so."""
    if out is None or FLAGS.out or FLAGS.override:
        return False
    games = evaluation_record.games_to_keep(out, evaluation.definition(), FLAGS.episodes)
    if games:
        command.say(
            f"{out} keeps its {games} games of this checkpoint; --override replaces them, "
            "--out=FILE writes to another file"
        )
    return games > 0


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    inputs = _inputs(arguments)
    command.load_tensorflow()
    from meta_impala.evaluation.evaluator import Evaluation
    from meta_impala.storage.trained_agent import load_agent, load_agent_file, with_eta
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    settings = inputs.config.part(AgentSettings)
    if inputs.folder is not None:
        checkpoints = inputs.folder.best_checkpoint if FLAGS.best else inputs.folder.checkpoints
        agent = load_agent(checkpoints, inputs.config, inputs.description)
    else:
        assert inputs.agent_path is not None
        agent = load_agent_file(inputs.agent_path, settings, inputs.description)
    if inputs.eta is not None:
        agent = agent._replace(snapshot=with_eta(agent.snapshot, *inputs.eta))
    _STOP.install()  # from here on an interrupt waits for the current step
    evaluation = Evaluation(
        agent,
        settings,
        inputs.description,
        seed=FLAGS.seed,
        starts=inputs.starts,
        starts_path=inputs.starts_path,
        max_episode_frames=inputs.max_episode_frames,
        eta_is_from="checkpoint" if inputs.eta is None else "--evaluation_eta",
        should_stop=_STOP.is_set,
        say=command.say,
        name=f"the agent {FLAGS.agent} ({agent.frames:,} frames)" if FLAGS.agent else "",
    )
    saves = not _is_kept(inputs.out, evaluation)
    result = evaluation.run(FLAGS.episodes, inputs.num_envs, inputs.out, save=saves)
    command.say(result_text.table(result))
    if text := result_text.hint(result):
        command.say(text)
    if inputs.out is not None:
        command.say(f"{'written' if saves else 'not written'} to {inputs.out}")
    if inputs.recorded is not None and inputs.video_path is not None:
        game = evaluation.record_video(inputs.recorded, inputs.video_path)
        command.say(
            f"recorded a return of {game.episode_return:,g} in {game.frames:,} frames: "
            f"{inputs.video_path}"
        )
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
