"""Picture formats decoded by TensorFlow, as the package's rule wants them."""

from keras_vq.data.headers import Header


def decode(data: bytes, header: Header):
    """Decodes one picture.

    Args:
        data: The content of the file.
        header: What `read_header` found in it.

    Returns:
        uint8 or, of a PNG with 16 bits, uint16 `(height, width, 1 to 4)`.

    Raises:
        ValueError: If the picture is damaged, with TensorFlow's reason.
    """
    import tensorflow as tf

    try:
        with tf.device("CPU:0"):
            return _decode(tf, data, header).numpy()
    except tf.errors.ResourceExhaustedError:
        raise  # The machine's fault, not the picture's.
    except tf.errors.OpError as error:
        reason = error.message.split("} ", 1)[-1].split(" [Op:")[0]
        raise ValueError(reason) from None


def _decode(tf, data, header):
    if header.kind == "jpeg":
        # The accurate DCT is what every other reader uses.
        return tf.raw_ops.DecodeJpeg(
            contents=data,
            channels=1 if header.grey else 3,
            dct_method="INTEGER_ACCURATE",
        )
    if header.kind == "png":
        return tf.raw_ops.DecodePng(
            contents=data,
            channels=4 if header.alpha else 0,
            dtype=tf.uint16 if header.depth == 16 else tf.uint8,
        )
    if header.kind == "bmp":
        # The fourth byte of a BMP is padding more often than alpha.
        return tf.raw_ops.DecodeBmp(contents=data)[..., :3]
    return tf.raw_ops.DecodeImage(
        contents=_decodable(data, header),
        channels=4 if header.alpha else 3,
        expand_animations=False,
    )


def _decodable(data, header):
    """Returns the data of a GIF or WebP so that TensorFlow decodes it.

    Of a GIF it would decode all frames, which no cap on the pixels bounds, so
    the file is made to end after the first.

    An animated WebP is only decoded with four channels, and those only where
    the header's bit for transparency (0x10) is set; frames without it are
    opaque.
    """
    if header.kind == "gif":
        return data[: header.end] + b";"
    if data[12:16] == b"VP8X" and data[20] & 0x02:
        return data[:20] + bytes([data[20] | 0x10]) + data[21:]
    return data
