"""A small model saved once, and copies of it that a test may damage."""

import json
import shutil

import keras
import numpy as np
import preset_models
import pytest

from keras_vq import presets
from keras_vq.presets import manifest


@pytest.fixture(scope="session")
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="session")
def tiny_model():
    keras.utils.set_random_seed(0)
    model = preset_models.TinyModel(name="tiny")
    model.shift.count.assign([1, 2, 3, 2**30])
    model.shift.ready.assign(True)
    model.steps.assign(1234)
    return model


@pytest.fixture(scope="session")
def saved(tiny_model, tmp_path_factory):
    """A preset directory that no test changes."""
    directory = tmp_path_factory.mktemp("presets") / "tiny"
    facts = {"description": "A tiny model.", "licence": "CC0-1.0", "seed": 0}
    presets.save_preset(tiny_model, directory, metadata=facts)
    return directory


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of `saved`, the test's own."""
    return shutil.copytree(saved, tmp_path / "preset")


@pytest.fixture
def reseal():
    """Writes the hashes of the present files, as a forger would."""

    def write(directory):
        path = directory / manifest.METADATA_FILE
        content = json.loads(path.read_text())
        for name in (manifest.CONFIG_FILE, manifest.WEIGHTS_FILE):
            content["files"][name] = manifest.fingerprint(directory / name)
        path.write_text(json.dumps(content))

    return write
