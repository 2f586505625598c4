"""Everything that can happen to a file on its way is found, with one error."""

import json
import random

import h5py
import keras
import numpy as np
import pytest
from preset_models import TinyModel

from keras_vq import presets
from keras_vq.convert import ConversionError
from keras_vq.presets import load_preset, verify

FILES = ["config.json", "metadata.json", "model.weights.h5"]


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_an_intact_preset_is_verified(saved):
    hashes = verify(saved)
    assert sorted(hashes) == ["config.json", "model.weights.h5"]
    assert hashes == verify(str(saved))


def test_every_flipped_bit_of_the_weights_is_found(preset):
    path = preset / "model.weights.h5"
    original = path.read_bytes()
    rng = random.Random(0)
    found = 0
    for position in rng.sample(range(8 * len(original)), 200):
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(presets.DamagedPresetError, match="not the file"):
            load_preset(TinyModel, preset)
        found += 1
    assert found == 200
    path.write_bytes(original)
    verify(preset)


def test_every_flipped_bit_of_the_configuration_is_found(preset):
    path = preset / "config.json"
    original = path.read_bytes()
    rng = random.Random(1)
    for position in rng.sample(range(8 * len(original)), 200):
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(presets.DamagedPresetError, match="not the file"):
            load_preset(TinyModel, preset)


def test_no_flipped_bit_of_the_metadata_changes_what_is_loaded(preset):
    path = preset / "metadata.json"
    original = path.read_bytes()
    expected = verify(preset)
    rng = random.Random(2)
    refused = 0
    for position in rng.sample(range(8 * len(original)), 200):
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert verify(preset) == expected
        except presets.PresetError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(preset, name, kept):
    path = preset / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(presets.DamagedPresetError, match="trunc|not valid"):
        load_preset(TinyModel, preset)
    with pytest.raises(presets.DamagedPresetError, match=name):
        verify(preset)


def test_a_file_with_more_at_its_end(preset):
    with open(preset / "model.weights.h5", "ab") as file:
        file.write(b"\0")
    with pytest.raises(presets.DamagedPresetError, match="too long"):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize("name", FILES)
def test_missing_files(preset, name):
    (preset / name).unlink()
    with pytest.raises(presets.DamagedPresetError, match=f"readable {name}"):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize("name", FILES)
def test_directories_in_place_of_files(preset, name):
    (preset / name).unlink()
    (preset / name).mkdir()
    with pytest.raises(presets.DamagedPresetError, match=name):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"<!DOCTYPE html><html>404</html>",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_damaged_json(preset, reseal, name, content):
    (preset / name).write_bytes(content)
    if name == "config.json":
        reseal(preset)
    with pytest.raises(presets.DamagedPresetError, match=name):
        load_preset(TinyModel, preset)


def test_json_of_any_size_is_not_read(preset, reseal):
    with open(preset / "config.json", "wb") as file:
        file.truncate(2**34)  # Sparse: it takes no room on the disk.
    content = json.loads((preset / "metadata.json").read_text())
    with pytest.raises(presets.DamagedPresetError, match="too long"):
        load_preset(TinyModel, preset)
    with open(preset / "config.json", "wb") as file:
        file.truncate(2**24 + 1)
    reseal(preset)
    assert content["files"]["config.json"]["size"] < 10_000
    with pytest.raises(presets.DamagedPresetError, match="larger than"):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        [],
        {"config.json": {"sha256": "0" * 64, "size": 1}},
        {name: {"sha256": "0" * 63, "size": 1} for name in FILES},
        {name: {"sha256": 7, "size": 1} for name in FILES},
        {name: {"sha256": "0" * 64, "size": "1"} for name in FILES},
        {name: {"sha256": "0" * 64} for name in FILES},
    ],
    ids=range(8),
)
def test_metadata_without_hashes(preset, files):
    edit(preset / "metadata.json", files=files)
    with pytest.raises(presets.DamagedPresetError, match="SHA-256"):
        load_preset(TinyModel, preset)


def test_a_preset_of_a_newer_format(preset):
    edit(preset / "metadata.json", format_version=2, keras_vq_version="9.1")
    with pytest.raises(presets.PresetError, match="9.1.*pip install -U"):
        load_preset(TinyModel, preset)
    edit(preset / "metadata.json", format_version="one")
    with pytest.raises(presets.DamagedPresetError, match="format_version"):
        load_preset(TinyModel, preset)


def test_a_configuration_of_a_newer_package(preset, reseal):
    path = preset / "config.json"
    content = json.loads(path.read_text())
    content["config"]["rotation"] = True
    path.write_text(json.dumps(content))
    reseal(preset)
    with pytest.raises(presets.PresetError, match="rotation.*pip install -U"):
        load_preset(TinyModel, preset)


def test_arguments_of_the_wrong_kind(preset, reseal):
    edit(preset / "config.json", config="units")
    reseal(preset)
    with pytest.raises(presets.DamagedPresetError, match="under `config`"):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_loaded(preset, reseal, value):
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        file["layers/shift/vars/0"][2] = value
    reseal(preset)
    with pytest.raises(presets.DamagedPresetError, match="NaN or infinity"):
        load_preset(TinyModel, preset)


def test_a_file_that_is_no_hdf5(preset, reseal):
    (preset / "model.weights.h5").write_bytes(b"<html>404</html>" * 9)
    reseal(preset)
    with pytest.raises(presets.DamagedPresetError, match="weight file"):
        load_preset(TinyModel, preset)


def test_forged_damage_never_ends_in_another_error(preset, reseal):
    """Bit flips behind valid hashes: refused, or the flip is in the data."""
    path = preset / "model.weights.h5"
    original = path.read_bytes()
    with h5py.File(path) as file:
        spans = []
        file.visititems(
            lambda _, item: (
                spans.append((item.id.get_offset(), item.nbytes))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    model = TinyModel()
    rng = random.Random(3)
    outside = [
        byte
        for byte in range(len(original))
        if not any(start <= byte < start + size for start, size in spans)
    ]
    refused = 0
    for byte in rng.sample(outside, 200):
        damaged = bytearray(original)
        damaged[byte] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            with open(path, "rb") as file:
                presets.weights.read_weights(model, file, "weights")
        except presets.PresetError:
            refused += 1
    assert refused > 20


def test_files_that_are_no_weights(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text("{}")
    with pytest.raises(ConversionError, match="Expected a file of"):
        load_preset(TinyModel, path)
    with pytest.raises(presets.UnknownPresetError, match="keras-vq convert"):
        presets.verify(path)


@pytest.mark.parametrize("preset", ["./nothing", "a/b"])
def test_paths_that_are_no_directory(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(presets.UnknownPresetError, match="director|not exist"):
        load_preset(TinyModel, preset)


@pytest.mark.parametrize("preset", ["", None, 3, b"tiny"])
def test_things_that_are_no_preset(preset):
    with pytest.raises(presets.UnknownPresetError, match="Expected the name"):
        load_preset(TinyModel, preset)


def test_folders_of_other_packages(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(presets.DamagedPresetError, match="metadata.json"):
        load_preset(keras.Model, tmp_path)
