"""Operations of the network, counted from its graph: one forward pass, and what an update needs.

A product of matrices [a, b] and [b, c] is 2abc operations, a convolution 2 per output number and
number of its kernel's input (padding included). Everything else (biases, ReLU, softmax) is left
out: it is below 2 % for the networks of this program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.agent.policy import Policy
from meta_impala.config import Config
from meta_impala.config.hyper_parameters import TABLE

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


def contractions(
    policy: Policy, num_parameters: int, *, one_eta: bool = False
) -> list[Contraction]:
    """All of the graph with which a policy acts.

    Args:
      policy: its function's first inputs are θ, the next is η.
      num_parameters: how many tensors θ has.
      one_eta: leaves out what is computed from η alone: an actor does it for every state, a
        learner with one η for all states once.
    """
    graph = policy.function.get_concrete_function().graph
    of_parameters = _dependents(graph, graph.inputs[:num_parameters])
    of_states = _dependents(graph, graph.inputs[num_parameters + 1 :])
    return [
        Contraction(operation, operation.inputs[0].ref() not in of_parameters)
        for operation in graph.get_operations()
        if operations(operation) and not (one_eta and operation.inputs[0].ref() not in of_states)
    ]


def _dependents(graph: tf.Graph, tensors: Sequence[tf.Tensor]) -> set[Any]:
    """References of these tensors and of all that are computed from them."""
    found = {tensor.ref() for tensor in tensors}
    for operation in graph.get_operations():  # outputs of operations come after their inputs
        if any(tensor.ref() in found for tensor in operation.inputs):
            found.update(tensor.ref() for tensor in operation.outputs)
    return found


def count(found: Sequence[Contraction], num_states: int) -> Passes:
    """Operations per state of a graph for `num_states`."""
    whole = sum(operations(one.operation) for one in found) / num_states
    first = sum(operations(one.operation) for one in found if one.is_first) / num_states
    # The gradients of the weights are as many operations as the forward pass.
    return Passes(whole, 2 * whole - first, 2 * whole - first)


def why_not_counted(config: Config) -> str:
    """Why `of_update` does not hold for an update with the meta-gradient; empty if it does."""
    if not config.learned:
        return "nothing is learned of η"
    if config.inner_steps > 1:
        return f"--inner_steps={config.inner_steps}: passes back through a window are not counted"
    if config.meta_objective == "bootstrapped":
        return "--meta_objective=bootstrapped: the updates of the target are not counted"
    if config.trace_decay:
        return f"--trace_decay={config.trace_decay:g}: the passes of the trace are not counted"
    return ""


def of_update(passes: Passes, config: Config, *, meta: bool) -> float:
    """The least that an update takes, per agent step of its batch, in the unit of the passes.

    * J: T + 1 states forward (the last one for its value alone), T backward; with
      `meta_data=held_out` on B − B' of the B trajectories;
    * J' on τ', if `meta`: the same, B'/B times;
    * the derivative of J' by η: the gradient of J differentiated in the direction of ∂J'/∂θ',
      which is one pushforward through the network on what J is computed on, since η acts on its
      outputs. None is needed if η acts on the update rule alone.

    What an implementation repeats or converts is not counted, and nothing that depends on the
    number of weights alone (the optimiser).

    Args:
      passes: of a state.
      config: with `meta` one for which `why_not_counted` gives no reason.
      meta: whether with the meta-gradient.
    """
    length = config.unroll_length
    one = passes.forward * (length + 1) / length + passes.backward
    if not meta:
        return one
    of_meta_batch = config.meta_batch_size / config.batch_size
    learned_from = 1.0 - of_meta_batch if config.meta_data == "held_out" else 1.0
    acts_on_loss = any(TABLE[name].per_state for name in config.learned)
    of_batch = one + (passes.pushforward if acts_on_loss else 0.0)
    return learned_from * of_batch + of_meta_batch * one
