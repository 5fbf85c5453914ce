"""Several learners that make every update together: synchronous, data-parallel, bit-identical.

Each process has its own actors and its share of the columns of a batch.
`algorithm/meta_gradient.py` (`Reduce`) defines what is summed in an update; here it is summed, by
all-reduce over `tf.distribute.MultiWorkerMirroredStrategy`, whose replica context is entered for
the update alone. The variables are ordinary ones of each process. They stay equal because all start
from learner 0's and every sum is the same everywhere: a ring computes each piece of it once.

Every wait has an end: a learner that dies breaks its connections, and the others' sums fail with
`LearnerLost`; one that hangs is given up after a time.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from meta_impala import __version__
from meta_impala import config as config_lib
from meta_impala.config import Config, LearnerSettings
from meta_impala.errors import RunFailed, UserError, one_line
from meta_impala.system.signals import StopRequest

# Beyond the time that the others' actors may take for the next batch.
_EXTRA_SECONDS = 30.0
_POLL_SECONDS = 0.2
_MAX_TEXT_BYTES = 2**16  # of one message
_JOB = "worker"  # the name that the strategy asks for


class LearnerLost(RunFailed):
    """The others cannot be reached any more. No step is half made.

    The update it ended changed no variable; or, with several inner steps, it was made as a whole
    and only the meta step after it was not.
    """


class LearnerGroup:
    """A single learner; `ConnectedLearners` are several.

    Attributes:
      size: N, how many learners there are.
      index: which of them this one is.
    """

    size = 1
    index = 0

    @property
    def keeps_folder(self) -> bool:
        """Whether this learner writes the run folder."""
        return self.index == 0

    def function(self, function: Callable[..., Any], signature: Sequence[Any]) -> Any:
        """A `tf.function` inside which `reduce` and `mean` can be used."""
        return tf.function(function, input_signature=signature, autograph=False)

    def reduce(self, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sums over the learners, tensor by tensor (of one dtype); in a `function` only."""
        return list(parts)

    def mean(self, tensor: tf.Tensor) -> tf.Tensor:
        """The mean over the learners; in a `function` only."""
        return tensor

    def reaching(self) -> contextlib.AbstractContextManager[None]:
        """Around a call of a `function`: raises LearnerLost if the others cannot be reached."""
        return contextlib.nullcontext()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any of the learners; all ask at the same time."""
        return flag

    def take_from_first(self, variables: Sequence[tf.Variable]) -> None:
        """Gives all learners the values of learner 0's variables, to the bit."""

    def text_of_first(self, text: str) -> str:
        """Learner 0's value; the others' arguments are ignored."""
        return text

    def close(self) -> None:
        """Waits until the others need nothing more from this process."""


ALONE = LearnerGroup()


class ConnectedLearners(LearnerGroup):
    """One of N learners, connected with the others."""

    def __init__(
        self, strategy: tf.distribute.Strategy, options: Any, size: int, index: int
    ) -> None:
        self.size, self.index = size, index
        self._strategy, self._options = strategy, options
        self._agree = self.function(
            lambda flag: self.reduce([flag])[0], [tf.TensorSpec([], tf.float32)]
        )
        self._add_texts = self.function(
            lambda numbers: self.reduce([numbers])[0],
            [tf.TensorSpec([_MAX_TEXT_BYTES], tf.int32)],
        )

    def function(self, function: Callable[..., Any], signature: Sequence[Any]) -> Any:
        def in_replica(*arguments: Any) -> Any:
            return self._strategy.run(function, args=arguments)

        return tf.function(in_replica, input_signature=signature, autograph=False)

    def reduce(self, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        here = [tf.identity(part) for part in parts]  # on this replica's device
        replica = tf.distribute.get_replica_context()
        return list(replica.all_reduce(tf.distribute.ReduceOp.SUM, here, self._options))

    def mean(self, tensor: tf.Tensor) -> tf.Tensor:
        return self.reduce([tensor])[0] / self.size

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        try:
            yield
        except (
            tf.errors.UnavailableError,
            tf.errors.DeadlineExceededError,
            tf.errors.FailedPreconditionError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
        ) as error:
            raise LearnerLost(
                f"the other learners cannot be reached any more ({_why(error)}); start all of "
                "--learner_addresses again to continue"
            ) from error

    def any(self, flag: bool) -> bool:
        with self.reaching():
            return bool(self._agree(tf.constant(float(flag))).numpy() > 0)

    def take_from_first(self, variables: Sequence[tf.Variable]) -> None:
        def assign() -> None:
            # As integers, because 0 + bits are the same bits; 0.0 + (-0.0) is not -0.0.
            bits = [tf.bitcast(variable.read_value(), tf.int32) for variable in variables]
            sums = self.reduce([tensor if self.index == 0 else 0 * tensor for tensor in bits])
            for variable, total in zip(variables, sums, strict=True):
                variable.assign(tf.bitcast(total, variable.dtype))

        with self.reaching():
            self.function(assign, [])()

    def text_of_first(self, text: str) -> str:
        """Learner 0's value; the others' arguments are ignored."""
        content = text.encode() if self.index == 0 else b""
        size = int(self._bytes_of_first(str(len(content)).encode()).rstrip(b"\0"))
        parts = [
            self._bytes_of_first(content[start : start + _MAX_TEXT_BYTES])
            for start in range(0, size, _MAX_TEXT_BYTES)
        ]
        return b"".join(parts)[:size].decode()

    def _bytes_of_first(self, content: bytes) -> bytes:
        """At most `_MAX_TEXT_BYTES` of learner 0's, filled up with zeros."""
        numbers = np.zeros(_MAX_TEXT_BYTES, np.int32)
        if self.index == 0:
            numbers[: len(content)] = np.frombuffer(content, np.uint8)
        with self.reaching():
            sums = self._add_texts(tf.constant(numbers)).numpy()
        return sums.astype(np.uint8).tobytes()

    def close(self) -> None:
        # A process that ends first must not take pieces of the last sum with it.
        with contextlib.suppress(LearnerLost):
            self.any(False)


def join(
    settings: LearnerSettings, stall_timeout: float, stop: StopRequest
) -> ConnectedLearners | None:
    """Connects the learners of `settings.addresses`; before TensorFlow's first operation.

    Returns:
      The group once all are there, or None if the user asked to stop before.

    Raises:
      RunFailed: if they are not all there after `stall_timeout` seconds, or this learner's port
        cannot be listened at.
    """
    # TensorFlow's coordination service would hold the interpreter's lock until all are there, take
    # over SIGTERM, and notice a death 10 s later than the broken connection says it.
    context.context().configure_coordination_service(service_type="")
    on_gpu = not settings.learner_device.lower().startswith("cpu") and bool(
        tf.config.list_physical_devices("GPU")
    )
    experimental = tf.distribute.experimental
    implementation = experimental.CommunicationImplementation
    options = experimental.CommunicationOptions(
        implementation=implementation.AUTO if on_gpu else implementation.RING,
        timeout_seconds=stall_timeout + _EXTRA_SECONDS,
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({_JOB: list(settings.addresses)}),
        task_type=_JOB,
        task_id=settings.learner_index,
        num_accelerators={"GPU": 1} if on_gpu else {},
        rpc_layer="grpc",
    )
    results: list[Any] = []

    def connect() -> None:
        try:
            results.append(tf.distribute.MultiWorkerMirroredStrategy(resolver, options))
        except Exception as error:  # noqa: BLE001 - the main thread is to say it
            results.append(error)

    # It waits for the others without an end.
    thread = threading.Thread(target=connect, name="join", daemon=True)
    thread.start()
    deadline = time.monotonic() + stall_timeout
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        if stop.is_set():
            return None
        if time.monotonic() > deadline:
            failure = RunFailed(
                f"--learner_addresses={settings.learner_addresses}: not all learners had connected "
                f"within {stall_timeout:g} s (--stall_timeout)"
            )
            failure.leaves_threads = True
            raise failure
    # Its health check says on several lines what the error of the next sum says too.
    tf.get_logger().setLevel("CRITICAL")
    (strategy,) = results
    if isinstance(strategy, Exception):
        raise RunFailed(
            f"--learner_addresses={settings.learner_addresses}: cannot listen at "
            f"{settings.addresses[settings.learner_index]} ({_why(strategy)})"
        ) from strategy
    return ConnectedLearners(strategy, options, settings.num_learners, settings.learner_index)


def give_settings(group: ConnectedLearners, config: Config) -> None:
    """Learner 0 tells the others the settings of the run.

    Raises:
      UserError: if one of them was started with others.
    """
    told = {"meta_impala": __version__, "config": config_lib.to_json(config)}
    group.text_of_first(json.dumps(told))
    if group.any(False):
        raise UserError(
            "--learner_addresses: another learner was started with other settings, or another "
            "version of meta_impala; its message says which"
        )


def take_settings(group: ConnectedLearners, given: dict[str, Any]) -> Config:
    """The settings of the run, from learner 0.

    Args:
      group: of this learner.
      given: flag name -> value, of the flags it was given.

    Raises:
      UserError: if they differ from the run's, or the versions of the program do.
    """
    told = json.loads(group.text_of_first(""))
    try:
        if told["meta_impala"] != __version__:
            raise UserError(
                f"--learner_index={group.index}: learner 0 is meta_impala {told['meta_impala']}, "
                f"this one is {__version__}; must be the same"
            )
        config = config_lib.join_learners(
            config_lib.from_json(told["config"], "learner 0's settings"), given
        )
    except UserError:
        group.any(True)
        raise
    group.any(False)
    return config


def _why(error: Exception) -> str:
    """The line of TensorFlow's message that describes the error."""
    found = re.search(r"[^\n]*(?:onnect|aborted|down|imed out|address)[^\n]*", str(error))
    return found[0].strip()[:300] if found else one_line(error)
