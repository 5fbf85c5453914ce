"""Environments that are slow, end the program, or keep it alive; importable by name in a process.

What they do is said by environment variables: ENDING_PLACE (module, constructor, reset, step,
close), ENDING_BY (SystemExit, KeyboardInterrupt, _exit, or hang, which prints a line first),
ENDING_AFTER (calls that go well), STEP_SECONDS.
"""

import atexit
import itertools
import os
import threading
import time

import gymnasium

from meta_impala.environments.catch import Catch

_PLACE = os.environ.get("ENDING_PLACE", "")
_BY = os.environ.get("ENDING_BY", "SystemExit")
_AFTER = int(os.environ.get("ENDING_AFTER", "0"))
_STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0"))
_calls = itertools.count()


def _end_at(place: str) -> None:
    if place != _PLACE or next(_calls) < _AFTER:
        return
    if _BY == "_exit":
        os._exit(0)
    if _BY == "hang":
        print("hangs", flush=True)
        time.sleep(1e6)
    raise SystemExit(0) if _BY == "SystemExit" else KeyboardInterrupt


class Ending(Catch):
    """Catch that ends the program somewhere."""

    def __init__(self, **named):
        _end_at("constructor")
        super().__init__(**named)

    def reset(self, **named):
        _end_at("reset")
        return super().reset(**named)

    def step(self, action):
        _end_at("step")
        time.sleep(_STEP_SECONDS)
        return super().step(action)

    def close(self):
        _end_at("close")
        super().close()


class Lingering(Catch):
    """Catch with a thread that is no daemon and an exit handler, neither of which ends."""

    def __init__(self, **named):
        super().__init__(**named)
        threading.Thread(target=time.sleep, args=[1e6], daemon=False).start()
        atexit.register(time.sleep, 1e6)


_end_at("module")
gymnasium.register("Ending-v0", entry_point=Ending)
gymnasium.register("Lingering-v0", entry_point=Lingering)
