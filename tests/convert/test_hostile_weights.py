"""Hostile files through `from_preset`: nothing runs, all are refused."""

import codecs
import json
import os
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from test_torch_file import (
    BOMBS,
    PAYLOADS,
    tensor_pickle,
    write_pickle,
)

from keras_vq.convert import ConversionError
from keras_vq.models import VQAutoencoder
from keras_vq.presets import PresetError

# What a file would have to make Python do, to do anything at all.
_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "exec",
    "compile",
    "ctypes.dlopen",
    "socket.connect",
    "socket.getaddrinfo",
)
_watched: list = []
_watching = [False]


def _hook(event, arguments):
    if _watching[0] and event in _EVENTS:
        _watched.append((event, arguments))


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Loads a path, which must be refused without anything done."""
    # Imports what is imported at first use.
    codecs.lookup("raw_unicode_escape")
    path = tmp_path_factory.mktemp("first") / "file"
    write_pickle(path, {})
    archive = path.read_bytes()
    for content in (archive, safetensors({}), b"text", b"\x80\x02N."):
        path.write_bytes(content)
        with pytest.raises(ConversionError):
            VQAutoencoder.from_preset(path)
    # A hook cannot be taken away again.
    sys.addaudithook(_hook)

    def load(path):
        _watched.clear()
        _watching[0] = True
        tracemalloc.start()
        try:
            with pytest.raises((ConversionError, PresetError)) as error:
                VQAutoencoder.from_preset(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            _watching[0] = False
        assert not _watched
        assert peak < 64 * 2**20
        return str(error.value)

    return load


def safetensors(header, data=b""):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def pickles():
    """Every payload, in every protocol and place: 108 files."""
    for protocol in range(6):
        for name, payload in PAYLOADS.items():
            yield f"{name} {protocol} root", payload, protocol
            beside = {"state_dict": {}, "callbacks": [payload]}
            yield f"{name} {protocol} beside", beside, protocol
            inside = {"_vq_vae._embedding.weight": payload}
            yield f"{name} {protocol} inside", inside, protocol


def test_pickles(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    count = 0
    for name, tree, protocol in pickles():
        write_pickle(path, tree, protocol=protocol)
        assert "is refused" in refused(path), name
        count += 1
    assert count == 108
    assert not (tmp_path / "hacked").exists()


def test_bombs(tmp_path, refused):
    for name, content in BOMBS.items():
        path = write_pickle(tmp_path / "bomb.ckpt", content)
        assert refused(path), name
    # A tensor of 2 x 10**12 numbers.
    shape = dict(elements=1 << 41, shape=(1 << 20, 1 << 21))
    refused(write_pickle(path, tensor_pickle(**shape), {"0": bytes(16)}))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}


SAFETENSORS = {
    "no tensors": safetensors({}),
    "foreign names": safetensors({"a": entry()}, bytes(8)),
    "header of 2**63 bytes": struct.pack("<Q", 1 << 63) + b"{" + bytes(20),
    "header longer than the file": struct.pack("<Q", 4096) + b"{}",
    "no JSON": safetensors(b"{" + b"x" * 99),
    "nested": safetensors(b'{"a":' * 5000),
    "data beyond the end": safetensors({"a": entry()}, bytes(4)),
    "data left over": safetensors({"a": entry()}, bytes(80)),
    "shape that is no size": safetensors(
        {"a": entry(shape=(1 << 40, 1 << 40))}, bytes(8)
    ),
    "shape that is negative": safetensors({"a": entry(shape=(-2,))}, bytes(8)),
    "overlap": safetensors({"a": entry(), "b": entry()}, bytes(8)),
    "unknown type": safetensors({"a": entry(dtype="PY")}, bytes(8)),
    "integers": safetensors({"a": entry(dtype="I32")}, bytes(8)),
    "no offsets": safetensors({"a": {"dtype": "F32"}}, bytes(8)),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(tmp_path, refused, name):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(SAFETENSORS[name])
    refused(path)


FLAX = {
    "endless map": b"\xdf\xff\xff\xff\xff" + b"\xa0\x80" * 30_000,
    "nested": b"\x81\xa1a" * 5000,
    "key of 64 KiB": b"\x81\xda\xff\xff" + bytes(70_000),
    "key that is a map": b"\x81\x80\x80",
    "value that is a number": b"\x81\xa1a\x05",
    "object": b"\x81\xa1a\xc7\x0a\x01\x93\x91\x01\xa6object\xc4\x00",
    "array beyond the end": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\xcf"
    + b"\x3f" * 8
    + b"\xa7float32\xc6\xff\xff\xff\xf0",
    "other extension": b"\x81\xa1a\xd4\x02\x00",
    "one name twice": b"\x82"
    + b"\xa1a\xc7\x11\x01\x93\x91\x01\xa7float32\xc4\x04\0\0\0\0" * 2,
}


@pytest.mark.parametrize("name", FLAX)
def test_flax(tmp_path, refused, name):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(FLAX[name])
    refused(path)


CONFIGS = {
    "no JSON": b"{",
    "a list": b"[]",
    "nested": b'{"a":' * 100_000,
    "not UTF-8": b"\xff\xfe{}",
    "20 MB": b" " * (20 << 20) + b"{}",
    "another class": b'{"_class_name": "os.system"}',
    "code": b"{\"act_fn\": \"__import__('os').system('true')\"}",
    "groups beyond all": b'{"norm_num_groups": 99999999999999999999}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_directories(tmp_path, refused, name):
    kernels = {
        "encoder.down_blocks.0.resnets.0.conv1.weight": (32, 32, 3, 3),
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.conv_out.weight": (4, 32, 3, 3),
        "quantize.embedding.weight": (8, 4),
    }
    from safetensors.numpy import save_file

    save_file(
        {name: np.zeros(shape, "float32") for name, shape in kernels.items()},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "config.json").write_bytes(CONFIGS[name])
    refused(tmp_path)


def test_things_that_are_no_files(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    for name in ("pipe", "loop", "nowhere", "empty", "missing"):
        refused(tmp_path / name)
    refused("/dev/zero")
    refused("a\0b.pth")
    refused("../" * 40 + "etc/hostname")


@pytest.mark.parametrize("zipped", [True, False])
def test_mutations(tmp_path, zipped):
    """Any bit changed: our errors, or a model with other numbers."""
    published = pytest.importorskip("published", reason="writes with PyTorch")
    twin = published.Swasun(units=8, inner=4, codes=4)
    path = tmp_path / "model.pth"
    published.torch.save(
        twin.state_dict(), path, _use_new_zipfile_serialization=zipped
    )
    from keras_vq.convert.loading import describe
    from keras_vq.convert.weight_file import open_weights

    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            describe(path)
            with open_weights(path) as file:
                for name in file.shapes:
                    file.read(name)
        except ConversionError:
            refused += 1
    assert 20 < refused < 200
