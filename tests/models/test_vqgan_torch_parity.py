"""One training step of VQGAN, beside an independent one in PyTorch.

`fit` and `train_on_batch` take the real step, with plain SGD of each network;
PyTorch takes it in float64 from the same weights. Terms of the loss agree to
1e-4 of their value. Of every variable, the gradient and the new value agree
to 1e-4 of its Euclidean norm (of a gradient that is nothing, or next to it,
to 1e-4 of a thousandth of the network's largest: rounding is all it has).
"""

import os
import pathlib

import keras
import numpy as np
import pytest
import small_vqgan as small
import tensorflow as tf

from keras_vq.losses import LPIPS, AdversarialTraining
from tests import torch_vqgan_step as reference
from tests.losses import torch_lpips
from tests.losses.test_lpips import caffe_arrays
from tests.models import torch_discriminator

torch = reference.torch

TOLERANCE = 1e-4
RATES = (0.05, 0.1)
# Beyond float32's rounding of what a kink of the loss is compared with.
MARGIN = 1e-5


def _compile(model, eagerly=False, **arguments):
    model.compile(
        small.sgd(RATES[0]),
        discriminator_optimizer=small.sgd(RATES[1]),
        run_eagerly=eagerly,
        **arguments,
    )
    return model


def make_pair(adversarial, model=None, recipe=None, compile=None, logits=1.0):
    """A model and its twin in PyTorch.

    Args:
        adversarial: Dict, what both call the same, of `AdversarialTraining`.
        model: Dict, further arguments of `small.make`.
        recipe: Dict, further arguments of `reference.Recipe`.
        compile: Dict, further arguments of `compile`.
        logits: Float, factor of the discriminator's last kernel. With a small
            one it matters where the adaptive weight has its epsilon.
    """
    sizes = {**small.SIZES, **(model or {})}
    model = small.make(
        adversarial=AdversarialTraining(**adversarial), **(model or {})
    )
    if logits != 1.0:
        kernel = model.discriminator.main[-1].kernel
        kernel.assign(kernel * logits)
    names = {"loss": "adversarial"}
    shared = {
        names.get(name, name): value
        for name, value in adversarial.items()
        if name != "warmup_steps"
    }
    recipe = reference.Recipe(
        levels=len(sizes["channel_multipliers"]),
        blocks=sizes["residual_blocks"],
        groups=sizes["groups"],
        learning_rates=RATES,
        **shared,
        **(recipe or {}),
    )
    twin = reference.twin(model, recipe)
    return _compile(model, **(compile or {})), twin


def images_for(twin, first=0):
    """The first random batch at which no gradient of the twin jumps."""
    for seed in range(first, first + 50):
        images = small.images(4, 32, 32, 3, seed=seed)
        with torch.no_grad():
            *_, found = twin._autoencoder(to_torch(images))
        if found["margin"] > MARGIN:
            return images
    raise AssertionError(f"every batch is within {MARGIN} of a kink")


def to_torch(images):
    return torch_discriminator.images_to_torch(images)


def take_step(model, images):
    """Takes one step; returns the logs of it alone."""
    model.reset_metrics()
    return model.train_on_batch(tf.constant(images), return_dict=True)


def _norm_wise(got, want, least=0.0):
    assert got.shape == want.shape
    scale = max(np.linalg.norm(want), least)
    return np.linalg.norm(got.astype("float64") - want) / scale


def term_errors(logs, terms):
    """Relative errors of the logged terms; of one near 0, beside 0.001."""
    known = {"perplexity", "codes_used", "adaptive_weight", *terms}
    assert set(logs) <= known
    return {
        name: abs(float(logs[name]) - want) / max(abs(want), 1e-3)
        for name, want in terms.items()
    }


def update_errors(model, twin):
    """Errors of what a step has made of both networks, none left out.

    Returns:
        Dict of dicts, from kind to name to error: gradients, new weights, and
        the statistics of the discriminator's batch normalization.
    """
    pair = model.optimizer
    sides = zip(
        reference.named_variables(model),
        (pair.generator, pair.discriminator),
        (twin.gradients, twin.discriminator_gradients),
        (twin.weights, dict(twin.discriminator.named_parameters())),
        strict=True,
    )
    of_gradients, of_weights = {}, {}
    for variables, optimizer, gradients, weights in sides:
        assert set(variables) == set(weights)
        largest = max(g.norm().item() for g in gradients.values())
        names = [name for name in variables if name in gradients]
        assert len(names) == len(gradients) == len(optimizer.momentums)
        assert largest > 1e-3
        found = small.gradients(optimizer, [variables[n] for n in names])
        for name, gradient in zip(names, found, strict=True):
            want = reference.as_keras(gradients[name])
            error = _norm_wise(gradient, want, 1e-3 * largest)
            of_gradients[name] = error
        for name, variable in variables.items():
            want = reference.as_keras(weights[name])
            got = keras.ops.convert_to_numpy(variable)
            of_weights[name] = _norm_wise(got, want)
    return {
        "gradient": of_gradients,
        "weight": of_weights,
        "statistics": _statistics_errors(
            model.discriminator, twin.discriminator
        ),
    }


def _statistics_errors(ours, theirs):
    """Of the reconstruction first, and then of the images."""
    errors = {}
    for layer, module in zip(ours.main, theirs.main, strict=True):
        if isinstance(module, torch.nn.BatchNorm2d):
            for got, want in (
                (layer.moving_mean, module.running_mean),
                (layer.moving_variance, module.running_var),
            ):
                error = _norm_wise(
                    keras.ops.convert_to_numpy(got), want.numpy()
                )
                errors[got.path] = error
    return errors


def _assert_same_terms(logs, terms):
    for name, error in term_errors(logs, terms).items():
        assert error < TOLERANCE, f"{name}: {error}"


def _assert_same_update(model, twin):
    """Gradients and new weights of both networks are equal."""
    for kind, errors in update_errors(model, twin).items():
        for name, error in errors.items():
            assert error < TOLERANCE, f"{kind} of {name}: {error}"


# Name: arguments of `AdversarialTraining`, of the model, of the recipe.
CASES = {
    "hinge": ({}, {}, {}),
    "vanilla": (
        {"loss": "vanilla", "max_adaptive_weight": 0.01},
        {"normalization": "group"},
        {},
    ),
    "non_saturating": (
        {"loss": "non_saturating", "weight": 0.5},
        {"normalization": "act"},
        {},
    ),
    "fixed weight": (
        {"adaptive_weight": False},
        {"commitment_weight": 2.0, "codebook_weight": 0.5},
        {"commitment_weight": 2.0, "codebook_weight": 0.5},
    ),
    "R1": ({"r1_weight": 10.0}, {}, {}),
    "spectral norm and moving averages": (
        {"r1_weight": 1.0},
        {"normalization": "group", "spectral": True, "decay": 0.8},
        {"decay": 0.8},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_step_of_torch(case):
    model, twin = make_pair(*CASES[case], compile={"eagerly": case != "hinge"})
    images = images_for(twin)
    terms = twin.step(to_torch(images))
    if case == "vanilla":
        assert terms["adaptive_weight"] == 0.01
    logs = take_step(model, images)
    _assert_same_terms(logs, terms)
    _assert_same_update(model, twin)


def test_forward_pass_of_torch():
    model, twin = make_pair({}, compile={"eagerly": True})
    images = images_for(twin)
    with torch.no_grad():
        reconstruction, losses, found = twin._autoencoder(to_torch(images))
        logits = twin.discriminator.eval().main(reconstruction)
    got = model(images)
    want = reconstruction.numpy().transpose(0, 2, 3, 1)
    assert _norm_wise(np.asarray(got), want) < TOLERANCE
    codes = model.encode(images)
    np.testing.assert_array_equal(codes, found["indices"])
    assert len(np.unique(codes)) > 8
    logits = logits.numpy().transpose(0, 2, 3, 1)
    assert _norm_wise(np.asarray(model.discriminator(got)), logits) < TOLERANCE
    evaluated = model.evaluate(images, verbose=0, return_dict=True)
    _assert_same_terms(evaluated, {n: v.item() for n, v in losses.items()})


def test_clipping_of_torch():
    """Each network by its own norm."""
    compile = {"clipnorm": 0.01, "eagerly": True}
    model, twin = make_pair({}, recipe={"clipnorm": 0.01}, compile=compile)
    images = images_for(twin)
    terms = twin.step(to_torch(images))
    _assert_same_terms(take_step(model, images), terms)
    _assert_same_update(model, twin)


def test_steps_in_a_row_of_torch():
    """LeCAM with the averages of before, and a ramp of the weight."""
    options = {"lecam_weight": 0.5, "warmup_steps": 2}
    model, twin = make_pair(options, compile={"eagerly": True})
    for step, ramp in enumerate([0.5, 1.0]):
        images = images_for(twin, first=100 * step)
        terms = twin.step(to_torch(images), ramp=ramp)
        assert terms["lecam_penalty"] > 0.1
        _assert_same_terms(take_step(model, images), terms)
        _assert_same_update(model, twin)
        anchors = twin.anchors.numpy()
        assert _norm_wise(np.asarray(model.logit_averages), anchors) < TOLERANCE


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    """SqueezeNet's LPIPS and torch's: with published weights if they are there.

    Else the trunk and the linear layers are random.
    """
    folder = pathlib.Path(os.environ.get("KERAS_VQ_DATA", "nowhere"), "weights")
    trunks = list(folder.glob("squeezenet_v1.1_imagenet/*.h5"))
    linear = folder / "lpips_v0.1/squeeze.pth"
    model = torch_lpips.LPIPS("squeeze")
    model.scaling = [constant.double() for constant in model.scaling]
    if trunks and linear.exists():
        trunk = trunks[0]
        state = {k: torch.tensor(v) for k, v in caffe_arrays(trunk).items()}
        model.features.load_state_dict(state)
        model.lins = list(torch.load(linear, map_location="cpu").values())
        # Caffe's trunk takes BGR in 0..255, less the means.
        means = torch.tensor([103.939, 116.779, 123.68]).double()
        model.scaling = 0.0, 1.0
        activations = model.activations
        model.activations = lambda images: activations(
            (images.flip(1) + 1) * 127.5 - means[None, :, None, None]
        )
    else:
        folder = tmp_path_factory.mktemp("lpips")
        trunk, linear = folder / "trunk.pth", folder / "squeeze.pth"
        state = model.features.state_dict()
        torch.save({f"features.{k}": v for k, v in state.items()}, trunk)
        torch.save(model.linear_state(), linear)
    model.lins = [weights.double() for weights in model.lins]
    return LPIPS("squeeze", trunk, linear), model.double()


def test_perceptual_loss_of_torch(lpips):
    ours, theirs = lpips
    model, twin = make_pair(
        {},
        {"perceptual_loss": ours, "perceptual_weight": 0.7},
        {"perceptual": theirs, "perceptual_weight": 0.7},
        {"eagerly": True},
    )
    images = images_for(twin)
    terms = twin.step(to_torch(images))
    logs = take_step(model, images)
    assert terms["perceptual_loss"] > 0.01
    _assert_same_terms(logs, terms)
    _assert_same_update(model, twin)


def test_accumulation_of_torch():
    """Each micro-batch has its own adaptive weight; their mean is logged."""
    model, twin = make_pair(
        {"lecam_weight": 0.5, "r1_weight": 1.0},
        {"normalization": "group"},
        {"micro_batches": 2, "clipnorm": 1.0},
        {"accumulation_steps": 2, "clipnorm": 1.0, "eagerly": True},
        logits=1e-3,
    )
    images = images_for(twin)
    terms = twin.step(to_torch(images))
    _assert_same_terms(take_step(model, images), terms)
    _assert_same_update(model, twin)


def test_replicas_take_the_step_of_torch(two_replicas):
    """Half a batch on each: one adaptive weight, one batch normalization."""
    with two_replicas.scope():
        model, twin = make_pair(
            {"r1_weight": 1.0, "lecam_weight": 0.5},
            # Fewer layers: two replicas are compiled.
            {"decay": 0.8, "attention_factors": (), "middle_attention": False},
            {"decay": 0.8, "clipnorm": 1.0},
            {"clipnorm": 1.0},
        )
    images = images_for(twin)
    terms = twin.step(to_torch(images))
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(len(images))
    history = model.fit(dataset, verbose=0).history
    _assert_same_terms({n: v for n, (v,) in history.items()}, terms)
    _assert_same_update(model, twin)
