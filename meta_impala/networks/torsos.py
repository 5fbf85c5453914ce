"""Torsos: observations in, a feature vector out, by a body and one last hidden layer.

η (and the last action and reward) can join at the input of the last hidden layer, so a torso has
two parts: `body`, from observations to φ, and `last_layer`, a fully connected layer that
`last_hidden` applies.

Shapes as in IMPALA (Espeholt et al. 2018, figure 3) and in *Nature* DQN (Mnih et al. 2015).
Images are uint8 and become numbers here (`ImageScaling`); the dtype of the weights follows from the
dtype asked for, so that gradient checks can run on the real modules in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from meta_impala.config.image_layout import is_channels_first
from meta_impala.networks.convolution import convolve


class ImageScaling(NamedTuple):
    """How bytes become numbers: (bytes − mean) / deviation; without a mean, bytes / deviation.

    Attributes:
      mean: `[84, 84]`, taken from every frame of a stack in the emulator's layout, or None.
      deviation: a number.
    """

    mean: np.ndarray | None = None
    deviation: float = 255.0


UNIT = ImageScaling()


def as_numbers(observations: tf.Tensor, dtype: tf.DType, scaling: ImageScaling = UNIT) -> tf.Tensor:
    """Observations `[N, ...]` in `dtype`; bytes are scaled, everything else is kept."""
    numbers = tf.cast(observations, dtype)
    if observations.dtype != tf.uint8:
        return numbers
    if scaling.mean is not None:
        numbers -= tf.constant(scaling.mean, dtype)
    return numbers * tf.constant(1.0 / scaling.deviation, dtype)


def prepare_images(
    observations: tf.Tensor, dtype: tf.DType, scaling: ImageScaling = UNIT
) -> tf.Tensor:
    """Images in one of the layouts of `image_layout` to `[N, H, W, C]`, scaled (`as_numbers`)."""
    images = as_numbers(observations, dtype, scaling)
    rank = images.shape.rank
    if rank == 3:
        return images[..., tf.newaxis]
    if rank == 4:
        return tf.transpose(images, [0, 2, 3, 1]) if is_channels_first(images.shape[1:]) else images
    if is_channels_first(images.shape[2:]):
        images = tf.transpose(images, [0, 1, 3, 4, 2])
    # The frames of a stack are channels: [N, S, H, W, C] to [N, H, W, S C].
    _, frames, height, width, channels = images.shape
    return tf.reshape(tf.transpose(images, [0, 2, 3, 1, 4]), [-1, height, width, frames * channels])


def _convolve(
    convolution: snt.Conv2D,
    features: tf.Tensor,
    *,
    rectified: bool = False,
    of_data: bool = False,
) -> tf.Tensor:
    """A convolution whose variables exist, computed in the features' dtype, as `convolve` does."""
    kernel, bias = (tf.cast(v, features.dtype) for v in (convolution.w, convolution.b))
    stride, padding = convolution.stride, convolution.conv_padding
    return convolve(features, kernel, bias, stride, padding, rectified=rectified, of_data=of_data)


class Torso(snt.Module):
    """A torso in two parts.

    Your own torso derives from this class and defines `body` and `last_layer`; it is chosen by
    `--network=module:Class` and made by `Class(dtype, compute_dtype)`. Its variables must belong to
    Sonnet modules in attributes, because the meta-gradient runs it with tensors in their place.
    """

    def __init__(
        self,
        dtype: tf.DType,
        compute_dtype: tf.DType | None = None,
        name: str | None = None,
        image_scaling: ImageScaling = UNIT,
    ) -> None:
        """Args:
        dtype: of weights and features.
        compute_dtype: of the layers between; `dtype` if not given.
        name: of the module.
        image_scaling: of bytes.
        """
        super().__init__(name=name)
        self._dtype = dtype
        self._image_scaling = image_scaling
        self._compute_dtype = compute_dtype or dtype

    @property
    def last_layer(self) -> snt.Linear:
        """The last hidden layer, from φ to the features; ReLU follows."""
        raise NotImplementedError

    def body(self, observations: tf.Tensor) -> tf.Tensor:
        """φ `[N, F]`, of `dtype`, of observations `[N, ...]`."""
        raise NotImplementedError

    def last_hidden(self, features: tf.Tensor, joined: tf.Tensor | None = None) -> tf.Tensor:
        """The features `[N, H]`.

        Args:
          features: φ `[N, F]`.
          joined: `[1 or N, H]`, added before the ReLU.
        """
        if hasattr(self.last_layer, "w"):
            features = _multiply(self.last_layer, tf.cast(features, self._compute_dtype))
        else:
            features = self.last_layer(features)
        if joined is not None:
            return tf.nn.relu(tf.cast(features, self._dtype) + joined)
        return tf.cast(tf.nn.relu(features), self._dtype)

    def __call__(self, observations: tf.Tensor) -> tf.Tensor:
        """The features `[N, H]` of observations `[N, ...]`."""
        return self.last_hidden(self.body(observations))


def _multiply(linear: snt.Linear, features: tf.Tensor) -> tf.Tensor:
    """The same for a fully connected layer."""
    if features.dtype == linear.w.dtype:
        return linear(features)
    weights, bias = (tf.cast(v, features.dtype) for v in (linear.w, linear.b))
    return tf.nn.bias_add(features @ weights, bias)


_FOLD = 4  # stride of the first convolution on Atari's frames


def can_fold(observations: tf.Tensor, kernel: int, stride: int) -> bool:
    """Whether `fold_images` and `fold_kernel` apply to a first convolution of this kind."""
    shape = observations.shape
    return (
        observations.dtype == tf.uint8
        and is_channels_first(shape[1:])
        and stride == _FOLD
        and all(size % _FOLD == 0 for size in (*shape[2:], kernel))
    )


def fold_images(observations: tf.Tensor) -> tf.Tensor:
    """Space to depth: `[N, C, H, W]` to `[N, H/4, W/4, 16 C]`, both uint8.

    A convolution with stride 4 becomes one with stride 1 on more channels, which is a quarter
    cheaper on a CPU, and so is the transposition, which moves four bytes at a time.
    """
    _, channels, height, width = observations.shape
    tiles = [-1, channels, height // _FOLD, _FOLD, width // _FOLD, _FOLD]
    # Four neighbours are moved as one "number". Transposing computes nothing, so every bit pattern
    # is kept; for floats it is 3 times as fast as for integers.
    quads = tf.bitcast(tf.reshape(observations, tiles), tf.float32)
    quads = tf.transpose(quads, [0, 2, 4, 1, 3])
    folded = [-1, height // _FOLD, width // _FOLD, channels * _FOLD * _FOLD]
    return tf.reshape(tf.bitcast(quads, tf.uint8), folded)


def fold_mean(mean: np.ndarray, channels: int) -> np.ndarray:
    """What is taken from folded images: `[H, W]`, of every channel, to `[1, H/4, W/4, 16 C]`."""
    height, width = (size // _FOLD for size in mean.shape)
    tiles = np.broadcast_to(mean, [channels, *mean.shape])
    tiles = tiles.reshape(channels, height, _FOLD, width, _FOLD).transpose(1, 3, 0, 2, 4)
    return tiles.reshape(1, height, width, channels * _FOLD * _FOLD)


def fold_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """The same convolution on folded images: `[k, k, C, O]` to `[k/4, k/4, 16 C, O]`."""
    size, _, channels, outputs = kernel.shape
    tiles = tf.reshape(kernel, [size // _FOLD, _FOLD, size // _FOLD, _FOLD, channels, outputs])
    tiles = tf.transpose(tiles, [0, 2, 4, 1, 3, 5])
    return tf.reshape(tiles, [size // _FOLD, size // _FOLD, channels * _FOLD * _FOLD, outputs])


class ConvolutionalTorso(Torso):
    """Convolutions (valid padding, ReLU), then a fully connected layer with ReLU."""

    def __init__(
        self,
        convolutions: Sequence[tuple[int, int, int]],
        output_size: int,
        dtype: tf.DType = tf.float32,
        compute_dtype: tf.DType | None = None,
        name: str = "convolutional_torso",
        image_scaling: ImageScaling = UNIT,
    ) -> None:
        """Args:
        convolutions: (channels, kernel, stride) of each.
        output_size: width of the feature vector.
        dtype: of weights and features.
        compute_dtype: of the layers between; `dtype` if not given.
        name: of the module.
        image_scaling: of bytes.
        """
        super().__init__(dtype, compute_dtype, name, image_scaling)
        self._first = convolutions[0]
        self._convolutions = [
            snt.Conv2D(channels, kernel, stride, padding="VALID", name=f"conv_{index}")
            for index, (channels, kernel, stride) in enumerate(convolutions)
        ]
        self._linear = snt.Linear(output_size, name="fc")

    @property
    def last_layer(self) -> snt.Linear:
        return self._linear

    def body(self, observations: tf.Tensor) -> tf.Tensor:
        first, *others = self._convolutions
        if not hasattr(first, "w"):
            return self._make_variables(observations)
        if self._folds(observations):
            images, scaling = fold_images(observations), self._image_scaling
            if scaling.mean is not None:
                mean = fold_mean(scaling.mean, observations.shape[1])
                images = tf.cast(images, self._dtype) - tf.constant(mean, self._dtype)
            # Bytes are exact in bfloat16 too; it is the kernel that is scaled.
            images = tf.cast(images, self._compute_dtype)
            kernel = fold_kernel(first.w) * tf.constant(1.0 / scaling.deviation, self._dtype)
            kernel, bias = (tf.cast(v, self._compute_dtype) for v in (kernel, first.b))
            features = convolve(images, kernel, bias, 1, "VALID", rectified=True, of_data=True)
        else:
            images = prepare_images(observations, self._dtype, self._image_scaling)
            features = tf.cast(images, self._compute_dtype)
            of_data = not observations.dtype.is_floating
            features = _convolve(first, features, rectified=True, of_data=of_data)
        for convolution in others:
            features = _convolve(convolution, features, rectified=True)
        return tf.cast(snt.flatten(features), self._dtype)

    def _make_variables(self, observations: tf.Tensor) -> tf.Tensor:
        features = prepare_images(observations, self._dtype, self._image_scaling)
        for convolution in self._convolutions:
            features = tf.nn.relu(convolution(features))
        return snt.flatten(features)

    def _folds(self, observations: tf.Tensor) -> bool:
        _, kernel, stride = self._first
        return can_fold(observations, kernel, stride)


class ResidualBlock(snt.Module):
    """ReLU, 3×3, ReLU, 3×3, and the input added."""

    def __init__(self, channels: int, name: str = "residual_block") -> None:
        super().__init__(name=name)
        self._first = snt.Conv2D(channels, 3, padding="SAME", name="conv_0")
        self._second = snt.Conv2D(channels, 3, padding="SAME", name="conv_1")

    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        if not hasattr(self._first, "w"):
            return features + self._second(tf.nn.relu(self._first(tf.nn.relu(features))))
        inner = _convolve(self._first, tf.nn.relu(features), rectified=True)
        change = _convolve(self._second, inner)
        # TensorFlow 2.21 would also merge the addition into the convolution. Where the sum is used
        # twice this fails ("remapper failed"), and nothing in the graph is merged. The reshape
        # hides the addition.
        return features + tf.reshape(change, [-1, *change.shape[1:]])


class DeepTorso(Torso):
    """IMPALA's deep network: three sections of convolution, max-pool and two residual blocks."""

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 32),
        output_size: int = 256,
        dtype: tf.DType = tf.float32,
        compute_dtype: tf.DType | None = None,
        name: str = "deep_torso",
        image_scaling: ImageScaling = UNIT,
    ) -> None:
        """Args:
        channels: of each section.
        output_size: width of the feature vector.
        dtype: of weights and features.
        compute_dtype: of the layers between; `dtype` if not given.
        name: of the module.
        image_scaling: of bytes.
        """
        super().__init__(dtype, compute_dtype, name, image_scaling)
        self._sections = [
            (
                snt.Conv2D(width, 3, padding="SAME", name=f"section_{index}_conv"),
                ResidualBlock(width, name=f"section_{index}_block_0"),
                ResidualBlock(width, name=f"section_{index}_block_1"),
            )
            for index, width in enumerate(channels)
        ]
        self._linear = snt.Linear(output_size, name="fc")

    @property
    def last_layer(self) -> snt.Linear:
        return self._linear

    def body(self, observations: tf.Tensor) -> tf.Tensor:
        features = prepare_images(observations, self._dtype, self._image_scaling)
        is_made = hasattr(self._sections[0][0], "w")
        if is_made:
            features = tf.cast(features, self._compute_dtype)
        # Numbers made of bytes have no derivative.
        of_data = not observations.dtype.is_floating
        for convolution, first_block, second_block in self._sections:
            if is_made:
                features = _convolve(convolution, features, of_data=of_data)
            else:
                features = convolution(features)
            of_data = False
            features = tf.nn.max_pool2d(features, ksize=3, strides=2, padding="SAME")
            features = second_block(first_block(features))
        return tf.cast(snt.flatten(tf.nn.relu(features)), self._dtype)


class MLPTorso(Torso):
    """Flattened observation, then fully connected layers with ReLU.

    φ is the input of the last of them; with a single layer, the flattened observation.
    """

    def __init__(
        self,
        output_sizes: Sequence[int] = (64, 64),
        dtype: tf.DType = tf.float32,
        compute_dtype: tf.DType | None = None,
        name: str = "mlp_torso",
        image_scaling: ImageScaling = UNIT,
    ) -> None:
        """Args:
        output_sizes: width of each layer.
        dtype: of weights and features.
        compute_dtype: of the layers between; `dtype` if not given.
        name: of the module.
        image_scaling: of bytes.
        """
        super().__init__(dtype, compute_dtype, name, image_scaling)
        self._mlp = snt.nets.MLP(output_sizes, activate_final=True, name="mlp")

    @property
    def _layers(self) -> list[snt.Linear]:
        return [module for module in self._mlp.submodules if isinstance(module, snt.Linear)]

    @property
    def last_layer(self) -> snt.Linear:
        return self._layers[-1]

    def body(self, observations: tf.Tensor) -> tf.Tensor:
        features = as_numbers(observations, self._dtype, self._image_scaling)
        features = tf.reshape(features, [-1, math.prod(observations.shape[1:])])
        for layer in self._layers[:-1]:
            if hasattr(layer, "w"):
                features = _multiply(layer, tf.cast(features, self._compute_dtype))
            else:
                features = layer(features)
            features = tf.nn.relu(features)
        return tf.cast(features, self._dtype)


# Of each: convolutions (channels, kernel, stride) and width of the last hidden layer. Shallow:
# IMPALA, figure 3, left. Nature: Mnih et al. 2015; IMPALA's "shallow" Atari experts had three
# convolutions as well. MinAtar: Young and Tian 2019.
_CONVOLUTIONAL: dict[str, tuple[list[tuple[int, int, int]], int]] = {
    "shallow": ([(16, 8, 4), (32, 4, 2)], 256),
    "nature": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512),
    "minatar": ([(16, 3, 1)], 128),
}
TORSOS = (*_CONVOLUTIONAL, "deep", "mlp")


def make_torso_of_package(
    name: str,
    dtype: tf.DType,
    mlp_sizes: Sequence[int],
    compute_dtype: tf.DType | None = None,
    image_scaling: ImageScaling = UNIT,
) -> Torso:
    """One of `TORSOS`, without variables yet; `mlp_sizes` are widths of the MLP."""
    if name == "deep":
        return DeepTorso(dtype=dtype, compute_dtype=compute_dtype, image_scaling=image_scaling)
    if name == "mlp":
        return MLPTorso(mlp_sizes, dtype, compute_dtype, image_scaling=image_scaling)
    layers = _CONVOLUTIONAL[name]
    return ConvolutionalTorso(*layers, dtype, compute_dtype, f"{name}_torso", image_scaling)
