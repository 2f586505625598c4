"""What a layout says of a file of weights."""

import dataclasses
from collections.abc import Callable

import keras

from keras_vq.convert.rows import Row
from keras_vq.convert.weight_file import WeightFile


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of a file.

    Attributes:
        model: Registered name of the model's class.
        arguments: The model's arguments, as in a configuration.
        rows: What each variable is filled with.
        unused: Regular expression of the tensors that the model has no use
            for, which may be there or not.
        elsewhere: Shapes of tensors, by name, that a part of the model reads
            by itself when it is trained.
        parts: Optional parts of the model among the rows.
        undecided: Arguments that the file does not tell, and whoever loads it
            must: what to say of each.
    """

    model: str
    arguments: dict
    rows: list[Row]
    unused: str = r".*\.num_batches_tracked"
    elsewhere: dict = dataclasses.field(default_factory=dict)
    parts: tuple[str, ...] = ()
    undecided: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one family of programs writes its models.

    Attributes:
        name: Short name.
        title: Whose files these are.
        recognises: Whether a file is one of them, by names alone.
        plan: What becomes of it.
    """

    name: str
    title: str
    recognises: Callable[[WeightFile], bool]
    plan: Callable[[WeightFile], Plan]


def packed(cls: type, **arguments) -> dict:
    """A layer of this package as it stands in a configuration.

    Args:
        cls: Its class, which is not made: it would allocate its variables.
        **arguments: Its arguments.
    """
    policy = keras.dtype_policies.serialize(keras.config.dtype_policy())
    return {
        "module": cls.__module__,
        "class_name": cls.__name__,
        "config": {**arguments, "dtype": policy},
        "registered_name": keras.saving.get_registered_name(cls),
    }
