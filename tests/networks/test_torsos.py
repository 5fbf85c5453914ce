"""The torsos. Ground truth (shapes and parameter counts written by hand; the deep and the
convolutional torso in NumPy loops), equivalence (layouts and scales of images)."""

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.networks.torsos import (
    TORSOS,
    UNIT,
    ConvolutionalTorso,
    DeepTorso,
    ImageScaling,
    as_numbers,
    can_fold,
    fold_images,
    make_torso_of_package,
    prepare_images,
)

# Kernels [height, width, in, out], linear layers [in, out], in order of the forward pass.
SHALLOW = [(8, 8, 4, 16), (4, 4, 16, 32), (2592, 256)]  # 84 → 20 → 9; 9·9·32
NATURE = [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512)]  # → 20 → 9 → 7; 7·7·64
MINATAR = [(3, 3, 4, 16), (107_584, 128)]  # 84 → 82; 82·82·16
DEEP = [
    *[(3, 3, 4, 16)] + 4 * [(3, 3, 16, 16)],  # 84 → 42
    *[(3, 3, 16, 32)] + 4 * [(3, 3, 32, 32)],  # → 21
    *[(3, 3, 32, 32)] + 4 * [(3, 3, 32, 32)],  # → 11
    (3872, 256),  # 11·11·32
]


def images(seed=0, shape=(2, 84, 84, 4)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make(name, dtype=tf.float32, mlp_sizes=(7, 5), compute_dtype=None, image_scaling=UNIT):
    return make_torso_of_package(name, dtype, mlp_sizes, compute_dtype, image_scaling)


def perturb(torso, seed=1):
    random = np.random.default_rng(seed)
    for variable in torso.trainable_variables:
        variable.assign_add(0.3 * random.normal(size=variable.shape))


@pytest.mark.parametrize(
    ("name", "shapes", "size", "count"),
    [
        ("shallow", SHALLOW, 256, 4_112 + 8_224 + 663_808),
        ("minatar", MINATAR, 128, 592 + 13_770_880),
        ("nature", NATURE, 512, 8_224 + 32_832 + 36_928 + 1_606_144),
        (
            "deep",
            DEEP,
            256,
            (592 + 4 * 2_320) + (4_640 + 4 * 9_248) + (9_248 + 4 * 9_248) + 991_488,
        ),
    ],
)
def test_shapes_and_parameters_of_the_published_networks(name, shapes, size, count):
    torso = make(name)
    features = torso(tf.constant(images()))
    assert features.shape == (2, size) and features.dtype == tf.float32
    weights = [tuple(v.shape) for v in torso.trainable_variables if v.name.endswith("w:0")]
    biases = [tuple(v.shape) for v in torso.trainable_variables if v.name.endswith("b:0")]
    assert sorted(weights) == sorted(shapes)
    assert sorted(biases) == sorted((shape[-1],) for shape in shapes)
    assert sum(int(np.prod(v.shape)) for v in torso.trainable_variables) == count


def test_shapes_of_the_mlp():
    torso = make("mlp")
    assert torso(tf.zeros([3, 4, 2])).shape == (3, 5)
    shapes = {tuple(v.shape) for v in torso.trainable_variables}
    assert shapes == {(8, 7), (7,), (7, 5), (5,)}


def test_the_mlp_is_dense_layers_with_relu():
    torso = make("mlp", tf.float64)
    observations = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    torso(tf.constant(observations))
    perturb(torso)
    values = {tuple(v.shape): v.numpy() for v in torso.trainable_variables}
    hidden = np.maximum(observations.reshape(3, 8) @ values[8, 7] + values[7,], 0.0)
    expected = np.maximum(hidden @ values[7, 5] + values[5,], 0.0)
    np.testing.assert_allclose(torso(tf.constant(observations)), expected, rtol=1e-12)


# The convolutional torsos in loops.


def convolve(image, kernel, bias, stride, same):
    """A convolution of `[H, W, C]`: zeros around it if `same` (stride 1 only)."""
    size = kernel.shape[0]
    if same:
        image = np.pad(image, [(size // 2, size // 2)] * 2 + [(0, 0)])
    rows = (image.shape[0] - size) // stride + 1
    columns = (image.shape[1] - size) // stride + 1
    result = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = image[i * stride : i * stride + size, j * stride : j * stride + size]
            result[i, j] = np.tensordot(patch, kernel, 3) + bias
    return result


def pool(image):
    """3×3 maximum with stride 2, half as large rounded up; what is padded is never the maximum."""
    rows, columns = (side + 1 >> 1 for side in image.shape[:2])
    # With SAME padding an even side gets its one padded row at the end, an odd side one at each.
    starts = [0 if side % 2 == 0 else -1 for side in image.shape[:2]]
    result = np.zeros((rows, columns, image.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            top, left = 2 * i + starts[0], 2 * j + starts[1]
            patch = image[max(top, 0) : top + 3, max(left, 0) : left + 3]
            result[i, j] = patch.max(axis=(0, 1))
    return result


def relu(array):
    return np.maximum(array, 0.0)


def parameters_by_layer(torso):
    return {v.name.removesuffix(":0"): v.numpy() for v in torso.trainable_variables}


def layer(parameters, ending):
    (weight,) = [value for name, value in parameters.items() if name.endswith(f"{ending}/w")]
    (bias,) = [value for name, value in parameters.items() if name.endswith(f"{ending}/b")]
    return weight, bias


def test_the_convolutional_torso_equals_numpy_loops():
    torso = ConvolutionalTorso([(3, 4, 2), (2, 3, 1)], 5, tf.float64)
    observations = images(shape=(2, 11, 12, 2))
    torso(tf.constant(observations))
    perturb(torso)
    parameters = parameters_by_layer(torso)
    for image, actual in zip(observations / 255.0, torso(tf.constant(observations)), strict=True):
        features = relu(convolve(image, *layer(parameters, "conv_0"), 2, same=False))
        features = relu(convolve(features, *layer(parameters, "conv_1"), 1, same=False))
        weight, bias = layer(parameters, "fc")
        np.testing.assert_allclose(actual, relu(features.ravel() @ weight + bias), rtol=1e-10)


def test_the_deep_torso_equals_numpy_loops():
    torso = DeepTorso(channels=(2, 3), output_size=5, dtype=tf.float64)
    observations = images(shape=(2, 9, 10, 2))  # an odd side and an even one
    torso(tf.constant(observations))
    perturb(torso)
    parameters = parameters_by_layer(torso)

    def block(features, name):
        inner = convolve(relu(features), *layer(parameters, f"{name}/conv_0"), 1, same=True)
        return features + convolve(relu(inner), *layer(parameters, f"{name}/conv_1"), 1, same=True)

    for image, actual in zip(observations / 255.0, torso(tf.constant(observations)), strict=True):
        features = image
        for section in ("section_0", "section_1"):
            features = convolve(features, *layer(parameters, f"{section}_conv"), 1, same=True)
            features = pool(features)
            features = block(features, f"{section}_block_0")
            features = block(features, f"{section}_block_1")
        weight, bias = layer(parameters, "fc")
        expected = relu(relu(features).ravel() @ weight + bias)
        assert np.any(features < 0)  # so that the last ReLU matters
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


# Layouts and scales.


@pytest.mark.parametrize("name", ["shallow", "nature", "deep", "minatar"])
def test_channels_first_and_last_are_the_same_image(name):
    torso = make(name, tf.float64)
    last = images()
    first = np.moveaxis(last, -1, 1)
    expected = torso(tf.constant(last)).numpy()
    assert np.any(expected != 0)
    # Sums of many terms that nearly cancel have the rounding error of their largest terms.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(torso(tf.constant(first)) / scale, expected / scale, 0, 1e-11)


def fold(observations):
    """Space to depth, in NumPy."""
    count, channels, height, width = observations.shape
    tiles = observations.reshape(count, channels, height // 4, 4, width // 4, 4)
    return tiles.transpose(0, 2, 4, 1, 3, 5).reshape(count, height // 4, width // 4, channels * 16)


def stacks():
    """The same stack of frames, S and C last, S first, and S and C first."""
    last = images(shape=(2, 9, 9, 4, 3))
    first = np.moveaxis(last, -2, 1)
    return last.reshape(2, 9, 9, 12), first, np.moveaxis(first, -1, 2)


def test_the_frames_of_a_stack_are_channels():
    merged, *stacked = (prepare_images(tf.constant(s), tf.float64) for s in stacks())
    for prepared in stacked:
        np.testing.assert_array_equal(prepared, merged)


@pytest.mark.parametrize("name", ["deep", "minatar"])
def test_torsos_accept_frame_stacks(name):
    torso = make(name, tf.float64)
    merged, *stacked = stacks()
    expected = torso(tf.constant(merged)).numpy()
    assert np.any(expected != 0)
    for observations in stacked:
        np.testing.assert_allclose(torso(tf.constant(observations)), expected, rtol=1e-11)


@pytest.mark.parametrize("values", [range(256), (0, 0, 0, 1, 127, 128, 255), (0, 0, 0, 0, 0, 1)])
def test_every_pattern_of_bytes_survives_folding(values):
    """Among them those that, as floats, are denormal, infinite or no numbers."""
    random = np.random.default_rng(0)
    observations = random.choice(np.array(values, np.uint8), (16, 4, 84, 84))
    folded = tf.function(fold_images)(tf.constant(observations))
    np.testing.assert_array_equal(folded, fold(observations))


def test_only_bytes_in_the_emulators_layout_are_folded():
    frames = tf.zeros([1, 4, 84, 84], tf.uint8)
    assert can_fold(frames, 8, 4)
    assert not can_fold(frames, 8, 2)
    assert not can_fold(frames, 6, 4)
    assert not can_fold(tf.zeros([1, 4, 84, 86], tf.uint8), 8, 4)
    assert not can_fold(tf.zeros([1, 84, 84, 4], tf.uint8), 8, 4)
    assert not can_fold(tf.cast(frames, tf.float32), 8, 4)


def test_a_folded_convolution_has_the_same_gradient():
    torso = make("shallow", tf.float64)
    last = images()
    gradients = []
    for observations in (last, np.moveaxis(last, -1, 1)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(torso(tf.constant(observations)) ** 2)
        gradients.append(tape.gradient(loss, torso.trainable_variables))
    for plain, folded in zip(*gradients, strict=True):
        np.testing.assert_allclose(folded, plain, rtol=1e-9, atol=1e-10)


def test_images_are_scaled_to_one():
    raw = images()
    scaled = prepare_images(tf.constant(raw), tf.float64)
    np.testing.assert_allclose(scaled, raw / 255.0, rtol=1e-14)
    # Numbers that are no bytes are left alone.
    fractions = (raw / 255.0).astype(np.float32)
    np.testing.assert_array_equal(prepare_images(tf.constant(fractions), tf.float32), fractions)


SCALING = ImageScaling(np.random.default_rng(3).uniform(0, 255, (84, 84)).astype(np.float32), 7.0)


@pytest.mark.parametrize("name", TORSOS)
@pytest.mark.parametrize(("dtype", "rtol"), [(tf.float64, 1e-9), (tf.float32, 1e-3)])
def test_the_background_is_taken_from_every_frame(name, dtype, rtol):
    raw = np.moveaxis(images(), -1, 1)
    torso = make(name, dtype, image_scaling=SCALING)
    by_hand = (raw - SCALING.mean.astype(np.float64)) / SCALING.deviation
    expected = torso(tf.constant(by_hand, dtype)).numpy()
    assert np.max(expected) > 0.1
    np.testing.assert_allclose(torso(tf.constant(raw)), expected, rtol=rtol, atol=rtol)


def test_what_is_no_image_of_bytes_keeps_its_background():
    fractions = np.moveaxis(images(), -1, 1).astype(np.float32)
    np.testing.assert_array_equal(
        as_numbers(tf.constant(fractions), tf.float32, SCALING), fractions
    )


def test_a_grey_image_without_a_channel_axis():
    raw = images(shape=(2, 30, 20))
    prepared = prepare_images(tf.constant(raw), tf.float64)
    np.testing.assert_allclose(prepared, raw[..., np.newaxis] / 255.0, rtol=1e-14)


def test_the_mlp_scales_bytes():
    torso = make("mlp")
    raw = images(shape=(3, 4, 2))
    np.testing.assert_allclose(
        torso(tf.constant(raw)), torso(tf.constant(raw / 255.0)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", TORSOS)
def test_torsos_run_in_float64(name):
    torso = make(name, tf.float64)
    assert torso(tf.constant(images(shape=(1, 84, 84, 4)))).dtype == tf.float64
    assert {v.dtype for v in torso.trainable_variables} == {tf.float64}


@pytest.mark.parametrize("name", TORSOS)
def test_bfloat16_torsos_have_float32_weights_and_outputs(name):
    exact, rough = make(name), make(name, compute_dtype=tf.bfloat16)
    observations = tf.constant(np.moveaxis(images(), -1, 1))
    for torso in (exact, rough):
        torso(observations)
    for variable, same in zip(rough.trainable_variables, exact.trainable_variables, strict=True):
        assert variable.dtype == tf.float32
        variable.assign(same)
    found, expected = rough(observations), exact(observations)
    assert found.dtype == tf.float32
    assert np.any(found.numpy() != expected.numpy())
    # Eight bits of mantissa, a few layers.
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
