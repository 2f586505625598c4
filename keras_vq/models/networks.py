"""What an autoencoder asks of the networks it is given."""

import numbers

import keras


def check_networks(**networks):
    """Raises ValueError if one of the networks is none, by argument name."""
    for name, network in networks.items():
        if not isinstance(network, keras.Layer):
            raise ValueError(
                f"`{name}` must be a Keras layer or model. "
                f"Received: {network!r}"
            )


def check_factor(factor):
    """Raises ValueError if it is no `downsample_factor`."""
    whole = isinstance(factor, numbers.Integral) and factor is not True
    if not whole or factor < 1:
        raise ValueError(
            "`downsample_factor` must be a positive integer, such as 4. "
            f"Received: downsample_factor={factor!r}"
        )


def codebook_size_of(quantizer, size: int | None, default: int) -> int:
    """Number of codes; a quantizer that is given decides.

    Args:
        quantizer: A `keras_vq.layers.Quantizer`, or None.
        size: Integer, the argument `codebook_size` of a model, or None.
        default: Integer, where neither says anything.

    Raises:
        ValueError: If both say something else.
    """
    if quantizer is None:
        return default if size is None else size
    # What is no quantizer is refused by the base class.
    own = getattr(quantizer, "codebook_size", size)
    if size not in (None, own):
        raise ValueError(
            "`codebook_size` must be that of `quantizer`, which is given. "
            "Leave it out, or give another quantizer. Received: "
            f"codebook_size={size}, and a quantizer of {own} codes"
        )
    return own


def find_factors(
    encoder, quantizer, decoder, sides: list, channels: int
) -> list:
    """How many pixels of a side become one position of codes, by level.

    Args:
        encoder: Keras layer or model, called before.
        quantizer: Quantizer of one or of several levels, called before.
        decoder: Keras layer or model, called before.
        sides: Sizes of the images, where the encoder takes a single one;
            None elsewhere.
        channels: Integer, channels of an image.

    Returns:
        List of integers, the coarsest level's first.

    Raises:
        ValueError: If the encoder divides no side, or not every side, by one
            whole number, a level's is no multiple of the next finer one's, or
            the decoder gives images of another size.
    """
    sides = [side or 256 for side in sides]
    shape = (1, *sides, channels)
    latents = encoder.compute_output_spec(keras.KerasTensor(shape))
    factors = []
    for level in keras.tree.flatten(latents):
        factor = sides[0] // max(level.shape[1], 1)
        if factor < 1 or [factor * n for n in level.shape[1:-1]] != sides:
            raise ValueError(
                "The encoder must divide every side by the same whole number. "
                f"Received: latents of shape {tuple(level.shape)} for an "
                f"input of shape {shape}. Pad its convolutions, or pass "
                "`downsample_factor`."
            )
        if factors and factors[-1] % factor:
            raise ValueError(
                "The encoder must give the coarsest level first, and the size "
                "of each must be a multiple of that before. Received: pixels "
                f"per position {factors[-1]}, then {factor}"
            )
        factors.append(factor)
    quantized = quantizer.compute_output_spec(latents)["quantized"]
    images = decoder.compute_output_spec(quantized)
    if list(images.shape[1:-1]) != sides:
        sizes = [tuple(x.shape) for x in keras.tree.flatten(quantized)]
        raise ValueError(
            "The decoder must give images of the size that the encoder took. "
            f"Received: images of shape {tuple(images.shape)} for latents of "
            f"shape {', '.join(map(str, sizes))}, made from an input of shape "
            f"{shape}. Change its strides, or pass `downsample_factor`."
        )
    return factors


def frozen_layers(model: keras.Model) -> list:
    """Numbers of the layers that are not trainable, for `freeze_layers`.

    A layer that is made anew from its configuration does not know that it,
    or a part of it, was frozen; a model with all its layers does.
    """
    layers = model._flatten_layers(include_self=False)
    return [i for i, layer in enumerate(layers) if not layer.trainable]


def freeze_layers(model: keras.Model, numbers: list):
    """Freezes the layers with these numbers, and no others."""
    # Each layer comes before its parts, to which it passes its value on.
    layers = model._flatten_layers(include_self=False)
    for i, layer in enumerate(layers):
        layer.trainable = i not in numbers
