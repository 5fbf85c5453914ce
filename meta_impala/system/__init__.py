"""The operating-system process: signals, watchdog, processors, memory pages, TensorFlow's set-up."""
