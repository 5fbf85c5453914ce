"""The operating-system process: signals, watchdog, processors, TensorFlow's set-up."""
