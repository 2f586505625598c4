import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vq
from keras_vq.convert import ConversionError, DamagedFileError, LayoutError
from keras_vq.losses import LPIPS
from tests.losses import torch_lpips as reference

torch = reference.torch
TRUNKS = ["vgg", "squeeze"]


def pair(height=37, width=40, channels=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, batch, height, width, channels)
    return rng.uniform(-1, 1, shape).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of both trunks as torchvision and lpips store them."""
    folder = tmp_path_factory.mktemp("lpips")
    for trunk in TRUNKS:
        model = reference.LPIPS(trunk)
        state = {
            f"features.{k}": v for k, v in model.features.state_dict().items()
        }
        state["classifier.1.weight"] = torch.zeros(3, 2)
        torch.save(state, folder / f"{trunk}_trunk.pth")
        torch.save(model.linear_state(), folder / f"{trunk}.pth")
    return folder


@pytest.fixture(scope="module")
def made(folder):
    return {
        trunk: LPIPS(
            trunk, folder / f"{trunk}_trunk.pth", folder / f"{trunk}.pth"
        )
        for trunk in TRUNKS
    }


def with_gradient(distance, images, others):
    others = tf.constant(others)
    with tf.GradientTape() as tape:
        tape.watch(others)
        values = distance(tf.constant(images), others)
    return values, tape.gradient(values, others).numpy()


def assert_near(got, want, tolerance=1e-4):
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error < tolerance, error


@pytest.mark.parametrize("trunk", TRUNKS)
def test_equals_torch(made, trunk):
    model = reference.LPIPS(trunk)
    # Even and odd sizes at each pool, the smallest ones, and near pairs.
    least = {"vgg": 16, "squeeze": 17}[trunk]
    sizes = [(37, 40), (least, least + 3)]
    sizes += [(18, 31), (50, 45)] if trunk == "squeeze" else []
    for height, width in sizes:
        images, others = pair(height, width)
        for second in (others, images + 0.1 * others):
            values, gradient = with_gradient(made[trunk], images, second)
            assert values.dtype == tf.float32 and values.shape == (2,)
            want, want_gradient = model.gradient(images, second)
            np.testing.assert_allclose(values, want, rtol=1e-4)
            # A value within rounding of a kink, or two that tie for a maximum,
            # may fall on the other side: one path of thousands.
            assert_near(gradient, want_gradient, 5e-3)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_identical_images(made, trunk):
    images = pair(20, 20)[0]
    values, gradient = with_gradient(made[trunk], images, images)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradient, 0)


def test_finite_where_all_channels_are_zero(folder, tmp_path):
    model = reference.LPIPS("squeeze")
    state = {f"features.{k}": v for k, v in model.features.state_dict().items()}
    state["features.0.weight"] *= 0.01
    state["features.0.bias"] -= 1.0
    torch.save(state, tmp_path / "trunk.pth")
    images, others = pair(20, 20)
    distance = LPIPS("squeeze", tmp_path / "trunk.pth", folder / "squeeze.pth")
    values, gradient = with_gradient(distance, images, others)
    assert np.isfinite(values).all() and np.isfinite(gradient).all()


def test_compiled_with_unknown_sizes(made):
    images, others = pair()
    want = made["squeeze"](images, others)
    spec = tf.TensorSpec((None, None, None, 3))
    for jit in (False, True):
        call = tf.function(
            made["squeeze"],
            input_signature=None if jit else [spec, spec],
            jit_compile=jit,
        )
        got = call(tf.constant(images), tf.constant(others))
        np.testing.assert_allclose(got, want, rtol=1e-4)
    # The weights are no constants of the graph.
    graph = tf.function(made["squeeze"]).get_concrete_function(spec, spec)
    assert graph.graph.as_graph_def().ByteSize() < 500_000


def test_float32_under_half_policies(made, dtype_policy):
    images, others = pair(20, 20)
    want = made["squeeze"](images, others)
    dtype_policy("mixed_float16")
    got = made["squeeze"](images, others)
    np.testing.assert_array_equal(got, want)
    half = made["squeeze"](images.astype("float16"), others.astype("float16"))
    assert half.dtype == tf.float32
    np.testing.assert_allclose(half, want, rtol=1e-2)


def test_channels(made, folder):
    distance = made["squeeze"]
    grey = pair(20, 20, channels=1)
    want = distance(*np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(distance(*grey), want)
    many = pair(20, 20, channels=5)
    with pytest.raises(ValueError, match="per_channel=True"):
        distance(*many)
    each = LPIPS.from_config({**distance.get_config(), "per_channel": True})
    want = np.mean([distance(*many[..., i : i + 1]) for i in range(5)], axis=0)
    np.testing.assert_allclose(each(*many), want, rtol=1e-5)


@pytest.mark.parametrize(
    "images,match",
    [
        (np.zeros((2, 16, 40, 3), "float32"), "at least 17 x 17"),
        (np.zeros((40, 40, 3), "float32"), "batch, height"),
        (np.zeros((2, 40, 40, 3), "uint8"), "preprocess"),
    ],
)
def test_refused_images(made, images, match):
    with pytest.raises(ValueError, match=match):
        made["squeeze"](images, images)


def test_a_model_loads_where_the_weights_are_not(made):
    config = keras.saving.serialize_keras_object(made["vgg"])
    config["config"]["trunk_weights"] = "/nowhere/trunk.pth"
    distance = keras.saving.deserialize_keras_object(config)
    with pytest.raises(ValueError, match="vgg16-397923af.pth"):
        distance(*pair(20, 20))


def test_lazily_loaded_within_a_graph(made):
    images, others = pair(20, 20)
    distance = LPIPS.from_config(made["squeeze"].get_config())
    got = tf.function(distance)(images, others)
    np.testing.assert_allclose(got, made["squeeze"](images, others), rtol=1e-5)
    np.testing.assert_allclose(distance(images, others), got, rtol=1e-5)


def test_missing_or_foreign_weights(folder, tmp_path):
    paths = {
        t: (folder / f"{t}_trunk.pth", folder / f"{t}.pth") for t in TRUNKS
    }
    with pytest.raises(ValueError, match="squeezenet1_1-b8a52dc0.pth"):
        LPIPS("squeeze")
    with pytest.raises(ValueError, match="linear_weights='nowhere'"):
        LPIPS("vgg", paths["vgg"][0], "nowhere")
    with pytest.raises(ValueError, match="one of.*'alex'"):
        LPIPS("alex", *paths["vgg"])
    with pytest.raises(LayoutError, match="this trunk"):
        LPIPS("vgg", paths["squeeze"][0], paths["vgg"][1])
    with pytest.raises(LayoutError, match="linear layers of this trunk"):
        LPIPS("vgg", paths["vgg"][0], paths["squeeze"][1])
    with pytest.raises(LayoutError, match="linear layers"):
        LPIPS("vgg", paths["vgg"][0], paths["vgg"][0])
    state = torch.load(paths["squeeze"][0])
    state["features.3.squeeze.bias"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(DamagedFileError, match="finite"):
        LPIPS("squeeze", tmp_path / "nan.pth", paths["squeeze"][1])


def test_one_file_of_everything(made, tmp_path):
    """As in taming's checkpoints and in the state dicts of PyPI lpips."""
    slices = {
        "vgg": [(4, 1), (9, 2), (16, 3), (23, 4), (30, 5)],
        "squeeze": [(2, 1), (5, 2), (8, 3), (10, 4), (11, 5), (12, 6), (13, 7)],
    }
    images, others = pair(20, 20)
    for trunk, key in (("vgg", "loss.perceptual_loss."), ("squeeze", "")):
        model = reference.LPIPS(trunk)
        state = {"encoder.conv_in.weight": torch.ones(2)} if key else {}
        for name, value in model.features.state_dict().items():
            index = int(name.split(".")[0])
            number = next(n for end, n in slices[trunk] if index < end)
            state[f"{key}net.slice{number}.{name}"] = value
        for name, value in model.linear_state().items():
            state[key + name] = value
        path = tmp_path / f"{trunk}.ckpt"
        torch.save({"state_dict": state} if key else state, path)
        got = LPIPS(trunk, path, path)(images, others)
        np.testing.assert_array_equal(got, made[trunk](images, others))


def caffe_arrays(path):
    """Kernels and biases of the Keras file, by torchvision's names."""
    fires = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
    arrays = {}
    with h5py.File(path) as file:
        for layer, group in [("conv1", "0")] + [
            (
                f"fire{n}/{part}{size}",
                f"{index}.{part}{size * (part != 'squeeze')}",
            )
            for n, index in fires.items()
            for part, size in (
                ("squeeze", "1x1"),
                ("expand", "1x1"),
                ("expand", "3x3"),
            )
        ]:
            names = file[layer].attrs["weight_names"]
            kernel, bias = (file[layer][name][()] for name in names)
            arrays[f"{group}.weight"] = kernel.transpose(3, 2, 0, 1)
            arrays[f"{group}.bias"] = bias
    return arrays


@pytest.fixture(scope="module")
def published(data_dir):
    folder = data_dir / "weights"
    (trunk,) = (folder / "squeezenet_v1.1_imagenet").glob("*.h5")
    linear = folder / "lpips_v0.1/squeeze.pth"
    if not linear.exists():
        pytest.skip("needs the linear layers of LPIPS")
    return trunk, linear


def test_caffe_weights_equal_torch(published):
    """The reference turns images to BGR 0..255 minus the means, as Caffe."""
    trunk, linear = published
    model = reference.LPIPS("squeeze")
    state = {k: torch.tensor(v) for k, v in caffe_arrays(trunk).items()}
    model.features.load_state_dict(state)
    model.lins = list(torch.load(linear, map_location="cpu").values())
    means = torch.tensor([103.939, 116.779, 123.68])[None, :, None, None]
    model.scaling = 0.0, 1.0
    activations = model.activations
    model.activations = lambda images: activations(
        (images.flip(1) + 1) * 127.5 - means
    )
    images, others = pair(40, 33)
    values, gradient = with_gradient(
        LPIPS("squeeze", trunk, linear), images, others
    )
    want, want_gradient = model.gradient(images, others)
    np.testing.assert_allclose(values, want, rtol=1e-4)
    assert_near(gradient, want_gradient)


def test_damaged_h5(published, tmp_path):
    trunk, linear = published
    data = trunk.read_bytes()
    for end in (9, 5000, len(data) // 2):
        (tmp_path / "cut.h5").write_bytes(data[:end])
        with pytest.raises(DamagedFileError, match="cut.h5"):
            LPIPS("squeeze", tmp_path / "cut.h5", linear)
    with pytest.raises(ConversionError, match="cannot be replaced"):
        LPIPS("vgg", trunk, linear.with_name("vgg.pth"))


def test_metric(made):
    distance = made["squeeze"]
    metric = keras_vq.metrics.LPIPS(distance)
    images, others = pair(20, 20, batch=3)
    rounded = [np.round((x + 1) * 127.5) / 127.5 - 1 for x in (images, others)]
    metric.update_state(images[:2], others[:2])
    metric.update_state(images[2:], others[2:])
    want = np.mean(distance(*rounded))
    np.testing.assert_allclose(metric.result(), want, rtol=1e-4)
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    again.update_state(images, others)
    np.testing.assert_allclose(again.result(), want, rtol=1e-4)
    with pytest.raises(ValueError, match="keras_vq.losses.LPIPS"):
        keras_vq.metrics.LPIPS(3)


def test_models_neither_hold_nor_save_it(made, tmp_path):
    def build(loss):
        return keras_vq.models.VQVAE(
            hidden_units=8,
            residual_units=4,
            codebook_size=8,
            codebook_dim=4,
            reconstruction_loss=loss,
        )

    plain, model = build("mse"), build(made["squeeze"])
    model.perceptual = made["squeeze"]
    shapes = [tuple(v.shape) for v in plain.variables]
    assert [tuple(v.shape) for v in model.variables] == shapes
    images = pair(32, 32)[0]
    model.compile("adam")
    model.adapt(images)
    before = [np.array(array) for array in made["squeeze"]._constants]
    history = model.fit(images, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for array, old in zip(made["squeeze"]._constants, before, strict=True):
        np.testing.assert_array_equal(array, old)
    paths = [tmp_path / "plain.weights.h5", tmp_path / "model.weights.h5"]
    plain.save_weights(paths[0])
    build(made["squeeze"]).save_weights(paths[1])
    stored = []
    for path in paths:
        with h5py.File(path) as file:
            sizes = []
            file.visititems(
                lambda _, item, sizes=sizes: (
                    sizes.append(item.shape)
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        stored.append(sorted(sizes))
    assert stored[0] == stored[1]
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 600_000
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
