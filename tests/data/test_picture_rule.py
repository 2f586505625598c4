"""The written rule for picture files, against Pillow and hand-made files."""

import ast
import io
import pathlib

import numpy as np
import pytest
from pictures import encode, noise, png
from PIL import Image, ImageOps

import keras_vq.data
from keras_vq.data import ImageError, decode_image


def pillow(data):
    return Image.open(io.BytesIO(data))


def as_int(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_has_pillows_pixels(quality, subsampling, progressive):
    data = encode(
        noise(),
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
    )
    difference = as_int(decode_image(data)) - as_int(pillow(data))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "kind, options",
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_the_exact_pixels(kind, options):
    image = noise()
    np.testing.assert_array_equal(
        decode_image(encode(image, kind, **options)), image
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_is_repeated_for_colour_and_kept_for_one_channel(kind):
    data = encode(noise(channels=1), kind)
    grey = np.asarray(pillow(data))
    one = decode_image(data, channels=1)
    three = decode_image(data, channels=3)
    assert one.shape == (24, 30, 1) and three.shape == (24, 30, 3)
    np.testing.assert_array_equal(one[..., 0], grey)
    for channel in range(3):
        np.testing.assert_array_equal(three[..., channel], grey)


def test_colour_becomes_grey_like_pillow():
    data = encode(noise(), "PNG")
    np.testing.assert_array_equal(
        decode_image(data, channels=1)[..., 0],
        np.asarray(pillow(data).convert("L")),
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_with_few_bits_covers_the_whole_range(bits):
    row = np.arange(8) % (1 << bits)
    packed = np.packbits(
        np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -bits:]
    ).tobytes()
    image = decode_image(png(8, 1, bits, 0, [packed]), channels=1)
    np.testing.assert_array_equal(
        image[0, :, 0], row * 255 // ((1 << bits) - 1)
    )


def over_white(data):
    image = pillow(data).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return as_int(Image.alpha_composite(white, image).convert("RGB"))


@pytest.mark.parametrize(
    "mode, kind, options",
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True, "exact": True}),
    ],
)
def test_transparent_parts_are_laid_over_white(mode, kind, options):
    alpha = noise(channels=1, seed=1)
    alpha[:4], alpha[4:8] = 0, 255
    image = Image.fromarray(np.concatenate([noise(), alpha], -1))
    data = encode(image.convert(mode), kind, **options)
    difference = as_int(decode_image(data)) - over_white(data)
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(decode_image(data)[:4], 255)


def test_the_transparent_colour_of_a_palette_is_laid_over_white():
    palette = Image.fromarray(noise()).quantize(16)
    data = encode(palette, "PNG", transparency=3)
    assert (np.asarray(palette) == 3).any()
    np.testing.assert_array_equal(decode_image(data), over_white(data))


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3)])
def test_16_bits_are_rounded_to_8(colour, channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 1 << 16, (6, 5, channels))
    image[0, 0], image[0, 1], image[0, 2] = 0, 65535, 255
    rows = [row.astype(">u2").tobytes() for row in image]
    decoded = decode_image(png(5, 6, 16, colour, rows), channels=channels)
    np.testing.assert_array_equal(decoded, np.round(image / 257))
    # Cutting the lower byte, as most readers do, is something else.
    assert (decoded != image >> 8).any()


def test_16_bits_with_alpha():
    rows = [np.array([[40000, 0, 65535, 30000]], ">u2").tobytes()]
    (pixel,) = decode_image(png(1, 1, 16, 6, rows))[0]
    alpha = 30000 / 65535
    expected = 255 * (np.array([40000, 0, 65535]) / 65535 * alpha + 1 - alpha)
    np.testing.assert_allclose(pixel, expected, atol=1)


def test_cmyk_jpeg_is_converted_like_pillow():
    data = encode(Image.fromarray(noise()).convert("CMYK"), "JPEG")
    assert pillow(data).mode == "CMYK"
    difference = as_int(decode_image(data)) - as_int(
        pillow(data).convert("RGB")
    )
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "kind, options", [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})]
)
def test_the_first_frame_of_an_animation_is_taken(kind, options):
    frames = [Image.fromarray(noise(seed=s)) for s in range(3)]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **options
    )
    assert pillow(data).n_frames == 3
    np.testing.assert_array_equal(
        decode_image(data), np.asarray(pillow(data).convert("RGB"))
    )


def test_transparent_parts_of_a_gif_are_black():
    data = encode(Image.fromarray(noise()).quantize(8), "GIF", transparency=3)
    transparent = np.asarray(pillow(data).convert("RGBA"))[..., 3] == 0
    assert transparent.any()
    np.testing.assert_array_equal(decode_image(data)[transparent], 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(noise(), kind, exif=exif, **options)
    expected = as_int(ImageOps.exif_transpose(pillow(data)))
    image = decode_image(data)
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 1
    stored = (30, 24) if orientation >= 5 else (24, 30)
    assert image.shape[:2] == stored


def damaged(data):
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    return bytes(broken)


JPEG, PNG = encode(noise(), "JPEG"), encode(noise(), "PNG")


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html></html>", "starts with b'<!DOCTYPE"),
        (b"\x93NUMPY\x01\x00", "JPEG, PNG, GIF, BMP or WebP"),
        (JPEG[:5], "truncated"),
        (JPEG[:100], "truncated"),
        (JPEG[:-100], "damaged or truncated"),
        (PNG[:12], "truncated"),
        (PNG[:200], "damaged or truncated"),
        (damaged(PNG), "damaged or truncated"),
        (b"\xff\xd8\xff\xd9" + bytes(40), "damaged JPEG"),
        (b"RIFF" + bytes(40), "no WebP"),
        (encode(noise(), "TIFF"), "Convert it to PNG"),
        (encode(noise(channels=1), "BMP"), "Convert it to PNG"),
        (png(0, 3, 8, 2, []), "0 pixels|x0 pixels"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data, name="holiday.jpg")
    assert "holiday.jpg" in str(caught.value)


def test_a_huge_picture_is_refused_before_it_is_decoded():
    # 40 KB that would decode to 1.2 GB.
    row = bytes(3 * 20000)
    data = png(20000, 20000, 8, 2, [row])
    with pytest.raises(ImageError, match="20000x20000 pixels.*max_pixels"):
        decode_image(data)
    with pytest.raises(ImageError, match="24x30 pixels"):
        decode_image(PNG, max_pixels=24 * 30 - 1)
    assert decode_image(PNG, max_pixels=24 * 30).shape == (24, 30, 3)


def test_channels_of_a_file():
    with pytest.raises(ValueError, match="1 or 3.*Received: channels=4"):
        decode_image(PNG, channels=4)


def test_real_photos_have_pillows_pixels(data_dir):
    paths = sorted((data_dir / "photos").glob("*.jpg"))[::60]
    assert len(paths) >= 10
    for path in paths:
        data = path.read_bytes()
        expected = as_int(pillow(data).convert("RGB"))
        assert np.abs(decode_image(data) - expected).max() <= 1, path


def test_no_module_imports_tensorflow_before_it_is_used():
    folder = pathlib.Path(keras_vq.data.__file__).parent
    modules = sorted(folder.glob("*.py"))
    assert len(modules) > 10
    for path in modules:
        if path.name == "grain_engine.py":  # Imported late as a whole.
            continue
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                module = getattr(statement, "module", None)
                names = [module or a.name for a in statement.names]
                tops = {name.split(".")[0] for name in names}
                assert not tops & {
                    "keras",
                    "keras_cv",
                    "grain",
                    "PIL",
                    "tensorflow",
                    "tensorflow_datasets",
                }, path
