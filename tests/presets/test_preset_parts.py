"""Optional parts, such as a discriminator: files of their own, as safe."""

import json
import pathlib
import random
import shutil

import h5py
import keras
import numpy as np
import pytest

from keras_vq import losses, presets
from keras_vq.cli import main
from keras_vq.layers import VectorQuantizer
from keras_vq.models import VQAutoencoder
from keras_vq.models.discriminators import PatchGAN
from keras_vq.presets import hub, load_preset, manifest, pin, registry, source

FILE = "discriminator.weights.h5"


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class Adversarial(VQAutoencoder):
    """An autoencoder with what only its training needs."""

    def __init__(
        self, discriminator=True, filters=2, perceptual_loss=None, **kwargs
    ):
        if discriminator is True:
            discriminator = PatchGAN(filters=filters, num_layers=1)
        self.discriminator = discriminator or None
        self.perceptual_loss = losses.get_perceptual_loss(perceptual_loss)
        self.filters = filters
        layers = keras.layers
        networks = {
            "encoder": layers.Conv2D(4, 2, strides=2),
            "decoder": layers.Conv2DTranspose(3, 2, strides=2),
            "quantizer": VectorQuantizer(8, 4),
            "channels": 3,
            "downsample_factor": 2,
        }
        super().__init__(**{**networks, **kwargs})

    def preset_parts(self):
        return {"discriminator": self.discriminator}

    def get_config(self):
        return {
            **super().get_config(),
            "discriminator": self.discriminator is not None,
            "filters": self.filters,
            "perceptual_loss": losses.serialize_perceptual_loss(
                self.perceptual_loss
            ),
        }


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = Adversarial()
    # As if it had been trained: what starts from 0 or 1 is neither.
    rng = np.random.default_rng(0)
    for weight in model.discriminator.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("parts") / "model"
    facts = {"description": "A model.", "licence": "CC0-1.0"}
    model.save_to_preset(directory, metadata=facts)
    return directory


@pytest.fixture
def preset(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "preset")


@pytest.fixture
def reseal():
    def write(directory):
        path = directory / manifest.METADATA_FILE
        content = json.loads(path.read_text())
        content["files"][FILE] = manifest.fingerprint(directory / FILE)
        path.write_text(json.dumps(content))

    return write


def arrays(layer):
    return [weight.numpy() for weight in layer.weights]


def same(first, second):
    return len(first) == len(second) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second, strict=True)
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def datasets(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_a_part_has_a_file_of_its_own(model, saved):
    assert names(saved) == [
        "config.json",
        FILE,
        "metadata.json",
        "model.weights.h5",
    ]
    stored = datasets(saved / "model.weights.h5")
    assert stored and not [n for n in stored if "discriminator" in n]
    assert len(datasets(saved / FILE)) == len(model.discriminator.weights)
    facts = json.loads((saved / "metadata.json").read_text())
    assert facts["files"][FILE] == manifest.fingerprint(saved / FILE)
    count = model.discriminator.count_params()
    assert facts["parts"] == {"discriminator": {"parameter_count": count}}
    # What it takes to use the model, as without the part.
    without = Adversarial(discriminator=False)
    assert facts["parameter_count"] == without.count_params()
    assert sorted(presets.verify(saved)) == ["config.json", FILE] + [
        "model.weights.h5"
    ]


def test_all_of_it_comes_back(model, saved):
    loaded = Adversarial.from_preset(saved)
    assert same(arrays(loaded.discriminator), arrays(model.discriminator))
    assert same(arrays(loaded), arrays(model))


def test_keras_reads_the_file_of_a_part(model, saved):
    part = PatchGAN(filters=2, num_layers=1)
    part.load_weights(saved / FILE)
    assert same(arrays(part), arrays(model.discriminator))


def is_fresh(loaded, model):
    """The part is as it starts, the rest as it was trained."""
    part, trained = loaded.discriminator, model.discriminator
    assert same(arrays(loaded.encoder), arrays(model.encoder))
    assert not same(arrays(part), arrays(trained))
    return abs(np.std(part.main[0].kernel) - 0.02) < 0.01


def test_a_preset_without_the_part(model, tmp_path):
    model.save_to_preset(tmp_path / "small", include_parts=False)
    assert FILE not in names(tmp_path / "small")
    facts = json.loads((tmp_path / "small" / "metadata.json").read_text())
    assert "parts" not in facts and FILE not in facts["files"]
    assert is_fresh(Adversarial.from_preset(tmp_path / "small"), model)
    # That of a model that has none.
    Adversarial(discriminator=False).save_to_preset(tmp_path / "none")
    assert names(tmp_path / "none") == names(tmp_path / "small")
    loaded = Adversarial.from_preset(tmp_path / "none", discriminator=True)
    assert loaded.discriminator is not None


def test_a_part_that_is_not_wanted(model, saved, preset):
    assert is_fresh(Adversarial.from_preset(saved, load_parts=False), model)
    loaded = Adversarial.from_preset(saved, discriminator=False)
    assert loaded.discriminator is None
    assert same(arrays(loaded.encoder), arrays(model.encoder))
    (preset / FILE).unlink()
    Adversarial.from_preset(preset, load_parts=False)
    Adversarial.from_preset(preset, load_weights=False)


def test_a_part_of_another_size(saved):
    with pytest.raises(
        presets.PresetError, match="fresh discriminator.*load_parts=False"
    ):
        Adversarial.from_preset(saved, filters=3)
    loaded = Adversarial.from_preset(saved, filters=3, load_parts=False)
    assert loaded.discriminator.main[0].kernel.shape[-1] == 3


def test_a_part_that_is_missing_is_not_started_afresh(preset):
    (preset / FILE).unlink()
    with pytest.raises(presets.DamagedPresetError, match=f"readable {FILE}"):
        Adversarial.from_preset(preset)
    with pytest.raises(presets.DamagedPresetError, match=FILE):
        presets.verify(preset)


def test_a_part_that_nobody_published_is_not_loaded(preset):
    path = preset / "metadata.json"
    content = json.loads(path.read_text())
    del content["files"][FILE]
    path.write_text(json.dumps(content))
    with pytest.raises(presets.DamagedPresetError, match="cannot be checked"):
        Adversarial.from_preset(preset)
    Adversarial.from_preset(preset, load_parts=False)


def test_flipped_bits_and_truncation_are_found(preset):
    path = preset / FILE
    original = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(8 * len(original)), 100):
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(presets.DamagedPresetError, match=FILE):
            presets.verify(preset)
    with pytest.raises(presets.DamagedPresetError, match="not the file"):
        Adversarial.from_preset(preset)
    for content, message in (
        (original[:-1], "truncated"),
        (original + b"\0", "too long"),
        (b"", "truncated"),
    ):
        path.write_bytes(content)
        with pytest.raises(presets.DamagedPresetError, match=message):
            presets.verify(preset)
    with pytest.raises(presets.DamagedPresetError, match="truncated"):
        Adversarial.from_preset(preset)


def links(file, key):
    del file[key]
    file[key] = h5py.ExternalLink("other.h5", "/secret")


def large(file, key):
    del file[key]
    file.create_dataset(key, (2**20, 2**10), "float32")


def infinite(file, key):
    file[key][...] = np.inf


@pytest.mark.parametrize(
    "change, kind, message",
    [
        (links, presets.UnsafePresetError, "a link"),
        (large, presets.PresetError, "Expected shape"),
        (infinite, presets.DamagedPresetError, "NaN or infinity"),
    ],
)
def test_forged_parts_are_refused(preset, reseal, change, kind, message):
    with h5py.File(preset / FILE, "r+") as file:
        change(file, datasets(preset / FILE)[0])
    reseal(preset)
    with pytest.raises(kind, match=message):
        Adversarial.from_preset(preset)


@pytest.mark.parametrize(
    "name",
    ["../model.weights.h5", "/etc/x.weights.h5", "a/b.weights.h5", "README.md"]
    + ["A.weights.h5", ".weights.h5", "x.weights.h5\n", "model.x.weights.h5"],
)
def test_names_that_are_no_part(preset, name):
    path = preset / "metadata.json"
    content = json.loads(path.read_text())
    content["files"][name] = content["files"][FILE]
    path.write_text(json.dumps(content))
    with pytest.raises(presets.DamagedPresetError, match="optional parts"):
        presets.verify(preset)


def test_more_parts_than_any_model_has(preset):
    path = preset / "metadata.json"
    content = json.loads(path.read_text())
    entry = content["files"][FILE]
    content["files"] |= {f"p{i}.weights.h5": entry for i in range(100)}
    path.write_text(json.dumps(content))
    with pytest.raises(presets.DamagedPresetError, match="up to 16"):
        presets.verify(preset)


def test_parts_are_rounded_too(model, saved, tmp_path):
    model.save_to_preset(tmp_path / "half", float16=True)
    loaded = Adversarial.from_preset(tmp_path / "half")
    rounded = [
        a.astype("float16").astype("float32") if a.dtype == "float32" else a
        for a in arrays(model.discriminator)
    ]
    assert same(arrays(loaded.discriminator), rounded)
    sizes = [(d / FILE).stat().st_size for d in (tmp_path / "half", saved)]
    with h5py.File(tmp_path / "half" / FILE) as file:
        data = sum(file[n].nbytes for n in datasets(tmp_path / "half" / FILE))
    assert sizes[1] - sizes[0] == data


def test_nothing_is_left_of_a_part_that_cannot_be_saved(model, tmp_path):
    part = PatchGAN(filters=2, num_layers=1)
    part.main[0].kernel.assign(part.main[0].kernel * np.nan)
    broken = Adversarial(discriminator=part)
    with pytest.raises(presets.PresetError, match="finite weights"):
        broken.save_to_preset(tmp_path / "broken")
    assert list(tmp_path.iterdir()) == []
    broken.save_to_preset(tmp_path / "broken", include_parts=False)


@pytest.mark.parametrize("at_once", [True, False])
def test_overwriting_leaves_no_old_part_behind(
    model, preset, monkeypatch, at_once
):
    if not at_once:
        monkeypatch.setattr(presets.saving, "exchange", lambda *paths: False)
    (preset / "README.md").write_text("A card.")
    model.save_to_preset(preset, overwrite=True, include_parts=False)
    assert FILE not in names(preset) and "README.md" in names(preset)
    assert is_fresh(Adversarial.from_preset(preset), model)
    # Nor does another file of the name take the place of the new part.
    (preset / FILE).write_text("something else")
    model.save_to_preset(preset, overwrite=True)
    loaded = Adversarial.from_preset(preset)
    assert same(arrays(loaded.discriminator), arrays(model.discriminator))
    before = (preset / FILE).read_bytes()
    presets.add_metadata(preset, {"fid": 3.0})
    assert presets.verify(preset) and (preset / FILE).read_bytes() == before
    facts = json.loads((preset / "metadata.json").read_text())
    assert list(facts["parts"]) == ["discriminator"]


@pytest.mark.parametrize("name", ["model", "Disc", "a.b", "a/b", "", "é"])
def test_names_that_no_part_may_have(tmp_path, name):
    model = Adversarial()
    part = model.discriminator
    model.preset_parts = lambda: {name: part}
    with pytest.raises(presets.PresetError, match="lower-case letters"):
        model.save_to_preset(tmp_path / "bad")
    model.preset_parts = lambda: {"part": part.name}
    with pytest.raises(presets.PresetError, match="Keras layers by names"):
        model.save_to_preset(tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


# By name, in the registry and in the program


@pytest.fixture
def known(preset, tmp_path, monkeypatch):
    """The preset as a bundled one, "tiny"."""
    folder = tmp_path / "applications" / "tiny"
    folder.mkdir(parents=True)
    shutil.move(preset, folder / "preset")
    path = tmp_path / "registry.json"
    path.write_text("{}")
    for module in (registry, pin):
        monkeypatch.setattr(module, "REGISTRY_PATH", path)
        monkeypatch.setattr(
            module, "bundled_directories", lambda name: [folder / "preset"]
        )
    registry._read_registry.cache_clear()
    assert pin.main(["tiny"]) == 0
    yield folder / "preset"
    registry._read_registry.cache_clear()


def test_bundled_parts_are_pinned(known, model, reseal):
    info = presets.preset_info("tiny")
    count = model.discriminator.count_params()
    assert info["parts"] == {"discriminator": count}
    assert info["files"][FILE] == manifest.fingerprint(known / FILE)
    loaded = Adversarial.from_preset("tiny")
    assert same(arrays(loaded.discriminator), arrays(model.discriminator))
    # Another part than the pinned one, in order by itself.
    Adversarial().discriminator.save_weights(known / "new.weights.h5")
    (known / "new.weights.h5").rename(known / FILE)
    reseal(known)
    presets.verify(known)
    with pytest.raises(presets.DamagedPresetError):
        Adversarial.from_preset("tiny")
    (known / FILE).unlink()
    with pytest.raises(presets.PresetUnavailableError, match="not installed"):
        Adversarial.from_preset("tiny")


def test_a_remote_part_is_only_fetched_when_it_is_wanted(known, monkeypatch):
    asked = []

    def fetch(address, load_weights, load_parts):
        asked.append((load_weights, load_parts))
        return known

    monkeypatch.setattr(source.hub, "fetch", fetch)
    for arguments in ({}, {"load_parts": False}, {"load_weights": False}):
        Adversarial.from_preset("hf://user/repo", **arguments)
    assert asked == [(True, True), (True, False), (False, False)]


def test_the_program_shows_parts(known, capsys, model):
    count = model.discriminator.count_params()
    assert main(["info", str(known)]) == 0
    printed = capsys.readouterr().out
    assert f"parts:\n  discriminator: {count:,}\n" in printed
    assert f"  {FILE}  " in printed
    assert main(["info", str(known), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["parts"] == {"discriminator": count}


class Client:
    """What is used of huggingface_hub, on folders."""

    def __init__(self, origin, cache):
        self.origin, self.cache, self.fetched = origin, cache, []

    def hf_hub_download(self, repository, name, revision, cache_dir):
        commit = "c0ffee" if revision in (None, "c0ffee") else revision
        path = self.cache / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.origin / name, path)
        self.fetched.append((name, revision))
        return str(path)

    def try_to_load_from_cache(self, repository, name, cache_dir, revision):
        path = self.cache / "c0ffee" / name
        return str(path) if path.exists() else None


def test_parts_on_the_hub(saved, tmp_path, monkeypatch, model):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = Client(saved, tmp_path / "cache")
    monkeypatch.setattr(hub, "_import_client", lambda: (client, constants))
    monkeypatch.setattr(hub, "_answers", lambda endpoint: True)
    Adversarial.from_preset("hf://user/repo", load_parts=False)
    usual = ["config.json", "metadata.json", "model.weights.h5"]
    assert sorted(name for name, _ in client.fetched) == usual
    # Offline: what is there is enough without the part, and not with it.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Adversarial.from_preset("hf://user/repo", load_parts=False)
    with pytest.raises(presets.PresetUnavailableError, match="HF_HUB_OFFLINE"):
        Adversarial.from_preset("hf://user/repo")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client.fetched.clear()
    loaded = Adversarial.from_preset("hf://user/repo")
    assert same(arrays(loaded.discriminator), arrays(model.discriminator))
    assert sorted(name for name, _ in client.fetched) == sorted([*usual, FILE])
    assert {r for n, r in client.fetched if n != "metadata.json"} == {"c0ffee"}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = Adversarial.from_preset("hf://user/repo")
    assert same(arrays(loaded.discriminator), arrays(model.discriminator))


# What else a preset of such a model holds


def test_no_path_of_this_machine_is_in_a_preset(tmp_path, preset):
    paths = {"trunk_weights": "mine/vgg.pth", "linear_weights": "lin.pth"}
    distance = losses.LPIPS.from_config({"per_channel": True, **paths})
    model = Adversarial(perceptual_loss=distance, reconstruction_loss=distance)
    model.save_to_preset(tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert "vgg.pth" not in text and "lin.pth" not in text
    loaded = Adversarial.from_preset(tmp_path / "model")
    for loss in (loaded.perceptual_loss, loaded.reconstruction_loss.function):
        assert type(loss) is losses.LPIPS
        assert (loss.trunk, loss.per_channel) == ("vgg", True)
        assert loss.trunk_weights is None and loss.linear_weights is None
    # A `.keras` file of a training here goes on with the files from here.
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.perceptual_loss.get_config() == distance.get_config()
    # Nor does somebody else's preset name a file to be opened.
    path = tmp_path / "model" / "config.json"
    content = json.loads(text)
    content["config"]["perceptual_loss"]["config"] |= paths
    path.write_text(json.dumps(content))
    metadata = tmp_path / "model" / "metadata.json"
    facts = json.loads(metadata.read_text())
    facts["files"]["config.json"] = manifest.fingerprint(path)
    metadata.write_text(json.dumps(facts))
    loaded = Adversarial.from_preset(tmp_path / "model")
    assert loaded.perceptual_loss.trunk_weights is None


def test_the_trunk_of_a_model_made_by_name(tmp_path):
    Adversarial(perceptual_loss="squeeze").save_to_preset(tmp_path / "model")
    text = pathlib.Path(tmp_path / "model" / "config.json").read_text()
    assert json.loads(text)["config"]["perceptual_loss"] == "squeeze"
    loaded = load_preset(Adversarial, tmp_path / "model")
    assert loaded.perceptual_loss.trunk == "squeeze"
    assert loaded.perceptual_loss.files == {}
