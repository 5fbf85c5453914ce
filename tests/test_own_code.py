"""A network, an environment and an optimiser from outside the package, without a change in it: they
train, are saved, continued and evaluated, by command and from Python; what is wrong is one line.
"""

import importlib
import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import forked_command
from support.command_helpers import ROOT
from support.helpers import make_agent, perturb, random_batch
from support.run_helpers import BATCH_FRAMES, make_config, read_status

import meta_impala
from meta_impala.algorithm import losses, optimizers
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.manifest import list_checkpoints

CODE = """
import gymnasium, numpy as np, sonnet as snt, tensorflow as tf
from meta_impala.environments.catch import Catch
from meta_impala.networks.torsos import Torso


class Mirrored(Catch):
    def step(self, action):
        return super().step(2 - action)


gymnasium.register("Mirrored-v0", entry_point=Mirrored)


class Small(Torso):
    def __init__(self, dtype, compute_dtype=None):
        super().__init__(dtype, compute_dtype)
        self.first, self.last = snt.Linear(12), snt.Linear(9)

    def body(self, observations):
        return tf.tanh(self.first(snt.flatten(tf.cast(observations, self._dtype))))

    @property
    def last_layer(self):
        return self.last


class Variables(Small):
    # Of its own, and in a list: both are read as attributes.
    def __init__(self, dtype, compute_dtype=None):
        super().__init__(dtype, compute_dtype)
        self.scale = tf.Variable(tf.ones([], dtype))
        self.shifts = [tf.Variable(tf.zeros([12], dtype))]

    def body(self, observations):
        return super().body(observations) * self.scale + self.shifts[0]


class Keras(Small):
    def __init__(self, dtype, compute_dtype=None):
        super().__init__(dtype, compute_dtype)
        import tf_keras
        self.dense = tf_keras.layers.Dense(12)

    def body(self, observations):
        return self.dense(super().body(observations))


class Raises(Small):
    def body(self, observations):
        raise KeyError("no such thing")


class Exits(Small):
    def body(self, observations):
        raise SystemExit


class ExitsWhenMade(Small):
    def __init__(self, dtype, compute_dtype=None):
        raise SystemExit(0)


class NeedsMore(Small):
    def __init__(self, dtype, compute_dtype, width):
        super().__init__(dtype, compute_dtype)


class Flat(Small):
    def body(self, observations):
        return super().body(observations)[:, 0]


class Numpy(Small):
    def body(self, observations):
        return np.zeros([1, 12], np.float32)


class Half(Small):
    def body(self, observations):
        return tf.cast(super().body(observations), tf.float16)


class WithoutLast(Torso):
    def body(self, observations):
        return snt.flatten(observations)


class NoTorso:
    pass


def function():
    pass
"""


class Momentum:
    def initial_slots(self, parameters):
        return {"momenta": [0.0 * parameter for parameter in parameters]}

    def step(self, gradients, slots, learning_rate):
        momenta = [0.5 * m + g for m, g in zip(slots["momenta"], gradients, strict=True)]
        return [learning_rate * momentum for momentum in momenta], {"momenta": momenta}


def _momentum(settings, differentiate):
    return Momentum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine_outside.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("mine_outside", None)


@pytest.fixture
def momentum(monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", dict(optimizers.OPTIMIZERS))
    optimizers.register_optimizer("outside_momentum", _momentum)
    return "outside_momentum"


@pytest.mark.parametrize("core", ["none", pytest.param("lstm", marks=pytest.mark.slow)])
def test_own_environment_network_and_optimiser_train_resume_and_are_evaluated(
    core, folder, momentum, tmp_path
):
    own = {
        "environment": "mine_outside:Mirrored-v0",
        "network": "mine_outside:Small",
        "inner_optimizer": momentum,
        "core": core,
        "core_size": 4,
        "learning_rate_schedule": "constant",
    }
    logdir = tmp_path / "run"
    trainer = meta_impala.make_trainer(make_config(**own), logdir)
    assert trainer.run() == "finished"
    slots = [np.abs(slot.numpy()).max() for slot in trainer.learner.state.slots["momenta"]]
    assert len(slots) == len(trainer.learner.state.network.trainable_variables)
    assert max(slots) > 0
    before = [variable.numpy() for variable in trainer.learner.state.variables]

    longer = make_config(**own, total_frames=14 * BATCH_FRAMES)
    resumed = meta_impala.make_trainer(longer, logdir)
    assert resumed.run() == "finished"
    status = read_status(logdir)
    assert status["frames"] == 14 * BATCH_FRAMES and int(resumed.learner.state.updates) == 14
    assert len(before) == len(resumed.learner.state.variables)

    for call in (meta_impala.load, meta_impala.evaluate_agent):
        with pytest.raises(UserError, match="give trust_modules=True if you trust this file$"):
            call(logdir)
    result = meta_impala.evaluate_agent(logdir, 3, trust_modules=True)
    assert len(result["returns"]) == 3


def test_the_commands_take_an_environment_and_a_network(folder, tmp_path):
    def run(*arguments):
        return forked_command.run(
            [sys.executable, "-m", "meta_impala", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    names = ("--environment=mine_outside:Mirrored-v0", "--network=mine_outside:Small")
    tiny = (
        "--batch_size=4",
        "--meta_batch_size=4",
        "--envs_per_actor=2",
        "--unroll_length=5",
        "--log_frames=100",
    )
    logdir = f"--logdir={tmp_path / 'run'}"
    trained = run("train", *names, *tiny, logdir, "--total_frames=200")
    assert trained.returncode == 0, trained.stderr
    resumed = run("train", *names, logdir, "--total_frames=400", "--override")
    assert resumed.returncode == 0, resumed.stderr
    assert list_checkpoints(tmp_path / "run/checkpoints")[0].name == "frames-400"
    refused = run("evaluate", logdir, "--episodes=2")
    assert refused.returncode == 2 and "give --trust_modules" in refused.stderr
    evaluated = run("evaluate", logdir, "--episodes=2", "--trust_modules")
    assert evaluated.returncode == 0, evaluated.stderr
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert settings["network"] == "mine_outside:Small"


@pytest.mark.parametrize(
    ("name", "core"), [("Small", "none"), ("Variables", "none"), ("Small", "lstm")]
)
@pytest.mark.usefixtures("eager")
def test_the_meta_gradient_goes_through_a_network_from_outside(name, core, folder):
    agent = make_agent(network=f"mine_outside:{name}", core=core, core_size=4)
    perturb(agent, 1)
    before = [variable.numpy() for variable in agent.network.trainable_variables]
    x = agent.learner.state.x.numpy()
    batch = random_batch(agent, 1)
    agent.learner.update(batch, random_batch(agent, 2), 0, 0)
    after = [variable.numpy() for variable in agent.network.trainable_variables]
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))
    assert np.all(agent.learner.state.x.numpy() != x)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", "there is no such class; must be a subclass"),
        ("NoTorso", "it is not a Torso"),
        ("function", "it is not a Torso"),
        ("Raises", r"fails on observations \[3, 2\]: KeyError: 'no such thing' \(mine_outside.py"),
        ("NeedsMore", "its constructor raised TypeError: .*width"),
        ("Exits", r"fails on observations \[3, 2\]: SystemExit \(mine_outside.py, line"),
        ("ExitsWhenMade", r"its constructor raised SystemExit: 0 \(mine_outside.py, line"),
        ("Flat", "fails on observations|returned"),
        ("Numpy", r"its body returned ndarray; must be float32\[N, F\]"),
        ("Half", "fails on observations|body returned float16"),
        ("WithoutLast", "fails on observations .*NotImplementedError"),
        ("Keras", "the variable .* is not read as an attribute of a Sonnet module"),
    ],
)
def test_a_faulty_network_is_refused_in_one_line(name, message, folder):
    with pytest.raises(UserError, match=message) as caught:
        make_agent(network=f"mine_outside:{name}")
    assert str(caught.value).startswith(f"--network=mine_outside:{name}: ")
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported_is_refused_in_one_line(folder):
    (folder / "broken_outside.py").write_text("raise SystemExit(3)")
    with pytest.raises(UserError, match="broken_outside:X: the module cannot be imported: System"):
        make_agent(network="broken_outside:X")
    with pytest.raises(UserError, match="its folder must be on PYTHONPATH"):
        make_agent(network="nowhere_outside:X")


@pytest.mark.parametrize("name", ["a b:C", "a:", ":C", "a:C-D", "a:b:C", "../a:C", "Deap", "a..b"])
def test_invalid_network_names_are_refused(name):
    with pytest.raises(UserError, match="must be one of auto .* or module:Class"):
        make_config(network=name)


def test_optimizers_are_known_by_name_after_they_were_registered(momentum):
    optimizers.register_optimizer(momentum, _momentum)  # again, as a module that is reloaded
    with pytest.raises(ValueError, match="exists already"):
        optimizers.register_optimizer("adam", _momentum)
    with pytest.raises(UserError, match=r"--inner_optimizer=lion: must be one of rmsprop \| sgd"):
        make_config(inner_optimizer="lion")
    assert make_config(inner_optimizer=momentum).inner_optimizer == momentum


@pytest.mark.usefixtures("eager")
def test_a_term_from_outside_has_its_weight_in_the_meta_objective(monkeypatch):
    def meta_loss(weight):
        monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"ones": lambda i: 0 * i.values + 1})
        monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": weight})
        agent = make_agent()
        perturb(agent, 1)
        batches = random_batch(agent, 1), random_batch(agent, 2)
        statistics, _ = agent.learner.update(*batches, 0, 0)
        return float(statistics.meta_loss)

    # The metric is J' per step, and the term is 1 at every step.
    assert meta_loss(0.25) - meta_loss(0.0) == pytest.approx(0.25, abs=1e-5)


def test_a_run_with_a_term_from_outside_is_continued_with_that_term_only(monkeypatch, tmp_path):
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"ones": lambda i: 0 * i.values + 1})
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": 0.25})
    meta_impala.make_trainer(make_config(), tmp_path).run()
    longer = make_config(total_frames=12 * BATCH_FRAMES)
    before = read_status(tmp_path)
    for weights in ({}, {"ones": 0.5}):
        monkeypatch.setattr(losses, "OWN_META_WEIGHTS", weights)
        with pytest.raises(UserError, match=r"own terms \{'ones': 0.25\} in J'"):
            meta_impala.make_trainer(longer, tmp_path)
    assert read_status(tmp_path) == before
    assert len(meta_impala.evaluate_agent(tmp_path, 2)["returns"]) == 2  # J' is not needed
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": 0.25})
    assert meta_impala.make_trainer(longer, tmp_path).run() == "finished"


class Weight:
    """What Python takes for a number."""

    def __float__(self) -> float:
        return 2.0


@pytest.mark.parametrize(
    "kind",
    [
        np.float32,
        *(
            pytest.param(kind, marks=pytest.mark.slow)  # a run each
            for kind in (np.int64, np.array, tf.constant, lambda _: Weight())
        ),
    ],
)
def test_the_weight_of_a_term_from_outside_may_be_a_number_of_any_kind(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"ones": lambda i: 0 * i.values + 1})
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": kind(2)})
    trainer = meta_impala.make_trainer(make_config(), tmp_path)
    assert trainer.run() == "finished"
    assert len(list_checkpoints(tmp_path / "checkpoints")) > 0
    assert not list(tmp_path.rglob(".saving*"))
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": 2.0})
    assert meta_impala.make_trainer(make_config(), tmp_path).restored_from


@pytest.mark.parametrize(
    "weight",
    [float("nan"), float("inf"), np.float32("-inf"), 1e39, 10**400, None, "0.5", [0.5], {}, 1j,
     np.ones(2), object(), lambda: 1.0],
)  # fmt: skip
def test_a_weight_that_is_no_finite_number_is_refused_at_the_start(weight, monkeypatch, tmp_path):
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"ones": lambda i: 0 * i.values + 1})
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": weight})
    message = r"^losses.OWN_META_WEIGHTS\['ones'\]=.*: must be a finite number"
    with pytest.raises(UserError, match=message) as caught:
        meta_impala.make_trainer(make_config(), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_weight_without_its_term_is_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"onse": 0.5})
    with pytest.raises(UserError, match=r"\['onse'\]=0.5: .*must be in losses.TERMS too"):
        meta_impala.make_trainer(make_config(), tmp_path / "run")


def test_a_bootstrapped_run_is_continued_without_terms_that_it_does_not_read(monkeypatch, tmp_path):
    config = make_config(meta_objective="bootstrapped")
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"ones": lambda i: 0 * i.values + 1})
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"ones": 0.0})
    assert meta_impala.make_trainer(config, tmp_path).run() == "finished"
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {})
    assert meta_impala.make_trainer(config, tmp_path).restored_from


def test_an_optimiser_that_ends_the_program_is_an_error(monkeypatch, tmp_path):
    def exits(settings, differentiate):
        raise SystemExit

    monkeypatch.setattr(optimizers, "OPTIMIZERS", dict(optimizers.OPTIMIZERS))
    optimizers.register_optimizer("exits", exits)
    with pytest.raises(RunFailed, match=r"an exception ended the program \(SystemExit"):
        meta_impala.make_trainer(make_config(inner_optimizer="exits"), tmp_path)
