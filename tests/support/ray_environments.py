"""Environments that fail, importable by name in the processes of a cluster."""

import time

import gymnasium

from meta_impala.environments.catch import Catch


class Hanging(Catch):
    """Hangs at the third step."""

    def __init__(self, **named):
        super().__init__(**named)
        self._steps = 0

    def step(self, action):
        self._steps += 1
        if self._steps == 3:
            self.fail()
        return super().step(action)

    def fail(self):
        time.sleep(1e6)


class Raising(Hanging):
    """Raises at the third step."""

    def fail(self):
        def explode():
            raise RuntimeError("the emulator caught fire")

        explode()


gymnasium.register("Hanging-v0", entry_point=Hanging)
gymnasium.register("Raising-v0", entry_point=Raising)
