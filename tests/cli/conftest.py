import numpy as np
import pytest
from cli_helpers import make_preset, save

from keras_vq.cli import main


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    """Folder of a small model of colour images, 4 pixels a code."""
    return make_preset(tmp_path_factory.mktemp("presets") / "colour", seed=1)


@pytest.fixture(scope="session")
def grey_preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "grey"
    return make_preset(folder, seed=2, channels=1)


@pytest.fixture
def program(capsys):
    """Runs a command; gives its exit status, output and error output."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def fails(program):
    """Runs a command that must fail; gives its one line of error output."""

    def run(*words, status=1):
        found, _, error = program(*words)
        assert found == status
        assert error.startswith("keras-vq: error: "), error
        assert error.count("\n") == 1
        return error

    return run


@pytest.fixture
def photos(tmp_path):
    """A folder of PNG images of several sizes, most of them odd."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    sizes = {
        "a.png": (16, 16),
        "b.png": (17, 13),
        "c.png": (16, 16),
        "inner/a.png": (1, 30),
        "inner/d.png": (23, 16),
    }
    for name, size in sizes.items():
        save(folder / name, rng.integers(0, 256, (*size, 3)))
    (folder / "notes.txt").write_text("no image")
    return folder
