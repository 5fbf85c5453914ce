"""Operations of the network, counted from its graph: one forward pass, and what an update needs.

A product of matrices [a, b] and [b, c] is 2abc operations, a convolution 2 per output number and
number of its kernel's input (padding included). Everything else (biases, ReLU, softmax) is left
out: it is below 2 % for the networks of this program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from meta_impala.agent.policy import Policy
from meta_impala.config import Config

_PRODUCTS = ("MatMul", "BatchMatMulV2")
_CONVOLUTION = "Conv2D"


class Passes(NamedTuple):
    """What the passes of one state through the network take, all in one unit.

    Attributes:
      forward: the outputs.
      backward: the gradients of the weights, and of the inputs of all but the first layers.
      pushforward: the tangent of the outputs for a direction in θ, the forward pass apart: the
        direction's kernels on the inputs, and the kernels on the inputs' tangents.
    """

    forward: float
    backward: float
    pushforward: float


class Contraction(NamedTuple):
    """A convolution or a product in the graph of a forward pass.

    Attributes:
      operation: of the graph.
      is_first: its input is data (frames, last action, η), not the output of a layer: no gradient
        is sent through it, and no tangent comes.
    """

    operation: tf.Operation
    is_first: bool


def operations(operation: tf.Operation) -> float:
    """Of one operation of a graph; 0 if it is neither a convolution nor a product.

    Raises:
      ValueError: the shape is not known.
    """
    if operation.type == _CONVOLUTION:
        kernel, output = operation.inputs[1].shape, operation.outputs[0].shape
        return 2.0 * math.prod(output.as_list()) * math.prod(kernel.as_list()[:3])
    if operation.type in _PRODUCTS:
        left, output = operation.inputs[0].shape.as_list(), operation.outputs[0].shape.as_list()
        transposed = operation.type == "MatMul" and operation.get_attr("transpose_a")
        transposed = transposed or (
            operation.type == "BatchMatMulV2" and operation.get_attr("adj_x")
        )
        return 2.0 * math.prod(output) * left[-2 if transposed else -1]
    return 0.0


def contractions(policy: Policy, num_parameters: int) -> list[Contraction]:
    """All of the graph with which a policy acts.

    Args:
      policy: its function's first inputs are θ.
      num_parameters: how many tensors θ has.
    """
    graph = policy.function.get_concrete_function().graph
    # Outputs of operations come after their inputs, so that one pass finds what depends on θ.
    depends = {tensor.ref() for tensor in graph.inputs[:num_parameters]}
    found = []
    for operation in graph.get_operations():
        if operations(operation):
            found.append(Contraction(operation, operation.inputs[0].ref() not in depends))
        if any(tensor.ref() in depends for tensor in operation.inputs):
            depends.update(tensor.ref() for tensor in operation.outputs)
    return found


def count(found: Sequence[Contraction], num_states: int) -> Passes:
    """Operations per state of a graph for `num_states`."""
    whole = sum(operations(one.operation) for one in found) / num_states
    first = sum(operations(one.operation) for one in found if one.is_first) / num_states
    # The gradients of the weights are as many operations as the forward pass.
    return Passes(whole, 2 * whole - first, 2 * whole - first)


def of_update(passes: Passes, config: Config, *, meta: bool) -> float:
    """The least that an update takes, per agent step of its batch, in the unit of the passes.

    * J: T + 1 states forward (the last one for its value alone), T backward;
    * J' on τ', if `meta`: the same, B'/B times;
    * the derivative of J' by η: the gradient of J differentiated in the direction of ∂J'/∂θ',
      which is one pushforward through the network, since η acts on its outputs.

    What an implementation repeats or converts is not counted, and nothing that depends on the
    number of weights alone (the optimiser).
    """
    length = config.unroll_length
    one = passes.forward * (length + 1) / length + passes.backward
    if not meta:
        return one
    return one + one * config.meta_batch_size / config.batch_size + passes.pushforward
