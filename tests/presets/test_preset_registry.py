"""Presets by name: what is listed, found, pinned, and really there."""

import json
import shutil
from pathlib import Path

import keras
import pytest
from preset_models import OtherModel, TinyModel, TinySubclass

import keras_vq
from keras_vq import presets
from keras_vq.presets import load_preset, manifest, pin, registry, source

ROOT = Path(keras_vq.__file__).parents[1]


@pytest.fixture
def known(preset, tmp_path, monkeypatch):
    """A registry with the preset "tiny" and one whose files are not there."""
    folder = tmp_path / "applications"
    (folder / "tiny").mkdir(parents=True)
    shutil.move(preset, folder / "tiny" / "preset")
    path = tmp_path / "registry.json"
    path.write_text("{}")
    monkeypatch.setattr(registry, "REGISTRY_PATH", path)
    monkeypatch.setattr(pin, "REGISTRY_PATH", path)

    def directories(name):
        return [tmp_path / "elsewhere", folder / name / "preset"]

    monkeypatch.setattr(registry, "bundled_directories", directories)
    monkeypatch.setattr(pin, "bundled_directories", directories)
    registry._read_registry.cache_clear()
    assert pin.main(["tiny"]) == 0
    entry = json.loads(path.read_text())["tiny"]
    remote = {**entry, "where": "hf://user/repo@v1", "description": "Far."}
    entries = {"tiny": entry, "tidy": entry, "distant": remote}
    path.write_text(json.dumps(entries))
    registry._read_registry.cache_clear()
    yield folder / "tiny" / "preset"
    registry._read_registry.cache_clear()


def test_only_what_can_be_had_is_listed(known):
    assert presets.list_presets() == {
        "distant": "Far.",
        "tiny": "A tiny model.",
    }
    assert list(presets.list_presets(TinyModel)) == ["distant", "tiny"]
    assert list(presets.list_presets(keras.Model)) == ["distant", "tiny"]
    assert presets.list_presets(TinySubclass) == {}
    assert presets.list_presets(OtherModel) == {}


def test_everything_about_a_preset(known, tiny_model):
    info = presets.preset_info("tiny")
    assert info["class_name"] == "keras_vq_tests>TinyModel"
    assert info["parameters"] == tiny_model.count_params()
    assert info["licence"] == "CC0-1.0"
    assert info["metadata"] == {"data": "", "seed": 0}
    for name, entry in info["files"].items():
        assert entry == manifest.fingerprint(known / name)


def test_a_preset_is_loaded_by_name(known, tmp_path, monkeypatch):
    assert type(load_preset(TinyModel, "tiny")) is TinyModel
    assert sorted(presets.verify("tiny")) == [
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    # A folder of the same name in the way does not change what it means.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert type(load_preset(TinyModel, "tiny")) is TinyModel


def test_unknown_names_list_the_known_ones(known):
    with pytest.raises(presets.UnknownPresetError) as error:
        load_preset(TinyModel, "tinny")
    message = str(error.value)
    assert "Did you mean 'tiny'?" in message
    assert "Known presets: ['distant', 'tiny']" in message
    with pytest.raises(presets.UnknownPresetError, match="Known presets"):
        presets.preset_info("something else")


def test_files_that_are_not_installed(known):
    with pytest.raises(
        presets.PresetUnavailableError, match="'tidy' are not installed"
    ):
        load_preset(TinyModel, "tidy")


@pytest.mark.parametrize(
    "name", ["config.json", "metadata.json", "model.weights.h5"]
)
def test_other_files_than_the_published_ones_are_refused(known, reseal, name):
    """Also those that are in order among themselves."""
    path = known / name
    if name == "model.weights.h5":
        model = TinyModel()
        presets.save_preset(model, known, overwrite=True)
    else:
        path.write_text(path.read_text() + "\n")
    if name != "metadata.json":
        reseal(known)
    presets.verify(known)
    with pytest.raises(presets.DamagedPresetError):
        load_preset(TinyModel, "tiny")


def test_pinning_refreshes_the_hashes(known, capsys):
    presets.save_preset(
        TinyModel(units=2),
        known,
        metadata={"description": "Another."},
        overwrite=True,
    )
    with pytest.raises(presets.DamagedPresetError):
        load_preset(TinyModel, "tiny")
    assert pin.main(["tiny"]) == 0
    assert "pinned" in capsys.readouterr().out
    registry._read_registry.cache_clear()
    assert load_preset(TinyModel, "tiny").units == 2
    assert presets.list_presets()["tiny"] == "Another."
    assert pin.main(["nothing"]) == 1
    assert "applications/nothing/preset" in capsys.readouterr().err
    (known / "config.json").write_text("{}")
    before = pin.REGISTRY_PATH.read_bytes()
    assert pin.main(["tiny"]) == 1
    assert pin.REGISTRY_PATH.read_bytes() == before


def test_remote_presets_are_checked_against_the_registry(known, monkeypatch):
    monkeypatch.setattr(source.hub, "fetch", lambda *args: known)
    assert type(load_preset(TinyModel, "distant")) is TinyModel
    with open(known / "model.weights.h5", "r+b") as file:
        file.seek(-40, 2)
        byte = file.read(1)[0]
        file.seek(-40, 2)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(presets.DamagedPresetError, match="not the file"):
        load_preset(TinyModel, "distant")


def test_the_bundled_folder_is_beside_the_package():
    folder = ROOT / "applications"
    if not folder.is_dir():
        pytest.skip("not a checkout")
    found = registry.bundled_directories("vqvae_cifar")
    assert (folder / "vqvae_cifar" / "preset") in found


def test_a_plain_checkout_needs_no_installation(monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    (found,) = registry.bundled_directories("x")
    assert found == ROOT / "applications" / "x" / "preset"


def test_the_presets_in_the_repository_are_those_in_the_registry():
    entries = registry.registry().values()
    if not entries:
        pytest.skip("the package bundles no preset yet")
    for entry in entries:
        assert entry.description and entry.licence and entry.parameters > 0
        found = keras.saving.get_registered_object(entry.class_name)
        assert issubclass(found, keras.Model)
        if entry.where == registry.BUNDLED:
            hashes = {n: f["sha256"] for n, f in entry.files.items()}
            assert presets.verify(entry.name) == hashes
            assert entry.name in presets.list_presets()
