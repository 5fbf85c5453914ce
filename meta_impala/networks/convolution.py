"""A convolution with bias and ReLU whose derivatives need few passes over memory.

On a CPU the layers of the deep network are bound by memory as much as by arithmetic. TensorFlow
alone would compute the derivative of a bias inside oneDNN's gradient of the kernel, where it takes
longer than in a pass of its own, and the derivative of that derivative as a tensor as large as the
output, summed in further passes. Here the second derivative is one more convolution with a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.eager import record


class _Convolution(NamedTuple):
    """A convolution, linear in its images and in its kernel, and its two transposes."""

    strides: Sequence[int]
    padding: str

    def __call__(self, images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(images, kernel, self.strides, self.padding)

    def to_images(self, like: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        sizes = like.shape if like.shape.is_fully_defined() else tf.shape(like)
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=upstream, **self._asdict()
        )

    def to_kernel(self, images: tf.Tensor, like: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=like.shape, out_backprop=upstream, **self._asdict()
        )


def convolve(
    images: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    stride: int = 1,
    padding: str = "SAME",
    *,
    rectified: bool = False,
    of_data: bool = False,
) -> tf.Tensor:
    """A convolution plus bias, and its ReLU if asked for.

    It has derivatives of every order, in reverse and in forward mode.

    Args:
      images: `[N, H, W, C]`.
      kernel: `[k, k, C, O]`, of the images' dtype.
      bias: `[O]`, of the same.
      stride: in both directions.
      padding: `SAME` or `VALID`.
      rectified: whether ReLU follows.
      of_data: whether the images are constants; no derivative by them is computed then.

    Returns:
      `[N, H', W', O]`.
    """
    convolution = _Convolution([1, stride, stride, 1], padding)
    images, kernel, bias = map(tf.convert_to_tensor, (images, kernel, bias))
    with record.stop_recording():
        output = tf.nn.bias_add(convolution(images, kernel), bias)
        if rectified:
            output = tf.nn.relu(output)

    def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
        if rectified:
            # The derivative of ReLU has no derivative of its own.
            positive = tf.stop_gradient(output)
            upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=positive)
        by_parameters = _by_parameters(convolution, images, kernel, upstream, of_data)
        if of_data:
            return by_parameters
        return [*by_parameters, convolution.to_images(images, kernel, upstream)]

    _record([output], [kernel, bias] if of_data else [kernel, bias, images], gradient)
    return output


def _by_parameters(
    convolution: _Convolution,
    images: tf.Tensor,
    kernel: tf.Tensor,
    upstream: tf.Tensor,
    of_data: bool,
) -> list[tf.Tensor]:
    """The gradients of kernel and bias, functions of upstream and images."""
    with record.stop_recording():
        by_kernel = convolution.to_kernel(images, kernel, upstream)
        # In this shape TensorFlow does not merge it into the operation above.
        by_bias = tf.raw_ops.BiasAddGrad(out_backprop=tf.reshape(upstream, [-1, kernel.shape[-1]]))

    def gradient(of_kernel: tf.Tensor, of_bias: tf.Tensor) -> list[tf.Tensor]:
        by_upstream = tf.nn.bias_add(convolution(images, of_kernel), of_bias)
        if of_data:
            return [by_upstream]
        return [by_upstream, convolution.to_images(images, of_kernel, upstream)]

    _record([by_kernel, by_bias], [upstream] if of_data else [upstream, images], gradient)
    return [by_kernel, by_bias]


def _record(
    outputs: list[tf.Tensor], inputs: list[tf.Tensor], gradient: Callable[..., list[tf.Tensor]]
) -> None:
    """Tells tapes and accumulators the gradient of what was computed.

    `tf.custom_gradient` would keep every graph in memory until the process ends.
    """
    record.record_operation("convolution", outputs, inputs, gradient)
