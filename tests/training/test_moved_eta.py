"""η as a function of frames, in whole deterministic runs. Equivalence: a constant is a fixed η,
and a replay of a learned run is fed its η at the same frames; determinism: a stopped run.
"""

import dataclasses

import numpy as np
import pytest
from support.run_helpers import BATCH_FRAMES, make_config, make_trainer, numbers, read_metrics

from meta_impala.config import resolve_network
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.learner.learner import Learner
from meta_impala.storage.trained_agent import load_agent
from meta_impala.system.signals import StopRequest
from meta_impala.training import make_trainer as python_entry
from meta_impala.training.trainer import Trainer

EVERY_UPDATE = {"deterministic": True, "log_frames": BATCH_FRAMES}


@pytest.fixture
def fed(monkeypatch):
    """Frames -> γ, λ of the updates, and of the snapshots that act after them."""
    seen = {"updates": {}, "acting": {}}
    update = Learner.update

    def recorded(self, batch, other, updates, frames):
        statistics, snapshot = update(self, batch, other, updates, frames)
        seen["updates"][frames] = (statistics.gamma, statistics.lambda_)
        seen["acting"][int(self.state.frames.numpy())] = tuple(snapshot.eta.values.numpy().tolist())
        return statistics, snapshot

    monkeypatch.setattr(Learner, "update", recorded)

    def take():
        found = {kind: dict(values) for kind, values in seen.items()}
        for values in seen.values():
            values.clear()
        return found

    return take


class StopAtFrames(StopRequest):
    """Asks to stop once the trainer has learned from so many frames."""

    trainer: Trainer

    def __init__(self, frames: int) -> None:
        super().__init__()
        self._frames = frames

    def is_set(self) -> bool:
        return self.trainer.frames >= self._frames


def resumed_trainer(folder) -> Trainer:
    """As the command makes it that continues a run: from nothing but the folder."""
    config = folder.load_config()
    description = registry.describe(config.environment, config.protocol)
    return Trainer(config, description, folder, StopRequest())


def replay(path, **settings):
    return make_config(**EVERY_UPDATE, eta_schedule="replay", eta_schedule_file=str(path),
                       **settings)  # fmt: skip


def write_constant(path):
    path.write_text("frames,gamma,lambda\n100,0.9,0.8\n")
    return path


def constant_runs(tmp_path):
    fixed = make_config(**EVERY_UPDATE, eta_schedule="fixed", gamma=0.9, lambda_=0.8)
    return {
        "fixed": fixed,
        "replay": replay(write_constant(tmp_path / "constant.csv")),
        "linear": dataclasses.replace(
            fixed, eta_schedule="linear", eta_linear_gamma="0.9,0.9", eta_linear_lambda="0.8,0.8"
        ),
    }


@pytest.mark.parametrize("schedule", ["replay", "linear"])
def test_a_constant_is_a_fixed_eta_to_the_bit(tmp_path, schedule):
    runs = constant_runs(tmp_path)
    states = []
    for name in ("fixed", schedule):
        trainer = make_trainer(tmp_path / name, runs[name])
        assert trainer.run() == "finished"
        states.append(numbers(trainer.learner.state))
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = read_metrics(tmp_path / schedule)
    assert {(row["gamma"], row["lambda"]) for row in rows} == {("0.9", "0.8")} or {
        (float(row["gamma"]), float(row["lambda"])) for row in rows
    } == {(float(f"{np.float32(0.9):.8g}"), float(f"{np.float32(0.8):.8g}"))}


def test_a_replay_is_fed_what_the_learned_run_was_fed_at_the_same_frames(tmp_path, fed):
    learned = make_config(**EVERY_UPDATE, meta_learning_rate=0.05)
    make_trainer(tmp_path / "learned", learned).run()
    first = fed()
    trainer = make_trainer(tmp_path / "replay", replay(tmp_path / "learned" / "metrics.csv"))
    trainer.run()
    second = fed()
    assert len(set(first["updates"].values())) == len(first["updates"]) == 10
    assert second["updates"] == first["updates"]
    # What acts is what the next update uses; after the last one the file says no more.
    last = max(first["acting"])
    del first["acting"][last]
    assert second["acting"].pop(last) == first["updates"][last - BATCH_FRAMES]
    assert second["acting"] == first["acting"]
    # The network has the same inputs: an embedding, though nothing is learned.
    assert trainer.config.eta_embedding_size == 16 and not trainer.config.learned


# A set that acts on J, on V-trace and on U; the network is told of two of them.
LEARNED_SET = {
    "meta_parameters": "gamma,entropy_cost,rho_clip,learning_rate_factor,rmsprop_decay,"
    "max_gradient_norm",
    "embedded_meta_parameters": "entropy_cost,learning_rate_factor",
    "meta_parameter_ranges": "max_gradient_norm:1,30",
    "lambda_": 0.9,
    "max_gradient_norm": 3.0,
    "learning_rate_schedule": "constant",
}


def test_the_yoked_control_of_any_learned_set_is_the_learned_run(tmp_path):
    """With the same seed it makes the same updates: θ is that of the learned run to the rounding of
    the eight digits in the file (1.5e-8 here), and so is the table. One column held at its start
    would move θ by 3e-5 to 8e-3."""
    learned = make_config(**EVERY_UPDATE, **LEARNED_SET, meta_learning_rate=0.3)
    trainers = [make_trainer(tmp_path / "learned", learned)]
    trainers[0].run()
    path = tmp_path / "learned" / "metrics.csv"
    trainers.append(make_trainer(tmp_path / "yoked", replay(path, **LEARNED_SET)))
    trainers[1].run()
    assert not trainers[1].config.learned
    one, other = (numbers(trainer.learner.state.network) for trainer in trainers)
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-6)
    rows, again = (read_metrics(tmp_path / name) for name in ("learned", "yoked"))
    for name in learned.learned:
        values = [float(row[name]) for row in rows]
        assert len(set(values)) >= 9, name  # it moved in every update but for the first, perhaps
        np.testing.assert_allclose([float(row[name]) for row in again], values, rtol=1e-7)
        assert {row[f"x_step_{name}"] for row in again} == {""}


def test_a_linear_eta_reaches_its_end_at_the_end(tmp_path, fed):
    settings = {
        "eta_linear_gamma": "0.5,0.9", "eta_linear_lambda": "1,0.2",
        "meta_parameters": "gamma,lambda,entropy_cost,learning_rate_factor",
        "embedded_meta_parameters": "entropy_cost", "entropy_cost": 0.01,
        "eta_linear_ends": "entropy_cost:0.002,0.012;learning_rate_factor:1.5,0.5",
    }  # fmt: skip
    make_trainer(tmp_path, make_config(**EVERY_UPDATE, eta_schedule="linear", **settings)).run()
    seen = fed()
    for frames, (*discounts, place) in seen["acting"].items():
        np.testing.assert_allclose(place, 0.1 + 0.5 * frames / (10 * BATCH_FRAMES), 1e-6)
        seen["acting"][frames] = discounts
    rows = read_metrics(tmp_path)  # of updates that began at 0, 1/10, 2/10 …
    shares = np.arange(10) / 10
    for name, values in (("entropy_cost", 0.002 + 0.01 * shares),
                         ("learning_rate_factor", 1.5 - shares)):  # fmt: skip
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)
    total = 10 * BATCH_FRAMES
    for frames, (gamma, lambda_) in (seen["updates"] | seen["acting"]).items():
        share = frames / total
        np.testing.assert_allclose([gamma, lambda_], [0.5 + 0.4 * share, 1 - 0.8 * share], 1e-6)
    assert seen["acting"][total] == pytest.approx((0.9, 0.2))


@pytest.mark.parametrize("schedule", ["replay", "linear"])
@pytest.mark.parametrize("learned", ["gamma", "lambda"])
def test_parameters_outside_the_schedule_do_not_change(tmp_path, fed, schedule, learned):
    path = tmp_path / "two.csv"
    path.write_text("frames,gamma,lambda\n0,0.6,0.7\n100,0.65,0.75\n")
    settings = {"meta_parameters": learned, "gamma": 0.95, "lambda_": 0.85}
    config = replay(path, **settings)
    if schedule == "linear":
        config = make_config(
            **EVERY_UPDATE, **settings, eta_schedule="linear",
            eta_linear_gamma="0.6,0.65", eta_linear_lambda="0.7,0.75",
        )  # fmt: skip
    make_trainer(tmp_path / "run", config).run()
    gammas, lambdas = (set(values) for values in zip(*fed()["updates"].values(), strict=True))
    moved, still, constant = (
        (gammas, lambdas, 0.85) if learned == "gamma" else (lambdas, gammas, 0.95)
    )
    assert still == {float(np.float32(constant))} and len(moved) > 1


@pytest.mark.parametrize("schedule", ["replay", "linear"])
def test_a_stopped_run_continues_bit_identically(tmp_path, schedule):
    path = tmp_path / "source.csv"
    lines = [f"{20 * i},{0.5 + 0.04 * i},{1 - 0.05 * i}\n" for i in range(10)]
    path.write_text("frames,gamma,lambda\n" + "".join(lines))
    config = replay(path)
    if schedule == "linear":
        config = make_config(**EVERY_UPDATE, eta_schedule="linear", eta_linear_gamma="0.5,0.9")
    config = dataclasses.replace(config, learning_rate_schedule="constant")
    straight = make_trainer(tmp_path / "straight", config)
    straight.run()

    stop = StopAtFrames(5 * BATCH_FRAMES)
    stopped = stop.trainer = make_trainer(tmp_path / "stopped", config, stop)
    assert stopped.run() == "stopped" and stopped.frames == 5 * BATCH_FRAMES
    path.unlink()
    again = resumed_trainer(stopped.folder)
    assert again.run() == "finished"
    for one, other in zip(numbers(straight.learner.state), numbers(again.learner.state),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    columns = ("frames", "gamma", "lambda", "inner_loss", "episode_return")
    both = [read_metrics(tmp_path / name) for name in ("straight", "stopped")]
    assert [[row[c] for c in columns] for row in both[0]] == [
        [row[c] for c in columns] for row in both[1]
    ]


def test_an_evaluation_plays_at_the_checkpoints_eta(tmp_path):
    path = tmp_path / "source.csv"
    path.write_text("frames,gamma,lambda\n0,0.5,0.5\n100,0.6,0.6\n200,0.7,0.8\n300,0.9,0.9\n")
    trainer = make_trainer(tmp_path / "run", replay(path))
    trainer.run()
    description = registry.describe(trainer.config.environment, trainer.config.protocol)
    config = resolve_network(trainer.config, description.observation_shape)
    path.unlink()
    agent = load_agent(trainer.folder.checkpoints, config, description)
    assert agent.frames == 200
    np.testing.assert_allclose(agent.snapshot.eta.values, [0.7, 0.8], rtol=1e-6)
    trainer.folder.eta_schedule_path.write_text("frames,gamma,lambda\n0,0.5,0.5\n")
    with pytest.raises(UserError, match="has changed since the run began"):
        load_agent(trainer.folder.checkpoints, config, description)


def test_a_program_replays_and_continues_too(tmp_path):
    """`make_trainer` copies the file, and takes the same config again for the run it began."""
    path = write_constant(tmp_path / "constant.csv")
    config = dataclasses.replace(replay(path), total_frames=2 * BATCH_FRAMES)
    trainer = python_entry.make_trainer(config, tmp_path / "run")
    assert trainer.run() == "finished" and len(trainer.config.eta_schedule_sha256) == 64
    path.unlink()
    longer = dataclasses.replace(config, total_frames=4 * BATCH_FRAMES)
    again = python_entry.make_trainer(longer, tmp_path / "run")
    assert again.config.eta_schedule_sha256 == trainer.config.eta_schedule_sha256
    assert again.frames == 2 * BATCH_FRAMES and again.run() == "finished"
