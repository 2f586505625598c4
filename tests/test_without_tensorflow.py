"""Presets, program and training where there is no TensorFlow."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import keras_vq

SCRIPT = pathlib.Path(__file__).with_name("without_tensorflow.py")
# As if it were not installed.
PROGRAM = """
import runpy, sys
sys.modules["tensorflow"] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_everything_works_on_jax_without_tensorflow(tmp_path):
    pytest.importorskip("jax", reason="the backend that needs no TensorFlow")
    pytest.importorskip("grain", reason="it reads the data then")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    done = [line for line in ended.stdout.splitlines() if "done: " in line]
    assert len(done) == 3


@pytest.mark.parametrize(
    "code", ["import keras_vq", "from keras_vq.cli import main; main(['list'])"]
)
def test_missing_backend_is_explained(code):
    code = f"import sys; sys.modules['tensorflow'] = None; {code}"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert "tensorflow, which is not installed" in last
    assert "KERAS_BACKEND=jax" in last


def test_no_module_imports_tensorflow_at_its_beginning():
    """But for some of `trainers`, which the backend chooses from."""
    folder = pathlib.Path(keras_vq.__file__).parent
    folders = [folder, folder / "training", folder / "applications"]
    paths = {p for f in folders for p in f.rglob("*.py")}
    assert len(paths) > 150
    for path in paths:
        if path.parent.name == "trainers":
            continue
        for statement in ast.parse(path.read_text()).body:
            names = []
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            tops = {name.split(".")[0] for name in names}
            assert "tensorflow" not in tops, path
