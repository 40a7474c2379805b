"""Collect the text that train.py and data.py read: docstrings of Python's standard library.

    python recipes/charlstm/collect.py

Docstrings differ from one release of Python to the next, so the text is committed and this is not
run again in a build. The modules carry no license of their own beside Python's.
"""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from data import CORPUS, VOCABULARY

# Nothing that documents again what another module does: pathlib and os.path, threading and asyncio.
EVALUATION = ("configparser", "contextlib", "fractions", "random", "shelve", "urllib/parse")
TRAINING = (
    *("argparse", "asyncio/events", "asyncio/locks", "asyncio/queues", "asyncio/streams"),
    *("asyncio/tasks", "base64", "bz2", "calendar", "cmd", "collections/__init__", "csv"),
    *("dataclasses", "datetime", "difflib", "dis", "email/headerregistry", "email/policy", "enum"),
    *("fileinput", "getopt", "graphlib", "gzip", "heapq", "http/client"),
    *("http/server", "importlib/abc", "importlib/metadata/__init__", "importlib/util", "inspect"),
    *("json/__init__", "json/decoder", "json/encoder", "locale", "lzma", "mimetypes", "os"),
    *("pathlib", "pdb", "pickle", "pkgutil", "plistlib", "posixpath", "pprint", "pydoc", "queue"),
    *("sched", "selectors", "shutil", "smtplib", "socket", "ssl", "statistics", "tempfile"),
    *("threading", "timeit", "tokenize", "traceback", "urllib/request", "warnings"),
    *("weakref", "xml/sax/handler", "zipfile", "zipimport"),
)


def docstrings(module: str) -> Iterator[str]:
    """The docstrings of a module, of its classes and of its functions, from top to bottom."""
    source = Path(sysconfig.get_path("stdlib"), f"{module}.py").read_bytes()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    for node in sorted(found, key=lambda node: getattr(node, "lineno", 0)):
        text = ast.get_docstring(node)
        if text:
            yield "".join(c for c in text.expandtabs(4) if c in VOCABULARY)


def main() -> None:
    seen: set[str] = set()
    for name, modules in (("training", TRAINING), ("evaluation", EVALUATION)):
        found = [text for module in modules for text in docstrings(module)]
        texts = [text for text in dict.fromkeys(found) if text not in seen]  # each only once
        seen.update(texts)
        path = CORPUS / f"{name}.txt"
        path.write_text("\n\n".join(texts) + "\n", "ascii", newline="\n")
        print(f"{path}: {path.stat().st_size} bytes, {len(texts)} docstrings")


if __name__ == "__main__":
    main()
