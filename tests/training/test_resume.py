"""Stop and resume under --deterministic: to the bit what a run without stops does (determinism)."""

import dataclasses
import threading

import numpy as np
import pytest
from support.run_helpers import BATCH_FRAMES, make_config, make_trainer, numbers, read_metrics

from meta_impala.actors.turn_taking import TurnTakingSource
from meta_impala.environments import registry
from meta_impala.environments.gymnasium_vector import GymnasiumEnvironment
from meta_impala.errors import RunFailed
from meta_impala.storage.checkpoint import list_checkpoints, verify
from meta_impala.system.signals import StopRequest
from meta_impala.training.metrics import NOT_REPRODUCIBLE


class StopAtUpdate(StopRequest):
    """Asks to stop when the trainer has made so many updates and polled so many times since."""

    def __init__(self, updates: int, polls: int = 0) -> None:
        super().__init__()
        self.trainer = None
        self._updates, self._polls = updates, polls

    def is_set(self) -> bool:
        if self.trainer is None or self.trainer.updates < self._updates:
            return False
        self._polls -= 1
        return self._polls < 0


def reproducible(path) -> list[dict[str, str]]:
    return [
        {name: value for name, value in row.items() if name not in NOT_REPRODUCIBLE}
        for row in read_metrics(path)
    ]


def run_in_pieces(path, config, stops) -> list[np.ndarray]:
    """Stops at (updates, polls), each time in a new trainer; returns the final state."""
    for updates, polls in stops:
        stop = StopAtUpdate(updates, polls)
        trainer = make_trainer(path, config, stop)
        stop.trainer = trainer
        assert trainer.run() == "stopped"
        assert trainer.updates == updates
    trainer = make_trainer(path, config)
    assert trainer.updates == stops[-1][0]
    assert trainer.run() == "finished"
    return numbers(trainer.learner.state)


def assert_equal_runs(tmp_path, config, stops) -> None:
    whole = make_trainer(tmp_path / "whole", config)
    assert whole.run() == "finished"
    pieces = run_in_pieces(tmp_path / "pieces", config, stops)
    for one, two in zip(numbers(whole.learner.state), pieces, strict=True):
        np.testing.assert_array_equal(one, two)
    assert reproducible(tmp_path / "pieces") == reproducible(tmp_path / "whole")
    assert any(row["episode_return"] for row in reproducible(tmp_path / "whole"))


# Of 24 updates and a checkpoint every 8: a stop before any checkpoint, right at one, after one, in
# the middle of collecting a batch (of two blocks), and with a row of metrics still open.
STOPS = [(3, 0), (8, 0), (11, 2), (12, 1), (13, 0)]


@pytest.mark.parametrize(
    ("learned", "checkpoint_batches", "stops"),
    [
        ("none", 0, [(4, 2)]),
        ("gamma,lambda", 8, [(8, 0), (11, 2)]),
        pytest.param("gamma,lambda", 0, STOPS, marks=pytest.mark.slow),
        pytest.param("gamma,lambda", 8, STOPS, marks=pytest.mark.slow),
    ],
)
def test_runs_of_catch_resume_bit_identically(tmp_path, learned, checkpoint_batches, stops):
    config = make_config(
        deterministic=True,
        meta_parameters=learned,
        total_frames=24 * BATCH_FRAMES,
        checkpoint_frames=checkpoint_batches * BATCH_FRAMES,
        log_frames=3 * BATCH_FRAMES,
    )
    assert_equal_runs(tmp_path, config, stops)


def test_a_batch_that_is_used_several_times_is_counted_once(tmp_path):
    """Also where it is stopped between two updates on a batch: frames and games are the same."""
    config = make_config(
        deterministic=True,
        total_frames=8 * BATCH_FRAMES,
        log_frames=3 * BATCH_FRAMES,
        sample_reuse=3,
    )
    assert_equal_runs(tmp_path, config, [(2, 0), (7, 0), (15, 1)])
    last = read_metrics(tmp_path / "whole")[-1]
    assert int(last["frames"]) == 8 * BATCH_FRAMES and int(last["updates"]) == 24
    once = make_trainer(tmp_path / "once", dataclasses.replace(config, sample_reuse=1))
    once.run()
    assert int(read_metrics(tmp_path / "once")[-1]["updates"]) == 8
    # Catch's games have a fixed length.
    assert read_metrics(tmp_path / "once")[-1]["episodes"] == last["episodes"]


def test_more_updates_than_frames(tmp_path):
    """A checkpoint of such a run was called damaged."""
    config = make_config(
        total_frames=2 * BATCH_FRAMES, sample_reuse=BATCH_FRAMES + 1, meta_parameters="none"
    )
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished" and trainer.updates > trainer.frames
    assert make_trainer(tmp_path, config).updates == trainer.updates


@pytest.mark.parametrize(
    "stops", [[(5, 0), (6, 1)], pytest.param([(10, 0)], marks=pytest.mark.slow)]
)
def test_between_two_batches_that_swap_their_roles(tmp_path, stops):
    config = make_config(
        deterministic=True,
        meta_data="swap",
        meta_learning_rate=0.1,
        total_frames=14 * BATCH_FRAMES,
        checkpoint_frames=9 * BATCH_FRAMES,
    )
    assert_equal_runs(tmp_path, config, stops)


def _stop_while_made(monkeypatch, stop, release) -> None:
    make = registry.make

    def make_late(*arguments, **named):
        stop.request("the test")
        return make(*arguments, **named)

    monkeypatch.setattr(registry, "make", make_late)


def _stop_while_reset(monkeypatch, stop, release) -> None:
    reset = GymnasiumEnvironment.reset

    def reset_late(self, seed):
        stop.request("the test")
        release.wait(60)
        return reset(self, seed)

    monkeypatch.setattr(GymnasiumEnvironment, "reset", reset_late)


def _stop_in_an_earlier_version(monkeypatch, stop, release) -> None:
    _stop_while_made(monkeypatch, stop, release)
    turn_alone = {"turn": np.array(0)}
    monkeypatch.setattr(TurnTakingSource, "state", lambda self, unused: turn_alone)


@pytest.mark.parametrize(
    "stop_early", [_stop_while_made, _stop_while_reset, _stop_in_an_earlier_version]
)
def test_a_stop_before_the_first_actor_is_ready(tmp_path, monkeypatch, stop_early):
    """Its checkpoint had a state of no actor, and the next start refused it as damaged."""
    monkeypatch.setattr("meta_impala.actors.startup._SECONDS_AFTER_STOP", 0.1)
    config = make_config(deterministic=True, meta_parameters="none")
    stop, release = StopRequest(), threading.Event()
    stopped = make_trainer(tmp_path / "pieces", config, stop)
    with monkeypatch.context() as patched:
        stop_early(patched, stop, release)
        assert stopped.run() == "stopped" and stopped.updates == 0
        release.set()
    saved = list_checkpoints(tmp_path / "pieces" / "checkpoints")[0]
    is_older = stop_early is _stop_in_an_earlier_version
    assert ("source.npz" in verify(saved)["files"]) == is_older
    continued = make_trainer(tmp_path / "pieces", config)
    assert continued.restored_from == str(saved) and continued.run() == "finished"
    whole = make_trainer(tmp_path / "whole", config)
    assert whole.run() == "finished"
    for one, two in zip(
        numbers(whole.learner.state), numbers(continued.learner.state), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert reproducible(tmp_path / "pieces") == reproducible(tmp_path / "whole")


@pytest.mark.slow
def test_blocks_larger_than_a_batch_a_core_and_restarts_by_exceptions(tmp_path, monkeypatch):
    from meta_impala.environments.catch import Catch

    step = Catch.step

    def step_or_raise(self, action):
        # Now and then, by what was drawn: the same in both runs.
        if self._ball_row == 3 and self.np_random.random() < 0.05:
            raise RuntimeError("the board fell over")
        return step(self, action)

    monkeypatch.setattr(Catch, "step", step_or_raise)
    config = make_config(
        deterministic=True,
        envs_per_actor=8,
        core="lstm",
        core_size=4,
        total_frames=16 * BATCH_FRAMES,
        checkpoint_frames=7 * BATCH_FRAMES,
        max_actor_restarts=1000,
    )
    assert_equal_runs(tmp_path, config, [(4, 0), (9, 0)])
    assert int(read_metrics(tmp_path / "whole")[-1]["actor_restarts"]) > 0


def test_runs_of_pong_resume_bit_identically(tmp_path):
    config = make_config(
        environment="ALE/Pong-v5",
        deterministic=True,
        meta_parameters="none",
        network="mlp",
        num_actors=1,
        envs_per_actor=4,
        unroll_length=10,
        total_frames=10 * 4 * 10 * 4,
        checkpoint_frames=4 * 4 * 10 * 4,
        log_frames=4 * 10 * 4,
    )
    whole = make_trainer(tmp_path / "whole", config)
    assert whole.run() == "finished"
    pieces = run_in_pieces(tmp_path / "pieces", config, [(7, 1)])
    for one, two in zip(numbers(whole.learner.state), pieces, strict=True):
        np.testing.assert_array_equal(one, two)
    assert reproducible(tmp_path / "pieces") == reproducible(tmp_path / "whole")


@pytest.mark.parametrize("updates", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_swapped_batches_resume_bit_identically(tmp_path, updates):
    """With --meta_data=swap the first batch of a pair is the second's meta batch, across a stop."""
    config = make_config(deterministic=True, meta_data="swap", checkpoint_frames=7 * BATCH_FRAMES)
    assert_equal_runs(tmp_path, config, [(updates, 0)])


def test_another_number_of_actors_starts_them_again(tmp_path):
    config = make_config(deterministic=True, meta_parameters="none", total_frames=24 * BATCH_FRAMES)
    stop = StopAtUpdate(5)
    stop.trainer = make_trainer(tmp_path, config, stop)
    assert stop.trainer.run() == "stopped"
    assert "source.npz" in verify(list_checkpoints(tmp_path / "checkpoints")[0])["files"]
    more = dataclasses.replace(config, num_actors=3)
    assert make_trainer(tmp_path, more).run() == "finished"


def test_blocks_of_another_length_are_not_taken_up(tmp_path):
    config = make_config(deterministic=True, meta_parameters="none", total_frames=24 * BATCH_FRAMES)
    stop = StopAtUpdate(5)
    stop.trainer = make_trainer(tmp_path, config, stop)
    assert stop.trainer.run() == "stopped"
    longer = dataclasses.replace(config, unroll_length=10, total_frames=34 * BATCH_FRAMES + 20)
    trainer = make_trainer(tmp_path, longer)
    assert trainer.frames == 5 * BATCH_FRAMES
    assert trainer.run() == "finished"


def test_an_environment_that_is_not_deterministic_is_detected(tmp_path, monkeypatch):
    from meta_impala.environments.catch import Catch

    config = make_config(deterministic=True, meta_parameters="none", total_frames=24 * BATCH_FRAMES)
    stop = StopAtUpdate(5)
    stop.trainer = make_trainer(tmp_path, config, stop)
    stop.trainer.run()
    board = Catch._board
    monkeypatch.setattr(Catch, "_board", lambda self: board(self) + 0.25)
    with pytest.raises(RunFailed, match="did not lead to the same observations"):
        make_trainer(tmp_path, config).run()
