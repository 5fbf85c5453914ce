"""Runs a command many times in one process, each time with flags of its own.

Reads a JSON list of argument lists on standard input; prints a JSON list of [exit code, stdout,
stderr].
"""

import contextlib
import importlib
import io
import json
import sys
import traceback

from absl import flags

from meta_impala.config.flags import parse_flags
from meta_impala.errors import UserError


def _call(main, arguments):
    out, err = io.StringIO(), io.StringIO()
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(parse_flags(["command", *arguments])[1:])
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except Exception:  # noqa: BLE001 - as the interpreter would show it
            traceback.print_exc()
            code = 1
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    module.define_flags()
    print(json.dumps([_call(module.main, arguments) for arguments in json.load(sys.stdin)]))
