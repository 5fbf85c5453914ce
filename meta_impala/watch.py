"""Shows the game as the newest checkpoint of a run plays it, also during training.

    meta-impala watch runs/pong
    meta-impala watch --agent=pong

Beside the picture are the network's value and policy of each state, and the gamma and lambda that
are its input. Newer checkpoints are read between games.

In a window, if there is a display and pygame (pip install 'meta_impala[play]'); else, and with
--web, as a web page that only this machine can open. From another machine, forward its port:
ssh -L 8000:127.0.0.1:8000 HOST, with --port=8000.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Protocol

from absl import flags

from meta_impala import command
from meta_impala.config import AgentSettings
from meta_impala.config.number_flags import define_float, define_integer, define_seed
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.evaluation import live_window
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.live_page import ADDRESS, LivePage
from meta_impala.evaluation.live_window import LiveWindow
from meta_impala.evaluation.watched_environment import WatchedEnvironment, make_watched
from meta_impala.storage import shipped_agents
from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import failure_of, read_status
from meta_impala.storage.trained_run import (
    OpenedAgent,
    TrainedRun,
    open_agent_file,
    open_trained_run,
)
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.signals import StopRequest
from meta_impala.system.user_path import define_path, one_path

if TYPE_CHECKING:
    from PIL import Image

    from meta_impala.storage.trained_agent import TrainedAgent

FLAGS = flags.FLAGS

POSITIONAL = "[RUN]"

_STOP = StopRequest()
_SECONDS_AT_THE_END = 0.7
_POLL_SECONDS = 0.1


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path("logdir", None, "Folder of the run, if it is not given as RUN.")
    flags.DEFINE_string(
        "agent",
        None,
        "In place of a run: a file that `meta-impala export` has written, or the name of an agent "
        f"that comes with the program: {', '.join(shipped_agents.names())}.",
    )
    flags.DEFINE_bool(
        "web",
        None,
        "Show a web page, or (--noweb) a window. Default: a window if one can be shown "
        "and no --port is given.",
    )
    define_integer(
        "port",
        0,
        f"Port of {ADDRESS} for the page, which is then shown; 0 takes any free one.",
        low=0,
        high=65535,
    )
    define_float(
        "fps",
        None,
        "Agent steps a second. Default: the game's own speed.",
        low_open=True,
        high=1000,
    )
    define_integer("games", 0, "Games to show; 0 for no limit.", low=0)
    define_seed("Seed of games and actions.")


class Screen(Protocol):
    """The interface of `LiveWindow` and `LivePage`."""

    def show(self, frame: Image.Image) -> bool:
        """Shows a frame; False if nobody can see it any more."""


class Pace:
    """Lets time pass between frames, so that a game runs at its own speed."""

    def __init__(self, frames_per_second: float) -> None:
        self._seconds = 1.0 / frames_per_second
        self._next = time.monotonic()

    def wait(self, at_least: float = 0.0) -> None:
        """Waits until the next frame is due.

        Args:
          at_least: seconds from now.

        Raises:
          KeyboardInterrupt: as soon as a stop was asked for.
        """
        now = time.monotonic()
        # A late frame is not caught up with.
        self._next = max(self._next + self._seconds, now + at_least)
        while not _STOP.is_set() and (left := self._next - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
        self._next = max(self._next, time.monotonic() - self._seconds)
        if _STOP.is_set():
            raise KeyboardInterrupt


def _check_flags(arguments: list[str]) -> str | None:
    """Checks what was given; returns the folder of the run, None for an agent file."""
    logdir = one_path(arguments, "logdir", FLAGS.logdir)
    if bool(logdir) == bool(FLAGS.agent):
        raise UserError("give one of: the folder of a run, or --agent=FILE")
    if FLAGS.web is False:
        command.refuse_given(["port"], "on a window (--noweb)")
        live_window.check("--web shows a page instead")
    return logdir


def _wait_for_checkpoint(logdir: str) -> None:
    """While a trainer is running there; returns at once if nothing was begun there.

    Raises:
      UserError: if no trainer is running, and there is no checkpoint.
    """
    folder = RunFolder(logdir)
    if not folder.has_run() or folder.has_checkpoint():
        return
    is_said = False
    while is_locked(folder.path):
        if not is_said:
            command.say(f"{folder.path}: no checkpoint yet; waiting for the first one")
            is_said = True
        time.sleep(_POLL_SECONDS)
        if folder.has_checkpoint():
            return
    if not folder.has_checkpoint():  # it may have been saved just now
        status = read_status(folder)
        state = status.get("state", "not known")
        why = failure_of(status)
        raise UserError(
            f"{folder.path}: there is no checkpoint, and no trainer is running that would save one "
            f"(the state of the run is {state}{'' if why is None else f': {why}'})"
        )


def _open(logdir: str | None) -> TrainedRun | OpenedAgent:
    trust = trust_of_flags()
    if logdir is None:
        return open_agent_file(shipped_agents.find(FLAGS.agent), trust)
    _wait_for_checkpoint(logdir)
    return open_trained_run(logdir, trust)


def _agent_text(agent: TrainedAgent) -> str:
    return f"after {agent.frames:,} frames, {agent.snapshot.version:,} updates"


def _show_games(
    opened: TrainedRun | OpenedAgent, environment: WatchedEnvironment, screen: Screen
) -> None:
    """Plays games one after the other until enough were shown, or the window was closed."""
    from meta_impala.evaluation.live_agent import NewestAgent
    from meta_impala.evaluation.live_drawing import Caption, LiveDrawing
    from meta_impala.evaluation.live_game import InspectedPolicy, play_live
    from meta_impala.storage.trained_agent import load_agent_file

    config, description = opened.config, opened.description
    newest = None
    if isinstance(opened, TrainedRun):
        newest = NewestAgent(opened.folder.checkpoints, config, description)
        agent = newest.agent
    else:
        agent = load_agent_file(opened.path, config.part(AgentSettings), description)
    policy = InspectedPolicy(agent.network, config.part(AgentSettings), description, num_envs=1)
    drawing = LiveDrawing()
    pace = Pace(FLAGS.fps or environment.frames_per_second)
    at_the_end = min(_SECONDS_AT_THE_END, 10.0 / (FLAGS.fps or 10.0))
    names = tuple(environment.action_meanings())
    for number in range(FLAGS.games) if FLAGS.games else itertools.count():
        if newest is not None and newest.refresh():
            agent = newest.agent
        caption = Caption(config.environment, _agent_text(agent), names)
        steps = play_live(
            policy,
            agent.snapshot,
            environment,
            FLAGS.seed,
            number,
            core_state_size=agent.network.settings.core_state_size,
            max_frames=evaluation_record.frame_limit(
                config.environment, config.environment_arguments
            ),
        )
        for step in steps:
            if not screen.show(drawing.draw(step, caption)):
                return
            pace.wait(0.0 if step.policy is not None else at_the_end)


def _is_page() -> bool:
    """Whether a page is shown, not a window: a port is that of a page."""
    if FLAGS.web is not None:
        return bool(FLAGS.web)
    return bool(FLAGS["port"].present) or live_window.why_not() != ""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    opened = _open(_check_flags(arguments))
    config = opened.config
    name, kwargs = registry.evaluated_in(config.environment, config.environment_arguments)
    environment = make_watched(name, config.protocol, FLAGS.seed, kwargs)
    title = f"meta-impala watch: {opened.config.environment}"
    screen = LivePage(FLAGS.port, title) if _is_page() else LiveWindow(title)
    command.load_tensorflow()
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    _STOP.install()  # from here on an interrupt waits for the current step
    with contextlib.closing(environment), screen:
        if isinstance(screen, LivePage):
            command.say(f"{screen.url} shows {opened.config.environment} live; Ctrl-C ends it")
        _show_games(opened, environment, screen)
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
