"""One of several learners, as a process that makes updates on given batches (no test itself).

    python learner_process.py PORT,PORT INDEX OUT.npz

Writes what its state is after the updates. Then learner 1 dies, and learner 0 records what
becomes of the next update.
"""

import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from meta_impala.agent.builders import make_network, method_of
from meta_impala.config import (
    AgentSettings,
    Config,
    LearnerSettings,
    MethodSettings,
    UpdateSettings,
    resolve,
)
from meta_impala.learner import group as learner_group
from meta_impala.learner.learner import Learner
from meta_impala.system.signals import StopRequest
from support.helpers import FEATURES, perturb, random_batch, select_columns

UPDATES = 4
SETTINGS = {
    "environment": "Catch", "network": "mlp", "mlp_sizes": "8", "batch_size": 6,
    "meta_batch_size": 4, "envs_per_actor": 3, "unroll_length": 5, "learning_rate": 0.01,
    "reward_clip": 0.0, "max_gradient_norm": 10.0, "stall_timeout": 120.0,
}  # fmt: skip
# What is learned, and how. The last of them is the one that loses its learner.
VARIANTS = {
    "gamma,lambda": {"meta_parameters": "gamma,lambda"},
    "window": {
        "meta_parameters": "gamma,lambda", "inner_steps": 2, "meta_objective": "bootstrapped",
        "bootstrap_steps": 2,
    },
    "none": {"meta_parameters": "none"},
}  # fmt: skip
# Of the whole batch: the meta batch stands where each learner's share has it.
ORDER = [0, 1, 3, 4, 2, 5]
SHARE_ORDER = [0, 1, 2]


class Fixed(Learner):
    """A learner whose meta batch is made of given columns."""

    order: list[int]

    def column_order(self, updates):
        return np.array(self.order, np.int32)


def make_learner(config, group=learner_group.ALONE):
    network = make_network(config.part(AgentSettings), FEATURES)
    method = method_of(config.part(MethodSettings))
    learner = Fixed(config.share.part(UpdateSettings), method, network, FEATURES, group)
    learner.order = ORDER if group.size == 1 else SHARE_ORDER
    return learner


class Whole:
    """The attributes of an agent that `perturb` and `random_batch` use."""

    def __init__(self, config, learner):
        self.config, self.description, self.learner = config, FEATURES, learner
        self.network = learner.state.network


def train(config, learner, group=learner_group.ALONE):
    """All updates, on this learner's columns of the batches; the statistics of each."""
    whole = Whole(config, learner)
    ahead = config.bootstrap_steps
    batches = [random_batch(whole, seed) for seed in range(UPDATES + ahead)]
    if group.size > 1:
        count = config.batch_size // group.size
        columns = tf.range(group.index * count, (group.index + 1) * count)
        batches = [select_columns(batch, columns) for batch in batches]
    rows = []
    for updates in range(UPDATES):
        frames = int(learner.state.frames)
        others = batches[updates + 1 : updates + 1 + ahead]
        row, _ = learner.update(batches[updates], others, updates, frames)
        rows.append(list(row.numbers().values()))
    return rows, batches


def results(learner, rows):
    """State and statistics as named arrays."""
    shared = learner.state.shared_variables  # a window has each learner's own batches
    arrays = {f"state {i} {v.name}": v.numpy() for i, v in enumerate(shared)}
    return arrays | {"statistics": np.array(rows)}


def main(ports, index, out):
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports.split(","))
    config = resolve(Config(**SETTINGS, learner_addresses=addresses, learner_index=index))
    group = learner_group.join(config.part(LearnerSettings), config.stall_timeout, StopRequest())
    assert (group.size, group.index) == (2, index)
    if index == 0:
        learner_group.give_settings(group, config)
    else:
        given = {"learner_index": 1, "learner_addresses": addresses}
        taken = learner_group.take_settings(group, given)
        assert taken == config
    arrays = {}
    for name, variant in VARIANTS.items():
        settings = SETTINGS | variant | {"learner_addresses": addresses}
        config = resolve(Config(**settings))
        learner = make_learner(config, group)
        # All begin from learner 0's state, whatever their own is.
        perturb(Whole(config, learner), seed=index)
        group.take_from_first(learner.state.shared_variables)
        rows, batches = train(config, learner, group)
        arrays |= {f"{name} {key}": a for key, a in results(learner, rows).items()}
        assert learner.function.experimental_get_tracing_count() == 1
    assert not group.any(False)
    assert group.any(index == 1)
    # Learner 1 dies only when learner 0 has all pieces of this sum.
    agreed = pathlib.Path(out).with_name("agreed")
    if index == 0:
        agreed.touch()
        before = [v.numpy() for v in learner.state.variables]
        try:
            while True:  # its last connections may still be open
                before = [v.numpy() for v in learner.state.variables]
                learner.update(batches[0], batches[1], 9, 0)
        except learner_group.LearnerLost as error:
            arrays["lost"] = np.array(str(error))
        after = [v.numpy() for v in learner.state.variables]
        arrays["unchanged"] = np.array(
            all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        )
    np.savez(out, **arrays)
    end = time.monotonic() + 60
    while not agreed.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(0)  # as a learner dies


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
