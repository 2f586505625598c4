"""A small model saved once, and copies of it that a test may damage."""

import contextlib
import json
import shutil
import socket

import hub_server
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Function of a directory that puts it on the Hub as "user/repo"."""
    constants = pytest.importorskip("huggingface_hub.constants")
    running = contextlib.ExitStack()

    def start(directory):
        server = running.enter_context(hub_server.serve(directory))
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        return server

    with running:
        yield start


@pytest.fixture
def no_sockets(monkeypatch):
    """Counts the connections that are tried, and refuses them."""
    tried = []

    def refuse(self, address):
        tried.append(address)
        raise OSError(101, "Network is unreachable")

    def unknown(host, *args, **kwargs):
        tried.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    return tried
