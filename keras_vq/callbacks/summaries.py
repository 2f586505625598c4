"""Whether logs for TensorBoard can be written, which takes two packages."""

import importlib.util

_PACKAGES = ("tensorboard", "tensorflow")


def can_write_summaries() -> bool:
    """Whether all packages are installed; none is imported."""
    return all(importlib.util.find_spec(name) for name in _PACKAGES)


def check_summaries(option: str) -> None:
    """Refuses to write them without the packages.

    Args:
        option: What the user has asked for them with.

    Raises:
        ImportError: If one is missing.
    """
    if not can_write_summaries():
        raise ImportError(
            f"{option} needs the packages tensorboard and tensorflow. Install "
            "them with: pip install keras-vq[cpu,tensorboard]"
        )
