"""Imported first by every job: where the project's libraries are missing, one line says which Python to take."""

import sys
from importlib.util import find_spec

if find_spec("typer") is None or find_spec("ray") is None:
    sys.stderr.write(
        f"error: this Python lacks the project's libraries; found {sys.executable}; activate the environment "
        "(. .venv/bin/activate) before `ray start`, since a Ray job runs in the environment of its head, and before "
        "you call a job yourself\n"
    )
    raise SystemExit(2)
