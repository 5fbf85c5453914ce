"""What must stand before TensorFlow's first import, and before the first process of a test."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Under nohup every process of a test would inherit that SIGHUP is ignored, and some are to obey
# it. One that is caught is not inherited, and these tests still survive it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
