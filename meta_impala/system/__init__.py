"""The operating-system process: signals, watchdog, processors, memory, TensorFlow's set-up."""
