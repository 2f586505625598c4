"""NaN and infinity at 30 points of a training, and what is left of them."""

import contextlib

import faults
import keras
import numpy as np
import pytest
from replicas import number

pytestmark = pytest.mark.filterwarnings("ignore:.*skipped")

_BACKEND = keras.backend.backend()
_STEPS, _POINTS = 8, 5
# Name, replicas, policy and arguments of compile.
_SETTINGS = [
    ("float32", None, None, {}),
    ("accumulation", None, None, {"accumulation_steps": 4, "clipnorm": 1.0}),
    ("bfloat16", None, "mixed_bfloat16", {"clipnorm": 1.0}),
    ("float16", None, "mixed_float16", {"accumulation_steps": 2}),
    ("replicas", "two_devices", None, {"clipnorm": 1.0}),
    (
        "replicas-float16",
        "two_devices",
        "mixed_float16",
        {"accumulation_steps": 2},
    ),
]
# Of all settings together; filled by the tests, summed up by the last.
_COUNTS = {
    kind: {"points": 0, "finite": 0, "comparable": 0, "equal": 0}
    for kind in faults.KINDS
}


def _points(number_of_setting, kind):
    """Fault, image and step of the points of a setting."""
    rng = np.random.default_rng(number_of_setting)
    names = list(faults.FAULTS)
    if kind == "vqgan":
        names += faults.CRITIC_FAULTS
    # So that all settings together meet each fault several times.
    first = number_of_setting * _POINTS
    for i in range(_POINTS):
        yield (
            names[(first + i) % len(names)],
            int(rng.integers(8)),
            int(rng.integers(_STEPS)),
        )


def _is_comparable(fault, dtype):
    # Another loss scale rounds the gradients in another way.
    overflows = fault.endswith("gradient")
    return not (dtype == "mixed_float16" and overflows)


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize(
    "index", range(len(_SETTINGS)), ids=[s[0] for s in _SETTINGS]
)
def test_points(index, kind, request):
    _, replicas, dtype, arguments = _SETTINGS[index]
    strategy = request.getfixturevalue(replicas) if replicas else None
    # On JAX a model trains on the devices that are set at the time.
    stays = strategy is not None and _BACKEND == "jax"
    with strategy.scope() if stays else contextlib.nullcontext():
        model = faults.make(strategy, dtype, kind, **arguments)
        _check_points(model, index, kind, dtype)


def _check_points(model, index, kind, dtype):
    counts = _COUNTS[kind]
    start = faults.snapshot(model, counters=True)
    good = [faults.batch(seed) for seed in range(_STEPS)]
    faults.fit(model, *good)
    assert number(model.skipped_steps) == 0
    expected = faults.snapshot(model)
    for fault, image, step in _points(index, kind):
        faults.restore(model, start)
        bad = faults.batch(50 + step, fault, image)
        faults.fit(model, *good[:step], bad, *good[step:])
        assert number(model.skipped_steps) == 1, (fault, image, step)
        state = faults.snapshot(model)
        finite = all(np.isfinite(value).all() for value in state.values())
        counts["points"] += 1
        counts["finite"] += finite
        assert finite, (fault, image, step)
        if _is_comparable(fault, dtype):
            counts["comparable"] += 1
            faults.assert_equal(state, expected)
            counts["equal"] += 1


@pytest.mark.parametrize("kind", faults.KINDS)
def test_sum(kind, figure):
    """Runs last: what the tests above have counted."""
    counts = _COUNTS[kind]
    name = kind if _BACKEND == "tensorflow" else f"{kind}, {_BACKEND}"
    if counts["points"] < _POINTS * len(_SETTINGS):
        pytest.skip("some of the points above were not run, or failed")
    figure(
        f"NaN or infinity injected, {name}: all variables finite afterwards",
        f"{counts['finite']}/{counts['points']}",
    )
    figure(
        f"equal bit for bit to the {name} trained without the bad step",
        f"{counts['equal']}/{counts['comparable']} (the others change the "
        "loss scale)",
    )
    assert counts["finite"] == counts["points"] == 30
