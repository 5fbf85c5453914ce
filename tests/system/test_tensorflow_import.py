"""The import of TensorFlow: without Keras, which stays usable."""

import concurrent.futures
import pathlib
import subprocess
import sys

from meta_impala.system import tensorflow_import

ROOT = pathlib.Path(__file__).parents[2]

CODE = """
import sys
from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow
quiet_tensorflow()
import_tensorflow()
assert "_NoKeras" not in [type(finder).__name__ for finder in sys.meta_path]
import meta_impala.evaluate, meta_impala.train, meta_impala.training.make_trainer
print([name for name in ("tf_keras", "keras", "pandas") if name in sys.modules])
import tensorflow as tf
tf.keras.layers.Dense
from tensorflow.keras import layers
print(float(layers.Dense(1, kernel_initializer="ones")(tf.ones([1, 3]))[0, 0]))
print(layers.Dense.__module__.startswith("tf_keras."))
"""


def test_neither_keras_nor_pandas_is_imported_until_it_is_used():
    command = [sys.executable, "-c", CODE]
    completed = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert completed.stdout.split() == ["[]", "3.0", "True"], completed.stderr[-2000:]


def test_only_the_thread_that_imports_tensorflow_is_without_keras():
    """An environment of the user's may need Keras while TensorFlow is imported beside it."""
    finder = tensorflow_import._NoKeras()
    assert finder.find_spec("tf_keras", None).loader is finder
    assert finder.find_spec("tf_keras.layers", None) is None
    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert threads.submit(finder.find_spec, "tf_keras", None).result() is None
