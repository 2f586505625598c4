"""Files of torch.save, sound and hostile, read without torch."""

import argparse
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keras_vq.convert import (
    ConversionError,
    DamagedFileError,
    LayoutError,
    UnsafeFileError,
    read_torch_file,
)

FORMATS = [True, False]


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_pickle(path, tree, storages=(), protocol=2):
    """An archive as torch.save makes it, by hand; `tree` may be bytes."""
    if not isinstance(tree, bytes):
        tree = pickle.dumps(tree, protocol)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tree)
        for key, data in dict(storages).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def tensor_pickle(elements=4, offset=0, shape=(2, 2), strides=(2, 1)):
    """The pickle of {"w": tensor}, instruction by instruction."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    return b"".join(
        [
            b"\x80\x02}X\x01\x00\x00\x00w",
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
            b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu",
            number(elements),
            b"tQ",
            number(offset),
            numbers(shape),
            numbers(strides),
            b"\x89ccollections\nOrderedDict\n)RtRs.",
        ]
    )


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def many_kinds(torch):
    base = torch.arange(24.0).reshape(2, 3, 4) - 7.5
    return collections.OrderedDict(
        base=base,
        transposed=base.permute(2, 0, 1),
        parameter=torch.nn.Parameter(base[1, 1:]),
        every_second=base[..., ::2],
        half=base.half(),
        bfloat16=base.bfloat16() * 1.7,
        double=base.double() / 3,
        scalar=torch.tensor(3),
        empty=torch.zeros(0, 5),
        int32=torch.tensor([-1, 2], dtype=torch.int32),
        int16=torch.tensor([-1, 2], dtype=torch.int16),
        int8=torch.tensor([-1, 2], dtype=torch.int8),
        uint8=torch.tensor([255, 2], dtype=torch.uint8),
        flags=torch.tensor([True, False, True]),
    )


def as_numpy(tensor):
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


@pytest.mark.parametrize("zipped", FORMATS)
def test_every_kind_of_tensor(torch, tmp_path, zipped):
    state = many_kinds(torch)
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    got = read_torch_file(path)
    assert list(got) == list(state)
    for name, tensor in state.items():
        want = as_numpy(tensor)
        assert got[name].dtype == want.dtype, name
        np.testing.assert_array_equal(got[name], want)
    assert np.shares_memory(got["base"], got["transposed"])
    assert not got["base"].flags.writeable


@pytest.mark.parametrize("zipped", FORMATS)
def test_training_checkpoint(torch, tmp_path, zipped):
    """As PyTorch Lightning writes it, foreign objects and all."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v for k, v in layer.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {argparse.Namespace: {"best": np.float64(0.5)}},
        "hparams": argparse.Namespace(rate=0.1, sizes={1, 2}),
        "array": np.arange(5.0),
    }
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    got = read_torch_file(path)
    assert list(got) == ["weight", "bias"]
    np.testing.assert_array_equal(got["weight"], as_numpy(layer.weight))
    only = read_torch_file(path, "state_dict", lambda name: name == "bias")
    assert list(only) == ["bias"]
    with pytest.raises(LayoutError, match="under 'ema'.*'epoch'"):
        read_torch_file(path, "ema")


def test_several_state_dicts_need_a_key(torch, tmp_path):
    path = tmp_path / "two.pt"
    torch.save({k: {"w": torch.ones(1)} for k in ("model", "ema")}, path)
    with pytest.raises(LayoutError, match="key="):
        read_torch_file(path)
    assert read_torch_file(path, "ema")["w"] == 1


def test_whole_modules_are_refused(torch, tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(UnsafeFileError, match="torch.nn.*state_dict"):
        read_torch_file(path)
    torch.save({"a": torch.ones(1), "b": argparse.Namespace()}, path)
    with pytest.raises(UnsafeFileError, match="'b'.*Namespace"):
        read_torch_file(path)


def test_published_files(torch, data_dir):
    files = sorted((data_dir / "weights").glob("*/*.pth"))
    assert len(files) >= 11
    for path in files:
        want = torch.load(path, map_location="cpu", weights_only=True)
        got = read_torch_file(path)
        assert list(got) == list(want)
        for name in want:
            np.testing.assert_array_equal(got[name], as_numpy(want[name]))


PAYLOADS = {
    "system": Call(os.system, "touch hacked"),
    "popen": Call(subprocess.Popen, ["touch", "hacked"]),
    "eval": Call(eval, "open('hacked', 'w')"),
    "exec": Call(exec, "open('hacked', 'w')"),
    "open": Call(open, "hacked", "w"),
    "getattr": Call(getattr, 1, "real"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("place", ["root", "beside", "inside"])
def test_payloads_are_refused(tmp_path, monkeypatch, name, place, protocol):
    monkeypatch.chdir(tmp_path)
    payload = PAYLOADS[name]
    tree = {
        "root": payload,
        "beside": {"state_dict": {}, "callbacks": [payload]},
        "inside": {"state_dict": {"weight": payload}},
    }[place]
    path = write_pickle(tmp_path / "evil.pt", tree, protocol=protocol)
    with pytest.raises(UnsafeFileError, match="is refused"):
        read_torch_file(path)
    assert not (tmp_path / "hacked").exists()


def test_handwritten_archive_is_sound(tmp_path):
    data = np.arange(4, dtype="<f4")
    path = tmp_path / "good.pt"
    write_pickle(path, tensor_pickle(), {"0": data.tobytes()})
    np.testing.assert_array_equal(
        read_torch_file(path)["w"], data.reshape(2, 2)
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(elements=1 << 40),
        dict(elements=5),
        dict(elements=-4),
        dict(offset=1),
        dict(offset=-1),
        dict(shape=(2, 3)),
        dict(shape=(1 << 40, 1 << 40), strides=(0, 0)),
        dict(shape=(4, 2), strides=(1, 0)),
        dict(strides=(2, -1)),
        dict(strides=(1 << 61, 1)),
        dict(shape=(2, 2, 1)),
        dict(shape=(1,) * 40, strides=(1,) * 40),
    ],
)
def test_views_beyond_their_storage_are_refused(tmp_path, change):
    path = tmp_path / "evil.pt"
    write_pickle(path, tensor_pickle(**change), {"0": bytes(16)})
    with pytest.raises((UnsafeFileError, DamagedFileError)):
        read_torch_file(path)


OPEN = b"\x80\x02"
BOMBS = {
    "string of 4 GB": OPEN + b"X\xff\xff\xff\xff",
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62),
    "integer of 2 GB": OPEN + b"\x8b\xff\xff\xff\x7f",
    "memo number 2**32": OPEN + b"}r\xff\xff\xff\xff.",
    "nothing": b"",
    "only a start": OPEN,
    "nested tuple as a key": OPEN
    + b"})q\x00"
    + b"h\x00h\x00\x86q\x00" * 60
    + b"0h\x00Ns.",
    "an extension": OPEN + b"\x82\x01.",
    "an object outside of the file": b"\x80\x05\x97.",
    "a mark that is missing": OPEN + b"t.",
    "two objects": OPEN + b"NN.",
    "unhashable key": OPEN + b"}]Ns.",
    "infinite list": OPEN + b"]" + b"h\x00e" * 9 + b".",
    "endless": OPEN + b"N0" * 1_100_000 + b"N.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(tmp_path, name):
    path = write_pickle(tmp_path / "bomb.pt", BOMBS[name])
    with pytest.raises(ConversionError):
        read_torch_file(path)


def test_archives_are_plain(tmp_path):
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(1 << 24))
        archive.writestr("archive/data/0", bytes(1 << 26))
    with pytest.raises(UnsafeFileError, match="compressed"):
        read_torch_file(path)
    write_pickle(path, tensor_pickle(), {})
    with pytest.raises(UnsafeFileError, match="no such part"):
        read_torch_file(path)
    write_pickle(path, tensor_pickle() + b"more", {"0": bytes(16)})
    with pytest.raises(DamagedFileError, match="after the end"):
        read_torch_file(path)


@pytest.mark.parametrize("start", [b"", b"<!DOCTYPE html>", b"\x89HDF", b"PK"])
def test_other_files(tmp_path, start):
    path = tmp_path / "other.pt"
    path.write_bytes(start + b"x" * 50 * bool(start))
    with pytest.raises(DamagedFileError, match="Expected a file"):
        read_torch_file(path)


@pytest.mark.parametrize("zipped", FORMATS)
def test_damage(torch, tmp_path, zipped):
    """Cut anywhere or with any byte changed: our errors, or other numbers."""
    stream = io.BytesIO()
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 3).half()}
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    whole = stream.getvalue()
    path = tmp_path / "damaged.pt"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ConversionError):
            read_torch_file(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read_torch_file(path)
        except ConversionError:
            refused += 1
    assert refused > 50
    if not zipped:
        path.write_bytes(whole + b"x")
        with pytest.raises(DamagedFileError, match="after its end"):
            read_torch_file(path)


def test_neither_torch_nor_unpickling(data_dir):
    """In a process of its own, in which both would be seen."""
    path = data_dir / "weights/lpips_v0.1/squeeze.pth"
    code = f"""
import pickle, sys
from keras_vq.convert import read_torch_file
def refuse(*_, **__): raise AssertionError("pickle was called")
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = refuse
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
arrays = read_torch_file({str(path)!r})
assert len(arrays) == 7 and "torch" not in sys.modules
assert not {{"exec", "compile", "import", "pickle.find_class"}} & set(seen)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
