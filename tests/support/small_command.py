"""A command without TensorFlow, for tests of how commands are started."""

import os
import random
import signal
import sys
import time

import numpy as np

if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print("arguments", rest, flush=True)
    if what == "process":
        print(os.getpid(), os.getppid(), os.getpgid(0), sys.stdin.read() == "", flush=True)
        print(sorted(os.listdir("/proc/self/fd"), key=int)[:-1], flush=True)
    elif what == "random":
        print(random.random(), np.random.random(), flush=True)
    elif what == "exit":
        sys.exit(int(rest[0]))
    elif what == "raise":
        raise ValueError("it is broken")
    elif what == "wait":
        if rest == ["and exit 5"]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        print("waiting", flush=True)
        time.sleep(600)
