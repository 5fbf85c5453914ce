"""From a batch to the next snapshot: one update as one tf.function."""
