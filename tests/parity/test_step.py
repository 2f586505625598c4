"""One training step of VQGAN beside the same step written in PyTorch.

The default tests take this step with many other losses; here stand the paper's
objective and the figures: how near both come, LPIPS with its published
weights where they are.
"""

import os

import numpy as np
import pytest

from tests.models import test_vqgan_torch_parity as parity

# A fixture: the distance, and its twin in PyTorch.
lpips = parity.lpips


def _case(name, lpips):
    """Arguments of the model and of the twin, and what the figure calls it."""
    if name == "L1":
        return {}, {}, "hinge, L1"
    ours, theirs = lpips
    file = os.path.basename(ours.files["trunk_weights"])
    weight = {"perceptual_weight": 1.0}
    return (
        {"perceptual_loss": ours, **weight},
        {"perceptual": theirs, **weight},
        f"hinge, L1, LPIPS ({file})",
    )


@pytest.mark.parametrize("name", ["L1", "L1 and LPIPS"])
def test_training_step(name, lpips, figure):
    of_model, of_twin, title = _case(name, lpips)
    model, twin = parity.make_pair({}, of_model, of_twin, {"eagerly": True})
    before = [np.array(v) for v in model.trainable_variables]
    images = parity.images_for(twin)
    wanted = twin.step(parity.to_torch(images))
    logs = parity.take_step(model, images)

    terms = parity.term_errors(logs, wanted)
    errors = parity.update_errors(model, twin)
    adaptive = terms.pop("adaptive_weight")
    generator, discriminator = (
        max(errors["gradient"][name] for name in gradients)
        for gradients in (twin.gradients, twin.discriminator_gradients)
    )
    weights = max(errors["weight"].values())
    figure(
        f"VQGAN's step in PyTorch, float64: {title}",
        f"worst relative error of {len(terms)} terms of the loss "
        f"{max(terms.values()):.1e} ({max(terms, key=terms.get)}), of the "
        f"adaptive weight {wanted['adaptive_weight']:.4f} {adaptive:.1e}, of "
        f"{len(errors['gradient'])} gradients {generator:.1e} (generator) and "
        f"{discriminator:.1e} (discriminator), of {len(errors['weight'])} new "
        f"weights after SGD {weights:.1e}",
    )
    # The step was large enough for a wrong gradient to be seen in the weights.
    moved = [
        np.linalg.norm(np.array(v) - old) / np.linalg.norm(old)
        for v, old in zip(model.trainable_variables, before, strict=True)
    ]
    assert np.median(moved) > 1e-3
    for kind in (terms, {"adaptive": adaptive}, *errors.values()):
        assert max(kind.values()) < parity.TOLERANCE
