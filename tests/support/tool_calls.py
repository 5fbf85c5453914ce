"""Calls a command of tools/ many times in one process, each time with flags of its own.

Reads a JSON list of argument lists on standard input; prints a JSON list of [exit code, stdout,
stderr].
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import traceback

from absl import flags


def _call(main, arguments):
    out, err = io.StringIO(), io.StringIO()
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(flags.FLAGS(["tool", *arguments]))
        except Exception:  # noqa: BLE001 - as the interpreter would show it
            traceback.print_exc()
            code = 1
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    tool = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = tool
    spec.loader.exec_module(tool)
    print(json.dumps([_call(tool.main, arguments) for arguments in json.load(sys.stdin)]))
