"""The values of settings that were left open (`None`, `auto`)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from meta_impala.config.hyper_parameters import SETTINGS_OF_NAMES, in_order
from meta_impala.config.schema import Config
from meta_impala.config.text import MAX_LENGTH, is_visible
from meta_impala.system.processors import processors

# Environments of one actor: larger batches make the inference of a convolutional network no
# cheaper.
_ENVS_PER_ACTOR = 32

# Limits of `auto` for actors that are threads of one process: about three cores of actors keep a
# learner busy, and creating an emulator takes 0.1 s.
_MAX_AUTO_THREADS = 8
_MAX_AUTO_ENVS = 128
_MIN_AUTO_ENVS = 8

_START_OF_LEARNED_LAMBDA = 0.99
_EMBEDDING_SIZE = 16


def derive(config: Config) -> Config:
    """The config with a value for every setting that was left open, except `network=auto`.

    Args:
      config: each of its settings is valid on its own.
    """
    config = _spell_names(config)
    config = _choose_lambda(config)
    config = _choose_num_actors(config)
    config = _choose_envs_per_actor(config)
    config = _choose_precision(config)
    config = _choose_embedding(config)
    return _choose_meta_gradient_mode(config)


def spell_environment_kwargs(config: Config) -> Config:
    """The config with the environment's arguments in one spelling: equal ones have equal texts.

    What does not print is escaped, and a long text has no spaces, so that the text of every
    `config.json` passes the check of texts. Text that is not a JSON object is left as it is.

    Args:
      config: not checked.
    """
    if not isinstance(config.environment_kwargs, str):
        return config
    try:
        arguments = config.environment_arguments
        # Once more: two halves of a character, one of them escaped, are that character then.
        arguments = json.loads(json.dumps(arguments))
        text = _as_json(arguments, (", ", ": "))
        if len(text) > MAX_LENGTH:
            text = _as_json(arguments, (",", ":"))
    except (ValueError, RecursionError):
        return config
    return dataclasses.replace(config, environment_kwargs=text if arguments else "")


def _as_json(arguments: dict[str, Any], separators: tuple[str, str]) -> str:
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=False, separators=separators)
    return "".join(c if is_visible(c) else json.dumps(c)[1:-1] for c in text)


def _spell_names(config: Config) -> Config:
    """Equal sets of names have equal texts, in the order of the table."""
    texts: dict[str, str] = {name: getattr(config, name) for name in SETTINGS_OF_NAMES}
    spelled: dict[str, Any] = {n: ",".join(in_order(text)) or text for n, text in texts.items()}
    return dataclasses.replace(config, **spelled)


def _choose_lambda(config: Config) -> Config:
    if config.lambda_ is not None:
        return config
    start = _START_OF_LEARNED_LAMBDA if "lambda" in config.learned else 1.0
    return dataclasses.replace(config, lambda_=start)


def _choose_num_actors(config: Config) -> Config:
    """One actor for each processor."""
    if config.num_actors is not None:
        return config
    count = processors()
    if config.actors == "threads":
        count = min(count, _MAX_AUTO_THREADS)
    return dataclasses.replace(config, num_actors=count)


def _choose_envs_per_actor(config: Config) -> Config:
    """The number nearest to the target that divides a learner's batch or is a multiple of it."""
    if config.envs_per_actor is not None:
        return config
    wanted = _ENVS_PER_ACTOR
    if config.actors == "threads":  # which create their environments one after the other
        wanted = min(wanted, max(_MIN_AUTO_ENVS, _MAX_AUTO_ENVS // config.num_actors))
    columns = max(1, config.share.batch_size)
    sizes = [size for size in range(1, columns + 1) if columns % size == 0 and size <= wanted]
    sizes.append(columns * math.ceil(wanted / columns))
    best = min(sizes, key=lambda size: abs(math.log(size / wanted)))
    return dataclasses.replace(config, envs_per_actor=best)


def _choose_precision(config: Config) -> Config:
    if config.precision != "auto":
        return config
    return dataclasses.replace(config, precision="float32")


def _choose_embedding(config: Config) -> Config:
    if config.eta_embedding_size is not None:
        return config
    is_fed = bool(config.varied) and not config.auxiliary_heads
    return dataclasses.replace(config, eta_embedding_size=_EMBEDDING_SIZE if is_fed else 0)


def _choose_meta_gradient_mode(config: Config) -> Config:
    if config.meta_gradient_mode != "auto":
        return config
    mode = "nested_tapes"
    if config.trace_decay:
        mode = "accumulative_trace"
    elif config.num_learners > 1 or config.micro_batches > 1:
        mode = "reverse_over_forward"
    return dataclasses.replace(config, meta_gradient_mode=mode)
