"""Meta-gradient IMPALA: an actor-critic that learns its own discount γ and bootstrapping λ.

An implementation of *Meta-Gradient Reinforcement Learning* (Xu, van Hasselt and Silver 2018,
arXiv 1805.09801) on IMPALA (Espeholt et al. 2018, arXiv 1802.01561).

Importing this package is cheap: TensorFlow is imported only by the modules that compute with it,
when one of the names below is first used.

    import meta_impala

    config = meta_impala.preset("catch", total_frames=100_000)
    meta_impala.make_trainer(config, "runs/catch").run()
    agent = meta_impala.load("runs/catch")
    agent.evaluate(episodes=20)["mean"]
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meta_impala import algorithm
    from meta_impala.config import Config
    from meta_impala.config.presets import preset
    from meta_impala.evaluation.loaded_agent import Agent, evaluate_agent, load
    from meta_impala.training.make_trainer import make_trainer
    from meta_impala.training.trainer import Trainer

from meta_impala.system.interrupt import leave_on_interrupt

__version__ = "0.2.0"

# Only while `python -m meta_impala.COMMAND` looks for its module: its imports take a second.
if sys.argv[:1] == ["-m"]:
    leave_on_interrupt()

__all__ = [
    "Agent",
    "Config",
    "Trainer",
    "algorithm",
    "evaluate_agent",
    "load",
    "make_trainer",
    "preset",
]

# Name -> the module that has it; `algorithm` is a subpackage. No name may be that of a
# command's module, such as `evaluate`.
_PLACES = {
    "Agent": "meta_impala.evaluation.loaded_agent",
    "Config": "meta_impala.config",
    "Trainer": "meta_impala.training.trainer",
    "evaluate_agent": "meta_impala.evaluation.loaded_agent",
    "load": "meta_impala.evaluation.loaded_agent",
    "make_trainer": "meta_impala.training.make_trainer",
    "preset": "meta_impala.config.presets",
}
_WITHOUT_TENSORFLOW = ("Config", "preset")


def __getattr__(name: str) -> Any:
    if name == "algorithm":
        return importlib.import_module("meta_impala.algorithm")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _WITHOUT_TENSORFLOW and "tensorflow" not in sys.modules:
        from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow

        quiet_tensorflow()
        import_tensorflow()
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
