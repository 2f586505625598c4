"""Collects the figures of the long tests and prints them at the end."""

import json
import os
import pathlib

import pytest

_FIGURES = {}
_HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.soak)


@pytest.fixture
def figure():
    """Function that records one figure for the summary."""

    def record(name: str, text: str):
        _FIGURES[name] = text
        print(f"{name}: {text}", flush=True)

    return record


def pytest_terminal_summary(terminalreporter):
    if not _FIGURES:
        return
    terminalreporter.section("figures")
    for name, text in _FIGURES.items():
        terminalreporter.write_line(f"{name}: {text}")
    # To keep them after a run in the background.
    path = os.environ.get("KERAS_VQ_FIGURES")
    if path:
        path = pathlib.Path(path)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **_FIGURES}, indent=1) + "\n")
