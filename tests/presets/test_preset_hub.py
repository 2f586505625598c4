"""Presets from the Hub: a loopback server, the cache, and no connection."""

import sys
import time

import numpy as np
import pytest
from hub_server import COMMIT
from preset_models import OtherModel, TinyModel

from keras_vq import presets
from keras_vq.presets import load_preset
from keras_vq.presets.hub import Address, parse_address


@pytest.mark.parametrize(
    "address, expected",
    [
        ("hf://user/repo", ("user/repo", "", None)),
        ("hf://user/repo@v1.0", ("user/repo", "", "v1.0")),
        ("hf://a-b/c_d.e@refs/pr/1", ("a-b/c_d.e", "", "refs/pr/1")),
        (f"hf://user/repo@{COMMIT}", ("user/repo", "", COMMIT)),
        ("hf://a/b/c", ("a/b", "c", None)),
        ("hf://a/b/c/d.ckpt@v1", ("a/b", "c/d.ckpt", "v1")),
    ],
)
def test_addresses(address, expected):
    assert parse_address(address) == Address(*expected)
    assert str(parse_address(address)) == address


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://user",
        "hf://a/b/",
        "hf://a/b//c",
        "hf://a/b/../c",
        "hf://a/b@",
        "hf://a b/c",
        "hf:///b",
    ],
)
def test_malformed_addresses(address):
    with pytest.raises(presets.PresetError, match="hf://user/repository"):
        load_preset(TinyModel, address)


@pytest.mark.parametrize("address", ["kaggle://a/b", "https://a/b", "gs://a"])
def test_other_schemes(address):
    with pytest.raises(presets.PresetError, match="hf://user/repository"):
        load_preset(TinyModel, address)


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        presets.PresetUnavailableError, match=r"pip install .keras-vq\[hub\]"
    ):
        load_preset(TinyModel, "hf://user/repo")


@pytest.fixture
def server(hub, preset):
    return hub(preset)


def test_a_preset_is_downloaded_once_and_checked(server, tiny_model, images):
    model = load_preset(TinyModel, "hf://user/repo")
    np.testing.assert_array_equal(model(images), tiny_model(images))
    downloads = [line for line in server.log if "GET /user" in line]
    assert sorted(line.rsplit("/", 1)[1] for line in downloads) == [
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    server.log.clear()
    load_preset(TinyModel, f"hf://user/repo@{COMMIT}")
    assert server.log == []  # A commit that is in the cache.
    load_preset(TinyModel, "hf://user/repo")
    assert not [line for line in server.log if "GET /user" in line]
    hashes = presets.verify("hf://user/repo@v1")
    assert sorted(hashes) == ["config.json", "model.weights.h5"]
    with pytest.raises(presets.PresetError, match="holds a TinyModel"):
        load_preset(OtherModel, "hf://user/repo")


def test_fresh_weights_download_no_weights(server):
    load_preset(TinyModel, "hf://user/repo@v1", load_weights=False)
    assert not [line for line in server.log if "weights" in line]


def test_all_files_are_of_the_commit_of_the_first(server):
    original = server.find

    def move(path):
        answer = original(path)
        if "metadata.json" in path:
            # A push after the first file.
            server.seen = True
        elif getattr(server, "seen", False) and "resolve" in path:
            assert f"/resolve/{COMMIT}/" in path
        return answer

    server.find = move
    load_preset(TinyModel, "hf://user/repo")
    assert server.seen


def test_a_damaged_download_is_refused(server, preset):
    path = preset / "model.weights.h5"
    body = bytearray(path.read_bytes())
    body[-40] ^= 1
    path.write_bytes(body)
    with pytest.raises(presets.DamagedPresetError, match="not the file"):
        load_preset(TinyModel, "hf://user/repo")


@pytest.mark.parametrize(
    "address, kind, message",
    [
        ("hf://user/other", "UnknownPresetError", "no repository"),
        ("hf://user/repo@v9", "UnknownPresetError", "no such revision"),
        ("hf://gated/repo", "PresetUnavailableError", "gated"),
    ],
)
def test_what_the_hub_does_not_have(server, address, kind, message):
    with pytest.raises(getattr(presets, kind), match=message):
        load_preset(TinyModel, address)


def test_repositories_of_other_packages(server, preset):
    (preset / "metadata.json").unlink()
    with pytest.raises(presets.UnknownPresetError, match="no metadata.json"):
        load_preset(TinyModel, "hf://user/repo")


def test_offline_by_environment(server, no_sockets, monkeypatch):
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(
        presets.PresetUnavailableError, match="HF_HUB_OFFLINE is set"
    ) as error:
        load_preset(TinyModel, "hf://user/repo")
    assert time.monotonic() - start < 10
    assert "model.weights.h5" in str(error.value)
    assert no_sockets == []


@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_without_a_connection_there_is_one_error_at_once(
    server, no_sockets, revision
):
    start = time.monotonic()
    with pytest.raises(
        presets.PresetUnavailableError, match="does not answer"
    ) as error:
        load_preset(TinyModel, f"hf://user/repo{revision}")
    assert time.monotonic() - start < 10  # The client alone takes 23 s.
    assert "config.json" in str(error.value)
    assert "copy these files to a directory" in str(error.value)


@pytest.mark.parametrize("offline", [False, True])
def test_the_cache_works_without_a_connection(
    server, monkeypatch, images, request, offline
):
    expected = load_preset(TinyModel, "hf://user/repo")(images)
    tried = request.getfixturevalue("no_sockets")
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    result = load_preset(TinyModel, "hf://user/repo")(images)
    np.testing.assert_array_equal(result, expected)
    assert offline == (not tried)
    tried.clear()
    load_preset(TinyModel, f"hf://user/repo@{COMMIT}")
    assert tried == []


def test_a_connection_lost_between_two_files(server):
    original = server.find

    def lose(path):
        if "config.json" in path:
            raise ConnectionError
        return original(path)

    server.find = lose
    server.handle_error = lambda *args: None
    with pytest.raises(presets.PresetUnavailableError, match="config.json"):
        load_preset(TinyModel, "hf://user/repo")
