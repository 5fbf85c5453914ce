"""Learners in one process that make every update together, through `Learner.update` itself."""

import tensorflow as tf

from meta_impala.config import Config, resolve
from meta_impala.learner.group import LearnerGroup
from support.helpers import FEATURES, Agent, new_learner, select_columns
from support.together import Together


class InOneProcess(LearnerGroup):
    """One of N learners that take turns; its functions run eagerly."""

    def __init__(self, together, size, index):
        self.size, self.index, self._together = size, index, together

    def function(self, function, signature):
        return function

    def reduce(self, parts):
        return self._together.reduce(parts)

    def mean(self, tensor):
        return self.reduce([tensor])[0] / self.size


class Learners:
    """N learners, whose shares make up the columns of every batch."""

    def __init__(self, size, **settings):
        addresses = ",".join(f"localhost:{4000 + i}" for i in range(size)) if size > 1 else ""
        config = resolve(
            Config(**settings, learner_addresses=addresses, envs_per_actor=settings["batch_size"]
                   // size)
        )  # fmt: skip
        self.together, self.agents = Together(size), []
        for index in range(size):
            group = InOneProcess(self.together, size, index)
            learner = new_learner(config.share, FEATURES, group=group, dtype=tf.float64)
            self.agents.append(Agent(config.share, FEATURES, learner.state.network, learner))

    @property
    def states(self):
        return [agent.learner.state for agent in self.agents]

    def share(self, batch, index):
        """The columns of a batch that this learner has."""
        count = batch.rewards.shape[1] // len(self.agents)
        return select_columns(batch, tf.range(index * count, (index + 1) * count))

    def update(self, batch, ahead, updates):
        """An update by all; what each of them returns."""

        def of_learner(index):
            shares = [self.share(one, index) for one in ahead]
            return self.agents[index].learner.update(self.share(batch, index), shares, updates, 0)

        return self.together.run(of_learner)
