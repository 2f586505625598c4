"""LPIPS by name: where its weights are looked for, and what it says."""

import dataclasses
import hashlib
import os
import re
import shutil

import keras
import numpy as np
import pytest

from keras_vq.convert import (
    ConversionError,
    DamagedFileError,
    LayoutError,
    UnavailableFileError,
)
from keras_vq.losses import (
    LPIPS,
    CallableLoss,
    get_perceptual_loss,
    lpips_files,
    serialize_perceptual_loss,
)
from tests.convert.file_server import at_most, serve
from tests.losses import torch_lpips as reference

torch = reference.torch
NAMES = ("squeezenet1_1-b8a52dc0.pth", "squeeze.pth")
ARGUMENTS = ("trunk_weights", "linear_weights")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights under the published names."""
    folder = tmp_path_factory.mktemp("weights")
    model = reference.LPIPS("squeeze")
    trunk = {f"features.{k}": v for k, v in model.features.state_dict().items()}
    torch.save(trunk, folder / NAMES[0])
    torch.save(model.linear_state(), folder / NAMES[1])
    return folder


@pytest.fixture
def publish(weights, monkeypatch):
    """Makes the random weights the published ones, at an address."""

    def at(address="http://127.0.0.1:9"):
        files = {}
        for argument, name in zip(ARGUMENTS, NAMES, strict=True):
            body = (weights / name).read_bytes()
            files[argument] = dataclasses.replace(
                lpips_files.PUBLISHED["squeeze"][argument],
                url=f"{address}/{name}",
                sha256=hashlib.sha256(body).hexdigest(),
                size=len(body),
            )
        known = {**lpips_files.PUBLISHED, "squeeze": files}
        monkeypatch.setattr(lpips_files, "PUBLISHED", known)

    return at


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, 2, 20, 20, 3)).astype("float32")


def hashes(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }


def test_what_is_pinned(monkeypatch):
    """torchvision's names hold the first digits of the hashes."""
    monkeypatch.undo()
    for trunk, files in lpips_files.PUBLISHED.items():
        for file in files.values():
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.url.startswith("https://")
            assert file.url.endswith(f"/{file.name}")
        name = files["trunk_weights"].name
        assert name[:-4].split("-")[1] == files["trunk_weights"].sha256[:8]
        assert files["linear_weights"].name == f"{trunk}.pth"


def test_the_published_files_are_the_pinned_ones(data_dir):
    folder = data_dir / "weights"
    if not (folder / "lpips_v0.1").is_dir():
        pytest.skip("needs the linear layers of LPIPS")
    for trunk, files in lpips_files.PUBLISHED.items():
        files["linear_weights"].check(folder / "lpips_v0.1" / f"{trunk}.pth")
    (other,) = lpips_files._ALTERNATIVES.values()
    (path,) = (folder / "squeezenet_v1.1_imagenet").glob("*.h5")
    other.check(path)
    assert path.name == other.name


def test_folders_that_are_named(
    weights, publish, tmp_path, monkeypatch, images
):
    publish()
    # Separated as in PATH; each file may lie in another one.
    for number, name in enumerate(NAMES):
        (tmp_path / str(number)).mkdir()
        shutil.copy(weights / name, tmp_path / str(number))
    folders = ["/nowhere", *(str(tmp_path / n) for n in "01")]
    monkeypatch.setenv("KERAS_VQ_LPIPS", os.pathsep.join(folders))
    distance = LPIPS("squeeze")
    assert distance.files == {
        argument: str(tmp_path / str(number) / NAMES[number])
        for number, argument in enumerate(ARGUMENTS)
    }
    # What was found has no place in a configuration.
    config = distance.get_config()
    assert config["trunk_weights"] is None and config["linear_weights"] is None
    given = LPIPS("squeeze", *(weights / name for name in NAMES))
    np.testing.assert_array_equal(distance(*images), given(*images))
    # One path given, the other found.
    mixed = LPIPS("squeeze", linear_weights=weights / NAMES[1])
    assert mixed.files["linear_weights"] == str(weights / NAMES[1])
    assert mixed.files["trunk_weights"] == str(tmp_path / "0" / NAMES[0])


def test_the_cache_folder(weights, publish, lpips_home, monkeypatch):
    publish()
    shutil.copytree(weights, lpips_home)
    assert set(LPIPS("squeeze").files.values()) == {
        str(lpips_home / name) for name in NAMES
    }
    # A folder that is named comes first.
    monkeypatch.setenv("KERAS_VQ_LPIPS", str(weights))
    assert set(LPIPS("squeeze").files.values()) == {
        str(weights / name) for name in NAMES
    }
    monkeypatch.delenv("KERAS_VQ_LPIPS")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(lpips_home.parent))
    expected = lpips_home.parent / ".keras" / "keras_vq" / "lpips"
    assert lpips_files.cache_folder() == expected


def test_another_file_of_that_name_is_refused(
    weights, publish, lpips_home, monkeypatch, tmp_path
):
    publish()
    shutil.copytree(weights, tmp_path / "named")
    body = bytearray((weights / NAMES[1]).read_bytes())
    body[-30] ^= 1
    (tmp_path / "named" / NAMES[1]).write_bytes(body)
    monkeypatch.setenv("KERAS_VQ_LPIPS", str(tmp_path / "named"))
    with pytest.raises(DamagedFileError, match="SHA-256") as error:
        LPIPS("squeeze")
    assert str(tmp_path / "named" / NAMES[1]) in str(error.value)
    # A path that is given is the user's own choice.
    LPIPS("squeeze", linear_weights=weights / NAMES[1])


def test_download_once(weights, publish, lpips_home, images):
    with serve(b"") as server:
        publish(f"{server.address}/good")
        bodies = {name: (weights / name).read_bytes() for name in NAMES}
        original = server.RequestHandlerClass.do_GET

        class Handler(server.RequestHandlerClass):
            def do_GET(self):
                self.server.body = bodies[self.path.rsplit("/", 1)[1]]
                original(self)

        server.RequestHandlerClass = Handler
        distance = LPIPS("squeeze")
        assert hashes(lpips_home) == hashes(weights)
        assert len(server.log) == 2
        again = LPIPS("squeeze")
        assert len(server.log) == 2
    np.testing.assert_array_equal(distance(*images), again(*images))


@pytest.mark.parametrize(
    "way, kind, message",
    [
        ("good", DamagedFileError, "not the published"),
        ("missing", UnavailableFileError, "answers 404"),
    ],
)
def test_a_download_that_fails(publish, lpips_home, way, kind, message):
    with serve(b"<html>Please log in</html>") as server:
        publish(f"{server.address}/{way}")
        with pytest.raises(kind, match=message):
            LPIPS("squeeze")
    assert not lpips_home.exists() or not list(lpips_home.iterdir())


@pytest.mark.parametrize("trunk", ["vgg", "squeeze"])
def test_without_a_connection_one_error_says_what_to_do(
    trunk, lpips_home, monkeypatch, tmp_path
):
    monkeypatch.setenv("KERAS_VQ_LPIPS", str(tmp_path / "named"))
    with at_most(5), pytest.raises(UnavailableFileError) as error:
        LPIPS(trunk)
    message = str(error.value)
    for file in lpips_files.PUBLISHED[trunk].values():
        assert f"{file.name} from {file.url}" in message
    assert str(lpips_home) in message
    assert f"KERAS_VQ_LPIPS names (now: {tmp_path / 'named'})" in message
    assert "refused" in message
    assert isinstance(error.value, ConversionError)
    assert isinstance(error.value, ValueError)


def test_weights_of_another_trunk(weights):
    trunk, linear = (weights / name for name in NAMES)
    with pytest.raises(LayoutError, match="trunk='vgg'.*differ"):
        LPIPS("vgg", trunk, linear)
    with pytest.raises(LayoutError, match="trunk='squeeze'.*this trunk"):
        LPIPS("squeeze", linear, linear)


def test_files_are_opened_when_they_are_needed(weights, images):
    paths = {a: str(weights / n) for a, n in zip(ARGUMENTS, NAMES, strict=True)}
    distance = LPIPS.from_config({"trunk": "squeeze", **paths})
    assert distance.files == {}
    distance.load()
    assert distance.files == paths
    constants = distance._constants
    distance.load()
    assert distance._constants is constants
    called = LPIPS.from_config({"trunk": "squeeze", **paths})
    np.testing.assert_array_equal(called(*images), distance(*images))
    assert called.files == paths
    # A load that failed may succeed later.
    late = LPIPS.from_config({"trunk": "squeeze"})
    with pytest.raises(UnavailableFileError):
        late.load()
    assert late.files == {}


def test_an_own_squeezenet_of_keras(data_dir, monkeypatch, images):
    """The Caffe-trained file is taken from a folder that a user names."""
    folder = data_dir / "weights"
    folders = [folder / "squeezenet_v1.1_imagenet", folder / "lpips_v0.1"]
    if not all(f.is_dir() for f in folders):
        pytest.skip("needs SqueezeNet and the linear layers of LPIPS")
    monkeypatch.setenv("KERAS_VQ_LPIPS", os.pathsep.join(map(str, folders)))
    distance = LPIPS("squeeze")
    assert distance.files["trunk_weights"].endswith("kernels_notop.h5")
    values = distance(*images)
    assert np.isfinite(values).all() and np.min(values) > 0


# By name


@keras.saving.register_keras_serializable(package="keras_vq_tests")
def blurred(images, reconstruction):
    return keras.ops.mean(images - reconstruction, axis=(1, 2, 3))


def test_perceptual_losses_by_name(weights, publish, monkeypatch, images):
    assert get_perceptual_loss(None) is None
    distance = get_perceptual_loss("squeeze")
    assert type(distance) is LPIPS and distance.trunk == "squeeze"
    assert distance.files == {}
    assert get_perceptual_loss("vgg").trunk == "vgg"
    assert get_perceptual_loss(distance) is distance
    assert get_perceptual_loss(blurred) is blurred
    publish()
    monkeypatch.setenv("KERAS_VQ_LPIPS", str(weights))
    assert distance(*images).shape == (2,)


def test_a_loss_of_keras_is_not_divided_by_the_replicas(images):
    loss = get_perceptual_loss(keras.losses.MeanAbsoluteError())
    assert isinstance(loss, CallableLoss)
    expected = np.abs(images[0] - images[1]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(loss(*images), expected, rtol=1e-5)


@pytest.mark.parametrize("value", ["alex", "", 3, LPIPS, [], True])
def test_what_is_no_perceptual_loss(value):
    with pytest.raises(ValueError, match="perceptual loss.*Received"):
        get_perceptual_loss(value)


def test_perceptual_losses_in_configurations(weights, images):
    paths = [str(weights / name) for name in NAMES]
    for loss, stored in [
        (None, None),
        (get_perceptual_loss("squeeze"), "squeeze"),
        (get_perceptual_loss("vgg"), "vgg"),
    ]:
        assert serialize_perceptual_loss(loss) == stored
    each = LPIPS("squeeze", *paths, per_channel=True)
    config = serialize_perceptual_loss(each)
    again = get_perceptual_loss(config)
    assert again.get_config() == each.get_config()
    np.testing.assert_array_equal(again(*images), each(*images))
    assert get_perceptual_loss(serialize_perceptual_loss(blurred)) is blurred
    huber = get_perceptual_loss(keras.losses.Huber(delta=0.1))
    same = get_perceptual_loss(serialize_perceptual_loss(huber))
    np.testing.assert_array_equal(same(*images), huber(*images))
