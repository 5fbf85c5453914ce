"""Files are written and read in one place: no other module opens one itself (static)."""

import ast
import pathlib

from meta_impala.storage import files

ROOT = pathlib.Path(files.__file__).parents[2]
SOURCES = sorted([*ROOT.glob("meta_impala/**/*.py"), *ROOT.glob("tools/*.py")])

# Calls that write, rename or read a file, with the modules that may make them.
_STORAGE = {"storage/files.py", "storage/arrays.py", "storage/results_folder.py"}
ALLOWED = {
    "write_text": set(),
    "write_bytes": set(),
    "to_csv": set(),
    "savetxt": {"tools/torture.py"},
    "mkstemp": set(),
    "NamedTemporaryFile": set(),
    "save": {"tools/make_readme_pictures.py"},  # pictures of this repository
    "load": set(),
    "replace": {"storage/files.py", "storage/folder_lock.py"},
    # Of whole checkpoints.
    "rename": {"storage/files.py", "storage/checkpoint.py"},
    # The package's own data, /proc and /sys.
    "read_text": {
        "config/presets.py", "evaluation/scores.py", "published/tables.py", "benchmark.py",
        "storage/lock_record.py", "system/processors.py", "system/huge_pages.py",
        "analysis/run_page/page.py", "tools/torture.py",
    },
    "read_bytes": {"benchmarks/operation_profile.py", "tools/torture.py"},
}  # fmt: skip
# `open`: flags files (below `storage`), /proc, /dev/null, an own standard input.
_OPEN = {
    "storage/files.py", "config/flag_files.py", "benchmarks/throughput.py", "benchmark.py",
    "system/streams.py", "system/tensorflow_import.py", "tools/make_readme_pictures.py",
}  # fmt: skip


def _name(path: pathlib.Path) -> str:
    relative = path.relative_to(ROOT)
    return str(relative.relative_to("meta_impala") if relative.parts[0] != "tools" else relative)


def _module(call: ast.Call) -> str:
    """What stands before the dot, as text."""
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _calls(path: pathlib.Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _found(call: ast.Call) -> str | None:
    """The kind of a call that touches a file."""
    if isinstance(call.func, ast.Name):
        return "open" if call.func.id == "open" else None
    if not isinstance(call.func, ast.Attribute):
        return None
    kind, module = call.func.attr, _module(call)
    if kind in ("replace", "rename"):  # not of texts and dataclasses
        return kind if module == "os" or module.endswith(("path", "aside")) else None
    if kind in ("save", "load"):
        return kind if module in ("np", "numpy") else None
    if kind in ("savez", "savez_compressed"):
        return "savez"
    return kind if kind in ALLOWED or kind == "savefig" else None


def _is_allowed(path: pathlib.Path, call: ast.Call) -> bool:
    kind = _found(call)
    if kind is None or _module(call) == "results_folder":
        return True
    if kind == "open":
        return _name(path) in _OPEN
    if kind == "savefig":  # to a file object, which `save_figure` or memory gives
        return not call.args or ast.unparse(call.args[0]) in ("file", "picture")
    return _name(path) in (_STORAGE if kind == "savez" else ALLOWED[kind])


def test_no_module_opens_files_itself():
    found = [(path, call) for path in SOURCES for call in _calls(path)]
    assert sum(_found(call) is not None for _, call in found) > 20
    wrong = [
        f"{_name(path)}, line {call.lineno}: {ast.unparse(call)}"
        for path, call in found
        if not _is_allowed(path, call)
    ]
    assert not wrong
