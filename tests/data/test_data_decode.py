"""The decoding policy: one set of pixels for the same bytes, for every kind of image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from view_images import encoded, noise, picture

from understudy.core.errors import DataError
from understudy.data.decode import decode, decode_many, decoder_versions, image_size, to_rgb


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_pixels_equal_pillows(quality, subsampling):
    data = encoded(picture(37, 53), "jpeg", quality=quality, subsampling=subsampling)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    got = decode(data)
    assert got.dtype == np.uint8
    assert got.shape == (37, 53, 3)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tiff", "ppm"])
def test_lossless_formats_are_exact(kind):
    image = noise(9, 14)
    options = {"lossless": True} if kind == "webp" else {}
    np.testing.assert_array_equal(decode(encoded(image, kind, **options)), image)


def test_bad_input_grayscale_is_repeated_over_the_channels():
    gray = noise(12, 10)[..., 0]
    got = decode(saved(Image.fromarray(gray), "png"))
    np.testing.assert_array_equal(got, np.repeat(gray[..., None], 3, 2))
    jpeg = saved(Image.fromarray(picture(12, 10)[..., 0]), "jpeg")
    got = decode(jpeg)
    assert got.shape == (12, 10, 3)
    np.testing.assert_array_equal(got[..., 0], got[..., 2])
    np.testing.assert_array_equal(got[..., 0], np.asarray(Image.open(io.BytesIO(jpeg))))
    bits = Image.fromarray(gray > 127)
    np.testing.assert_array_equal(decode(saved(bits, "png"))[..., 1], (gray > 127) * 255)


def test_bad_input_cmyk_is_converted_without_a_profile():
    cmyk = Image.fromarray(picture(16, 12)).convert("CMYK")
    data = saved(cmyk, "jpeg", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(decode(saved(cmyk, "tiff")), np.asarray(cmyk.convert("RGB")))


def test_bad_input_transparency_is_composited_on_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (200, 10, 20, 255)
    rgba[1] = (200, 10, 20, 0)
    rgba[1, 2] = (100, 0, 50, 128)
    got = decode(saved(Image.fromarray(rgba), "png"))
    assert got[0, 0].tolist() == [200, 10, 20]
    assert got[1, 0].tolist() == [255, 255, 255]
    # 255 - (255 - level) * 128 / 255, rounded
    np.testing.assert_allclose(got[1, 2], [177.2, 127, 152.1], atol=1)
    la = np.full((2, 2, 2), 0, np.uint8)
    assert (decode(saved(Image.fromarray(la, "LA"), "png")) == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    got = decode(saved(palette, "png", transparency=0))
    assert got.tolist() == [[[255, 255, 255], [1, 2, 3]]]
    assert decode(saved(palette, "png")).tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_sixteen_bit_gray_keeps_its_upper_bits():
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    got = decode(saved(Image.fromarray(deep), "png"))
    assert got[0, :, 0].tolist() == [0, 0, 1, 255]
    assert got.shape == (1, 4, 3)
    wide = Image.fromarray(np.array([[0, 256, 70000]], np.int32))
    assert to_rgb(wide)[0, :, 1].tolist() == [0, 1, 255]


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "gif", save_all=True, append_images=frames[1:])
    assert (decode(out.getvalue()) == [255, 0, 0]).all()


def test_orientation_is_ignored():
    image = picture(8, 12)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    plain, turned = encoded(image, "jpeg"), encoded(image, "jpeg", exif=exif.tobytes())
    np.testing.assert_array_equal(decode(turned), decode(plain))
    assert image_size(turned) == (8, 12)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_sizes_come_from_the_header(kind):
    data = encoded(picture(31, 17), kind)
    assert image_size(data) == (31, 17)
    if kind == "jpeg":
        assert image_size(data[:700]) == (31, 17)


def test_a_reduced_scale_still_covers_what_is_asked_for():
    data = encoded(picture(160, 240), "jpeg")
    assert decode(data, min_height=40, min_width=60).shape == (40, 60, 3)
    assert decode(data, min_height=41, min_width=60).shape == (60, 90, 3)
    assert decode(data, min_height=160, min_width=1).shape == (160, 240, 3)
    png = encoded(picture(160, 240), "png")
    assert decode(png, min_height=1, min_width=1).shape == (160, 240, 3)


def test_threads_do_not_change_pixels():
    items = [encoded(picture(20, 20, i), "jpeg") for i in range(9)]
    for a, b in zip(decode_many(items), decode_many(items, threads=3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_decoder_is_named_for_cards():
    found = decoder_versions()
    assert found["decoder"] == "simplejpeg+pillow"
    assert found["pillow"] != "unknown"
    assert found["simplejpeg"] != "unknown"


def test_bad_input_not_an_image():
    with pytest.raises(DataError, match=r"row 9: not an image.*5 bytes, starting b'hello'"):
        decode(b"hello", name="row 9")
    for nothing in (b"", None):  # a null in the image column
        for read in (image_size, lambda data, name: decode(data, name=name)):
            with pytest.raises(DataError, match="row 9: not an image, it is empty; restore it or"):
                read(nothing, "row 9")
    with pytest.raises(DataError, match="row 9: not a JPEG file that can be decoded"):
        decode(b"\xff\xd8\xff\xe0 nothing", name="row 9")
    with pytest.raises(DataError, match="row 9: not a JPEG file"):
        image_size(b"\xff\xd8\xff\xe0 nothing", "row 9")


def test_bad_input_truncated_file():
    jpeg, png = encoded(picture(64, 64), "jpeg"), encoded(noise(64, 64), "png")
    with pytest.raises(DataError, match="row 9: not a JPEG file that can be decoded"):
        decode(jpeg[: len(jpeg) // 2], name="row 9")
    with pytest.raises(DataError, match="row 9: the image is damaged"):
        decode(png[: len(png) // 2], name="row 9")
    with pytest.raises(DataError, match="image 1: "):
        decode_many([jpeg, jpeg[:200]], threads=2)


def test_bad_input_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="row 9: .*900 pixels"):
        decode(encoded(noise(30, 30)), name="row 9")
