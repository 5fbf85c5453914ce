"""Fault and determinism: whole runs on Catch, in process; every way a run can end."""

import dataclasses
import itertools
import shutil
import threading
import time
import traceback

import numpy as np
import pytest
import tensorflow as tf
import tqdm
from support.run_helpers import (
    BATCH_FRAMES,
    StopAfter,
    files_of,
    make_config,
    make_trainer,
    numbers,
    read_metrics,
    read_status,
)
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from meta_impala.algorithm.meta_parameters import logit
from meta_impala.environments import registry
from meta_impala.environments.catch import Catch
from meta_impala.environments.gymnasium_vector import GymnasiumEnvironment
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage import arrays as arrays_lib
from meta_impala.storage import checkpoint as checkpoint_lib
from meta_impala.storage.metrics_table import COLUMNS
from meta_impala.system import tensorflow_setup
from meta_impala.system.signals import StopRequest
from meta_impala.training import trainer as trainer_lib
from meta_impala.training.make_trainer import make_trainer as make_trainer_of_program
from meta_impala.training.metric_tags import tag
from meta_impala.training.metrics import NOT_REPRODUCIBLE


def plain_config(**settings):
    """For what has nothing to do with η: the plain update is traced in half the time."""
    return make_config(meta_parameters="none", **settings)


@pytest.mark.parametrize(
    ("learned", "deterministic"),
    [("gamma,lambda", False), ("gamma,lambda", True), ("gamma", False), ("lambda", True),
     ("none", False), ("none", True)],
)  # fmt: skip
def test_a_run_finishes_and_writes_its_folder(tmp_path, learned, deterministic):
    config = make_config(meta_parameters=learned, deterministic=deterministic)
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished"
    status = read_status(tmp_path)
    assert (status["state"], status["frames"]) == ("finished", 10 * BATCH_FRAMES)
    rows = read_metrics(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["frames"]) for row in rows] == [
        2 * BATCH_FRAMES * index for index in range(1, 6)
    ]
    assert [int(row["updates"]) for row in rows] == [2, 4, 6, 8, 10]
    last = rows[-1]
    assert (last["meta_gradient_norm"] == "") == (learned == "none")
    assert (last["meta_gradient_gamma"] == "") == ("gamma" not in learned)
    # Steps up and down may have brought it back to the start by the last row.
    assert any(abs(float(row["gamma"]) - 0.99) > 1e-6 for row in rows) == ("gamma" in learned)
    assert float(last["policy_lag"]) >= 1.0  # the one-batch lookahead
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == [f"frames-{10 * BATCH_FRAMES}"]
    assert status["checkpoint"] == names[0]
    assert list((tmp_path / "tensorboard").iterdir())
    assert trainer.learner.function.experimental_get_tracing_count() == 1


def test_environment_blocks_larger_than_a_batch_are_cut(tmp_path):
    config = plain_config(envs_per_actor=8, num_actors=1, batch_size=4)
    assert make_trainer(tmp_path, config).run() == "finished"
    assert read_status(tmp_path)["frames"] == 10 * BATCH_FRAMES


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_deterministic_runs_are_bit_identical(tmp_path, core):
    states, metrics = [], []
    for name in ("first", "second"):
        config = make_config(deterministic=True, core=core, core_size=8)
        trainer = make_trainer(tmp_path / name, config)
        trainer.run()
        states.append(numbers(trainer.learner.state))
        metrics.append(
            [
                {key: value for key, value in row.items() if key not in NOT_REPRODUCIBLE}
                for row in read_metrics(tmp_path / name)
            ]
        )
    for first, second in zip(*states, strict=True):
        np.testing.assert_array_equal(first, second)
    assert metrics[0] == metrics[1]
    if core == "lstm":
        return
    other = make_trainer(tmp_path / "third", make_config(deterministic=True, core=core, seed=2))
    other.run()
    assert read_metrics(tmp_path / "third")[-1]["inner_loss"] != metrics[0][-1]["inner_loss"]


def test_data_lag_and_weights_are_equal_with_and_without_the_meta_gradient(tmp_path):
    """With an η that cannot move, the meta-gradient changes nothing at all."""
    tensorflow_setup.set_graph_rewrites()
    start = float(tf.sigmoid(np.float32(logit(0.99))).numpy())
    shared = {"deterministic": True, "eta_embedding_size": 16}
    configs = {
        "meta": make_config(**shared, meta_learning_rate=1e-30),
        "plain": make_config(**shared, meta_parameters="none", gamma=start, lambda_=start),
    }
    states, rows = {}, {}
    for name, config in configs.items():
        trainer = make_trainer(tmp_path / name, config)
        trainer.run()
        network = trainer.learner.state.network
        states[name] = [
            *(variable.numpy() for variable in network.trainable_variables),
            *(variable.numpy() for variable in trainer.learner.state.slots["mean_squares"]),
        ]
        rows[name] = read_metrics(tmp_path / name)
    for meta, plain in zip(states["meta"], states["plain"], strict=True):
        np.testing.assert_array_equal(meta, plain)
    equal = ("frames", "episodes", "episode_return", "policy_lag", "entropy", "gradient_norm")
    for meta, plain in zip(rows["meta"], rows["plain"], strict=True):
        assert [meta[name] for name in equal] == [plain[name] for name in equal]
        assert float(meta["meta_gradient_norm"]) > 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_stopped_run_is_saved_and_continues_where_it_was(tmp_path, deterministic):
    config = make_config(total_frames=40 * BATCH_FRAMES, deterministic=deterministic)
    polls = 30 if deterministic else 40
    first = make_trainer(tmp_path, config, StopAfter(polls))
    assert first.run() == "stopped"
    assert read_status(tmp_path)["state"] == "stopped"
    assert 0 < first.frames < config.total_frames
    assert read_status(tmp_path)["frames"] == first.frames

    second = make_trainer(tmp_path, config)
    assert (second.frames, second.updates) == (first.frames, first.updates)
    for before, after in zip(
        numbers(first.learner.state), numbers(second.learner.state), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    assert second.learner.learning_rate(second.frames) < config.learning_rate
    assert second.run() == "finished"
    frames = [int(row["frames"]) for row in read_metrics(tmp_path)]
    assert frames == sorted(set(frames))
    assert frames[-1] == 40 * BATCH_FRAMES
    seconds = [float(row["seconds"]) for row in read_metrics(tmp_path)]
    assert seconds == sorted(seconds)


def test_rows_after_the_restored_frame_and_truncated_rows_are_cut(tmp_path):
    config = plain_config(total_frames=4 * BATCH_FRAMES)
    make_trainer(tmp_path, config).run()
    path = tmp_path / "metrics.csv"
    lines = path.read_text("utf-8").splitlines()
    later = lines[-1].replace(str(4 * BATCH_FRAMES), str(9 * BATCH_FRAMES), 1)
    path.write_text("\n".join([*lines, later, later[:20]]), "utf-8")
    longer = dataclasses.replace(config, total_frames=6 * BATCH_FRAMES)
    make_trainer(tmp_path, longer).run()
    frames = [int(row["frames"]) for row in read_metrics(tmp_path)]
    assert frames == [2 * BATCH_FRAMES, 4 * BATCH_FRAMES, 6 * BATCH_FRAMES]


def test_tensorboard_drops_rows_after_the_restored_checkpoint(tmp_path):
    config = plain_config(total_frames=8 * BATCH_FRAMES, checkpoint_frames=4 * BATCH_FRAMES)
    make_trainer(tmp_path, config).run()
    # As after a kill: everything but the checkpoint was further.
    shutil.rmtree(tmp_path / "checkpoints" / f"frames-{8 * BATCH_FRAMES}")
    # TensorBoard reads the files by name: seconds of the clock, then a number whose order as text
    # is not its own. Two starts of the program are never within a second.
    time.sleep(1.1)
    make_trainer(tmp_path, config).run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("episodes", "updates"):
        steps = [tensor.step for tensor in events.Tensors(tag(name))]
        assert steps == [BATCH_FRAMES * updates for updates in (2, 4, 6, 8)]


def _sabotage(monkeypatch, sabotage) -> None:
    """Lets the 20th step of any environment call `sabotage`."""
    make = registry.make

    def make_bad(*arguments, **named):
        environment = make(*arguments, **named)
        step, count = environment.step, iter(range(10**9))

        def bad_step(actions, **named):
            if next(count) == 20:
                sabotage()
            return step(actions, **named)

        environment.step = bad_step
        return environment

    monkeypatch.setattr(registry, "make", make_bad)


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_exception_in_an_environment_ends_the_run_with_its_own_traceback(
    tmp_path, monkeypatch, deterministic
):
    def explode_in_the_emulator():
        raise RuntimeError("the emulator caught fire")

    _sabotage(monkeypatch, explode_in_the_emulator)
    before = set(threading.enumerate())
    config = plain_config(deterministic=deterministic, max_actor_restarts=0)
    trainer = make_trainer(tmp_path, config)
    with pytest.raises(RuntimeError, match="caught fire") as caught:
        trainer.run()
    functions = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "explode_in_the_emulator" in functions
    status = read_status(tmp_path)
    assert status["state"] == "failed"
    assert "caught fire" in status["reason"]
    left = set(threading.enumerate()) - before
    assert [t for t in left if not isinstance(t, tqdm.TMonitor)] == [], "but tqdm's own"


def test_an_environment_that_hangs_ends_the_run_and_the_threads_are_named(tmp_path, monkeypatch):
    release = threading.Event()
    _sabotage(monkeypatch, lambda: release.wait(60))
    # With room for all their blocks, both hang at once.
    config = plain_config(stall_timeout=4.0, queue_capacity=100, total_frames=10**9)
    trainer = make_trainer(tmp_path, config)
    monkeypatch.setattr("meta_impala.actors.threaded._JOIN_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"--stall_timeout.*actor-0, actor-1"):
        trainer.run()
    assert time.monotonic() - started < 30
    release.set()
    assert read_status(tmp_path)["state"] == "failed"
    stacks = (tmp_path / "stacks.txt").read_text("utf-8")
    assert "thread actor-1:" in stacks and "bad_step" in stacks
    # What was learned until then is not lost.
    assert read_status(tmp_path)["checkpoint"] == f"frames-{trainer.frames}"


def test_one_hanging_actor_is_found_while_the_other_continues(tmp_path, monkeypatch):
    release = threading.Event()
    hung = threading.Lock()

    def hang_once():
        if hung.acquire(blocking=False):
            release.wait(60)

    _sabotage(monkeypatch, hang_once)
    monkeypatch.setattr("meta_impala.actors.threaded._JOIN_SECONDS", 0.1)
    config = plain_config(stall_timeout=4.0, total_frames=10**9)
    with pytest.raises(TimeoutError, match="from actor-[01];") as caught:
        make_trainer(tmp_path, config).run()
    release.set()
    assert "from actor-0" in str(caught.value) or "from actor-1" in str(caught.value)
    assert read_status(tmp_path)["reason"] == str(caught.value)


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_environment_that_raises_is_made_again_and_counted(tmp_path, monkeypatch, deterministic):
    def explode():
        raise RuntimeError("the emulator caught fire")

    _sabotage(monkeypatch, explode)
    config = plain_config(deterministic=deterministic, max_actor_restarts=3, total_frames=10**9)
    trainer = make_trainer(tmp_path, config)
    with pytest.raises(RuntimeError, match="caught fire"):
        trainer.run()
    counts = [int(row["actor_restarts"]) for row in read_metrics(tmp_path)]
    assert counts == sorted(counts) and 0 < counts[-1] <= 3
    status = read_status(tmp_path)
    assert status["state"] == "failed"
    if deterministic:
        assert counts[0] == 0
        return
    # What was learned is saved, though the run failed, and the count goes on from there.
    newest = tmp_path / "checkpoints" / f"frames-{trainer.frames}"
    assert status["checkpoint"] == newest.name
    assert checkpoint_lib.verify(newest)["progress"]["actor_restarts"] == 3
    again = make_trainer(tmp_path, config)
    assert again.frames == trainer.frames
    with pytest.raises(RuntimeError, match="caught fire"):
        again.run()
    newest = tmp_path / "checkpoints" / f"frames-{again.frames}"
    assert checkpoint_lib.verify(newest)["progress"]["actor_restarts"] == 6


def test_restarted_environments_have_seeds_of_their_own(monkeypatch, tmp_path):
    seeds = []
    reset = GymnasiumEnvironment.reset
    monkeypatch.setattr(
        GymnasiumEnvironment, "reset", lambda self, seed: (seeds.append(seed), reset(self, seed))[1]
    )

    def explode():
        raise SystemExit  # an environment may even do this

    _sabotage(monkeypatch, explode)
    # As it is, a SystemExit would end the process with exit code 0.
    with pytest.raises(RunFailed, match="an environment ended the program"):
        make_trainer(tmp_path, plain_config(max_actor_restarts=4, total_frames=10**9)).run()
    assert len(seeds) == 2 + 4
    # Environment i of an actor has seed + i.
    assert min(abs(a - b) for a, b in itertools.combinations(seeds, 2)) >= 2


def test_environments_that_do_not_start_again_at_once_are_made_again(tmp_path, monkeypatch):
    """One step raises, and so do the next two attempts to make new environments."""
    failures = iter([True, True])
    once = threading.Lock()

    def explode():
        if once.acquire(blocking=False):
            raise RuntimeError("the server is gone")

    _sabotage(monkeypatch, explode)
    make_bad = registry.make

    def make_later(*arguments, **named):
        if once.locked() and next(failures, False):
            raise ConnectionError("the server is starting")
        return make_bad(*arguments, **named)

    monkeypatch.setattr(registry, "make", make_later)
    monkeypatch.setattr("meta_impala.actors.restarts._SECONDS_BETWEEN_RESTARTS", 0.01)
    config = plain_config(max_actor_restarts=3, total_frames=60 * BATCH_FRAMES)
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished"
    assert trainer._restarts.count == 3
    assert next(failures, "both were met") == "both were met"


def test_the_last_checkpoint_is_saved_also_if_environments_cannot_be_closed(
    tmp_path, monkeypatch, capfd
):
    closes = []

    def close(self):
        closes.append(self)
        raise BrokenPipeError("its process was interrupted too")

    trainer = make_trainer(tmp_path, plain_config(total_frames=10**9), StopAfter(40))
    monkeypatch.setattr(GymnasiumEnvironment, "close", close)
    assert trainer.run() == "stopped"
    status = read_status(tmp_path)
    assert (status["state"], status["checkpoint"]) == ("stopped", f"frames-{trainer.frames}")
    assert len(closes) == len(set(map(id, closes))) == 2, "each is closed once"
    warnings = capfd.readouterr().err
    assert "environments of actor-0 could not be closed: BrokenPipeError" in warnings


def _hang_at_the_next_reset_but_one(monkeypatch) -> threading.Event:
    release, count = threading.Event(), itertools.count(1)
    reset = GymnasiumEnvironment.reset

    def hang(self, seed):
        if next(count) == 2:
            release.wait(60)
        return reset(self, seed)

    monkeypatch.setattr(GymnasiumEnvironment, "reset", hang)
    return release


def test_environments_that_hang_while_they_start_are_found(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, plain_config(stall_timeout=2.0))
    release = _hang_at_the_next_reset_but_one(monkeypatch)
    monkeypatch.setattr(trainer_lib, "_LEARNER_EXTRA_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="from the start of the environments") as caught:
        trainer.run()
    release.set()
    assert read_status(tmp_path)["reason"] == str(caught.value)
    stacks = (tmp_path / "stacks.txt").read_text("utf-8")
    assert "thread start of actor-1:" in stacks and "hang" in stacks


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_request_to_stop_ends_a_start_that_hangs(tmp_path, monkeypatch, deterministic):
    monkeypatch.setattr("meta_impala.actors.startup._SECONDS_AFTER_STOP", 0.3)
    stop = StopRequest()
    threading.Timer(1.0, stop.request, ["the test"]).start()
    trainer = make_trainer(tmp_path, plain_config(deterministic=deterministic), stop)
    release = _hang_at_the_next_reset_but_one(monkeypatch)
    started = time.monotonic()
    assert trainer.run() == "stopped"
    assert time.monotonic() - started < 30
    release.set()
    assert read_status(tmp_path)["state"] == "stopped"


def _poison(monkeypatch, trainer, poison) -> None:
    """Lets `poison(number, unroll)` change the batches, which are numbered from 0."""
    fetch, count = trainer._batcher._fetch, itertools.count()

    def poisoned(blocks):
        batch = fetch(blocks)
        batch.unroll = poison(next(count), batch.unroll)
        return batch

    monkeypatch.setattr(trainer._batcher, "_fetch", poisoned)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rewards", np.nan), ("observations", np.inf), ("behaviour_log_probs", -np.nan)],
)
def test_an_update_that_is_not_finite_is_not_applied_and_kept(
    tmp_path, monkeypatch, field, value, capsys
):
    config = make_config(checkpoint_frames=BATCH_FRAMES, reward_clip=0.0, keep_checkpoints=20)
    trainer = make_trainer(tmp_path, config)

    def poison(number, batch):
        if number != 5:
            return batch
        return batch._replace(**{field: getattr(batch, field) + value})

    _poison(monkeypatch, trainer, poison)
    assert trainer.run() == "finished"
    # The batch was the meta batch of the fifth update, and was learned from in the sixth.
    rows = read_metrics(tmp_path)
    assert [int(row["bad_updates"]) for row in rows] == [0, 0, 2, 2, 2]
    assert all(row["inner_loss"] for row in rows if row["updates"] != "6")
    assert not rows[2]["inner_loss"] and rows[2]["gamma"]
    states = [
        make_supervisor_at(tmp_path, frames * BATCH_FRAMES, config) for frames in (4, 5, 6, 7)
    ]
    assert all(np.isfinite(array).all() for state in states for array in state)
    same = [
        sum(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
        for before, after in itertools.pairwise(states)
    ]
    # Only the two counters moved, and then everything did.
    assert same[:2] == [len(states[0]) - 2] * 2 and same[2] < len(states[0]) / 2
    kept = tmp_path / "bad_updates" / "update-6.npz"
    arrays = arrays_lib.read_arrays(kept)
    assert not np.isfinite(arrays[f"batch {field}"]).any()
    assert arrays["statistics applied"] == 0
    assert f"{field} of the batch; it is kept in {kept}" in capsys.readouterr().err


def make_supervisor_at(path, frames: int, config) -> list[np.ndarray]:
    """The state of one checkpoint of a run."""
    copy = path / f"only-{frames}"
    (copy / "checkpoints").mkdir(parents=True)
    name = f"frames-{frames}"
    shutil.copytree(path / "checkpoints" / name, copy / "checkpoints" / name)
    return numbers(make_trainer(copy, config).learner.state)


def test_many_updates_in_a_row_that_are_not_finite_end_the_run(tmp_path, monkeypatch):
    config = make_config(total_frames=10**9, max_bad_updates=7)
    trainer = make_trainer(tmp_path, config)
    _poison(
        monkeypatch,
        trainer,
        lambda number, batch: (
            batch._replace(rewards=batch.rewards * np.nan) if number >= 4 else batch
        ),
    )
    with pytest.raises(RunFailed, match=r"7 updates in a row \(--max_bad_updates\)") as caught:
        trainer.run()
    assert "rewards of the batch" in str(caught.value)
    assert trainer.updates == 3 + 7
    assert read_status(tmp_path)["state"] == "failed"
    assert len(list((tmp_path / "bad_updates").iterdir())) == 5
    again = make_trainer(tmp_path, config)
    assert again.updates == trainer.updates
    assert all(np.isfinite(array).all() for array in numbers(again.learner.state))


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_an_environment_whose_observations_are_not_finite_now_and_then(tmp_path, monkeypatch, core):
    """Through the policy and the emulator's check of actions, and on to the learner."""
    board, calls = Catch._board, iter(range(10**9))

    def broken_board(self):
        return board(self) * (np.nan if next(calls) % 97 == 50 else 1.0)

    monkeypatch.setattr(Catch, "_board", broken_board)
    config = make_config(deterministic=True, total_frames=60 * BATCH_FRAMES, core=core, core_size=4)
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished"
    last = read_metrics(tmp_path)[-1]
    assert 5 <= int(last["bad_updates"]) < 60
    assert int(last["actor_restarts"]) == 0
    assert all(np.isfinite(array).all() for array in numbers(trainer.learner.state))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    make_trainer(tmp_path, plain_config()).run()
    before = files_of(tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"network's mlp_sizes \[8\] \(here \[9\]\)"):
        make_trainer(tmp_path, plain_config(mlp_sizes="9"))
    assert files_of(tmp_path / "checkpoints") == before


def test_checkpoints_by_frames_and_how_many_are_kept(tmp_path):
    config = plain_config(checkpoint_frames=2 * BATCH_FRAMES, keep_checkpoints=2)
    make_trainer(tmp_path, config).run()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"frames-{8 * BATCH_FRAMES}", f"frames-{10 * BATCH_FRAMES}"]


def test_plain_and_meta_runs_count_frames_when_a_batch_is_used(tmp_path):
    """The lookahead batch is not counted: as many frames as updates times batch frames."""
    for learned in ("none", "gamma"):
        trainer = make_trainer(tmp_path / learned, make_config(meta_parameters=learned))
        trainer.run()
        state = trainer.learner.state
        assert int(state.frames.numpy()) == int(state.updates.numpy()) * BATCH_FRAMES


def test_a_refused_start_of_a_replay_leaves_no_folder(tmp_path):
    (tmp_path / "metrics.csv").write_text("frames,gamma,lambda\n100,0.9,0.8\n")
    config = make_config(
        eta_schedule="replay", eta_schedule_file=f"{tmp_path}/metrics.csv", learner_device="gpu:7"
    )
    with pytest.raises(UserError, match="gpu:7"):
        make_trainer_of_program(config, tmp_path / "new" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_gpu_that_is_not_there_is_refused():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("there is one")
    with pytest.raises(UserError, match="--learner_device=gpu:3"):
        tensorflow_setup.learner_device("gpu:3")


@pytest.mark.parametrize(
    ("error", "raised", "state"),
    [(KeyboardInterrupt, KeyboardInterrupt, "stopped"), (SystemExit, RunFailed, "failed")],
)
@pytest.mark.parametrize("is_updating", [False, True])
def test_an_end_of_the_program_between_updates_saves_what_was_learned(
    is_updating, error, raised, state, tmp_path
):
    """Such as from the handler of a signal of the calling program, in its main thread."""
    trainer = make_trainer(tmp_path, plain_config())
    update, made = trainer.learner.update, []

    def update_or_end(*given):
        made.append(1)
        if len(made) == 4:
            raise error
        return update(*given)

    def evaluate_or_end():
        if len(made) == 3:
            raise error

    if is_updating:
        trainer.learner.update = update_or_end
    else:
        trainer.learner.update = lambda *given: (made.append(1), update(*given))[1]
        trainer._evaluate = evaluate_or_end
    with pytest.raises(raised):
        trainer.run()
    status = read_status(tmp_path)
    assert status["state"] == state and status["frames"] == 3 * BATCH_FRAMES
    assert status.get("checkpoint") == (None if is_updating else f"frames-{3 * BATCH_FRAMES}")
