"""The command line, called as a person calls it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any


def aigc(*words: str) -> tuple[int, Any]:
    """The exit code of a command line, and what it prints: with ``--json`` as what that stands for, if it went well."""
    from aigc_cli.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    if code:  # shown where a test fails
        print(f"exit {code}: aigc {' '.join(words)}\n{err.getvalue()[-2000:]}", file=sys.stderr)
    printed = out.getvalue()
    return code, json.loads(printed) if "--json" in words and not code else printed
