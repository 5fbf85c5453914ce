"""CPU time of the network's convolutions and products alone, as TensorFlow executes them.

The gap between this and the operations at the rate of a large product is due to the shapes of the
layers. Any further time of a program is everything else: conversions, ReLU, losses, the optimiser,
call overhead.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from meta_impala.benchmarks.network_operations import Contraction, Passes

_WINDOWS = 3


def _executed(operation: tf.Operation, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """The same operation on other tensors of the same shapes."""
    attribute = operation.get_attr
    if operation.type == "Conv2D":
        return tf.raw_ops.Conv2D(
            input=left,
            filter=right,
            strides=attribute("strides"),
            padding=attribute("padding"),
            explicit_paddings=attribute("explicit_paddings"),
            data_format=attribute("data_format"),
            dilations=attribute("dilations"),
        )
    names = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    left_is, right_is = map(attribute, names)
    # Of real numbers the adjoint is the transposed.
    return tf.linalg.matmul(left, right, transpose_a=left_is, transpose_b=right_is)


def _milliseconds(function: Callable[..., Any], seconds: float, *inputs: Any) -> float:
    """CPU time of a call, the median of some windows."""
    function(*inputs)  # traces it, and makes oneDNN's plans
    costs = []
    for _ in range(_WINDOWS):
        calls, end, before = 0, time.perf_counter() + seconds, time.process_time()
        while calls == 0 or time.perf_counter() < end:
            function(*inputs)
            calls += 1
        costs.append(1e3 * (time.process_time() - before) / calls)
    return statistics.median(costs)


def measure(found: Sequence[Contraction], num_states: int, seconds: float) -> Passes:
    """CPU-ms per state of a graph for `num_states`.

    All operations of a pass are executed in one call, each on tensors of its own, so that the call
    itself counts once.

    Args:
      found: of the graph.
      num_states: of the graph.
      seconds: of a window.
    """

    def filled(tensor: tf.Tensor) -> tf.Tensor:
        return tf.fill(tensor.shape, tf.cast(0.01, tensor.dtype))

    @tf.function(autograph=False)
    def forward(chosen: Any) -> list[tf.Tensor]:
        return [_executed(found[index].operation, *both) for index, both in chosen.items()]

    @tf.function(autograph=False)
    def backward(given: Any, gradients: Any) -> list[tf.Tensor]:
        results = []
        for index, (operation, is_first) in enumerate(found):
            left, right = given[index]
            with tf.GradientTape() as tape:
                tape.watch([left, right])
                output = _executed(operation, left, right)
            sources = [right] if is_first else [left, right]
            results += tape.gradient(output, sources, gradients[index])
        return results

    inputs = {index: tuple(map(filled, one.operation.inputs)) for index, one in enumerate(found)}
    outputs = [filled(one.operation.outputs[0]) for one in found]
    inner = {index: inputs[index] for index, one in enumerate(found) if not one.is_first}
    whole = _milliseconds(forward, seconds, inputs)
    tangents = _milliseconds(forward, seconds, inner) if inner else 0.0
    gradients = _milliseconds(backward, seconds, inputs, outputs)
    return Passes(whole / num_states, gradients / num_states, (whole + tangents) / num_states)
