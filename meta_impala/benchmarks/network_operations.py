"""Operations of the network, counted from its graph: one forward pass, and what an update needs.

A product of matrices [a, b] and [b, c] is 2abc operations, a convolution 2 per output number and
number of its kernel's input (padding included). Everything else (biases, ReLU, softmax) is left
out: it is below 2 % for the networks of this program.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from meta_impala.agent.policy import Policy
from meta_impala.config import Config

_PRODUCTS = ("MatMul", "BatchMatMulV2")
_CONVOLUTION = "Conv2D"


class ForwardPass(NamedTuple):
    """Operations of the forward pass of one state.

    Attributes:
      all: of every convolution and product.
      first: of those whose input is data (frames, last action, η), not the output of a layer: no
        gradient is sent through them, and no tangent comes.
    """

    all: float
    first: float

    @property
    def backward(self) -> float:
        """Gradients of the weights (as many as forward) and of the layers' inputs."""
        return 2 * self.all - self.first

    @property
    def pushforward(self) -> float:
        """The tangent of the outputs for a direction in θ, the forward pass apart: the direction's
        kernels on the inputs, and the kernels on the inputs' tangents."""
        return 2 * self.all - self.first


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


def forward_pass(policy: Policy, num_parameters: int, num_envs: int) -> ForwardPass:
    """Counts in the graph with which the policy acts.

    Args:
      policy: for `num_envs` environments.
      num_parameters: how many tensors θ has; they are the graph's first inputs.
      num_envs: N.
    """
    graph = policy.function.get_concrete_function().graph
    parameters = {tensor.ref() for tensor in graph.inputs[:num_parameters]}
    # Outputs of operations come after their inputs, so that one pass finds what depends on θ.
    depends = set(parameters)
    found = first = 0.0
    for operation in graph.get_operations():
        count = operations(operation)
        found += count
        if count and operation.inputs[0].ref() not in depends:
            first += count
        if any(tensor.ref() in depends for tensor in operation.inputs):
            depends.update(tensor.ref() for tensor in operation.outputs)
    return ForwardPass(found / num_envs, first / num_envs)


def of_update(forward: ForwardPass, config: Config, *, meta: bool) -> float:
    """The least operations of an update, per agent step of its batch.

    * J: T + 1 states forward (the last one for its value alone), T backward;
    * J' on τ', if `meta`: the same, B'/B times;
    * the derivative of J' by η: the gradient of J differentiated in the direction of ∂J'/∂θ',
      which is one pushforward through the network, since η acts on its outputs.

    What an implementation repeats or converts is not counted, and nothing that depends on the
    number of weights alone (the optimiser).
    """
    length = config.unroll_length
    one = forward.all * (length + 1) / length + forward.backward
    if not meta:
        return one
    return one + one * config.meta_batch_size / config.batch_size + forward.pushforward
