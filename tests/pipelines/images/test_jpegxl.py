"""JPEG XL: depth, colour, transparency, the JPEG files inside, damage, and headers that lie."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np
import pytest

from pipelines.errors import ImageError
from pipelines.images.jpegxl import read_header

# Made with cjxl 0.7 of a picture of 96 x 64 pixels (red from 0 to 255 to the right, green down, blue both ways) with an
# Adobe RGB profile: lossy (-d 1: pixels are in a colour space of the format's own) and lossless (-d 0); and of a JPEG
# file that is to be displayed turned to the right.
LOSSY = base64.b64decode("""
AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAJzanhsY/8KD0EKbw0DEuYB0FQx2j6L6rxuadDHF3uIGhZaxBZagsyp
j7DzZNDFheG0kRDubGF3NonRtRUyGo0urcFrCwOQdbR1RoCfOFfNkMWJnTwAA/4vLK34lcVQ14mLXFbyUAhQtDaVlU4z1eWd9Zes
V24gl3V8Axx9hc2VTT1FpcMCrJ0tAzSVLS1lzaH2WlnfqE7TWEMFONXbf/+dpzyNdwLtF9J//9031H//7VcEe7lQ4ONczkXwaQkO
5UNMIlx4Pg/1dQOhbUBBz+dn3srLfMvM/PXsKKpsy5cdoKNeQcodUjuE1jp8XDRhLgcAEogCAOQFXeUSAAAVKqOMG7yc6/nyQ4fF
tI3rDG21bWFJosg4NkkncJikoECKKMYYIyNjEGOMRKLtoFZtKbaVIkWRgXkRACD9hXoXBpPLCxgvC0ELyhKJdJBBqZEyqQhJQydB
gNKZrjFpbZm/dYFw2FZY4yCmljtpoe4HH0+NmPYnqMfCX56meHrXUd9db5aNfcD7bbjtpF48g8xidkWWY6IpFu0WUJNH7Jf0Lc/e
O5m8wpWIEJZAlu9idsglfAkTqA+zA8vkmmIJIVIKvNHEQRWCPXqUPP05PDGTJZvKG1CMc7W5g9dwEiAqOiDY4LuLU5lb4Dmwg8Ks
QTwA7Pm+KVD1CHC3CilwtyvqLpkxL5MJIIqa8oWkXOwmP+XPTZAyn4+93v4u6HcJpMTiGgL+yoNjAyDVX5ZzoxNWkBBB+glTHTtC
7OlrcPywrIPQdeYU35uevbdofCGgG+aD3F6DttK6X27h0oMPXI+GH9gbC7N9LdJWKXgUmbsBRLmBPgA=
""")
LOSSLESS = base64.b64decode("""
/woPQQhvDQMS5gHQVDHaPovqvG5p0McXe4gaFlrEFlqCzKmPsPNk0MWF4bSREO5sYXc2idG1FTIajS6twWsLA5B1tHVGgJ84V82Q
xYmdPAAD/i8srfiVxVDXiYtcVvJQCFC0NpWVTjPV5Z31l6xXbiCXdXwDHH2FzZVNPUWlwwKsnS0DNJUtLWXNofZaWd+oTtNYQwU4
1dt//52nPI13Au0X0n//3TfUf//tVwR7uVDg41zORfBpCQ7lQ0wiXHg+D/V1A6FtQEHP52feyst8y8z89ewoqmzLlx2go15Byh1S
O4TWOnxcNGEuBwgCAQA4AksootymY/Igt7OlcPBdYWk3B98UFBQUFBQUHBEysICIAhSixf83Ppx0frEBKBnDGEbHrFgJABgQAiAg
CJ8AbC8CZgsAfI8wXXkfQEb1bheyrmSAw+qhTcSLXIY9btPuDSQnszhu4f+/6v+/1f9/tf//qv//Vv//1UL/qwwGuj2QsAwpwjWn
BDsFm98zuhM=
""")
OF_JPEG = base64.b64decode("""
AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAASanhscAAAAAD/Cg8tEBMAAAHjamJyZMBw2wCCIAgtAwJAIgChRoGQ
q0oAAEDIUdmCoTj/J4iMEco4pxS0HyFDmKUOMsxA6Q41WB8ynHzMgEMOKixy0LAD20cN/fsjyxx23IGGovtfjHHGJJds8skopzwz
zTXbfDPOOQs9NNFFG3000klLPTXVVVt9NdZZiz022WWbfTbaacs9N91123033nkLPjjhhRt+OOKJRy755JRXbvnlmGceuuijk166
6aejnnrsss9Oe+2234577sELPzzxxRt/PPLJRy/99NRXb/312GcPfvjij09++eafj3768Mcv//z012///fjn/69gqqoEAEDIUdmC
oTj/L4iEUkZZpxSJ8YCQzahBhkl1oKF6sOHcQ44ZUJAPGnLQYQc2FlnmqN/tw44bWtEfeWbwSYb3vxjjjEs2+WSUU6a5Zptvxjln
oYcmumijj0Y6aamnprpqq6/GOmuxxya7bLPPRjttueemu26778Y778AFH5zwwg0/HPHEI5d8csort/xyzDMPXfTRSS/d9NNRTz12
2WenvXbbb8c99+CFH5744o0/Hvnko5d+euqrt/567LMPX/zxyS/f/PPRTz9++eenv37778c//3+BHwCoLAALCIDgABBKRklGAAEB
AAABAAEAAAMAAAArYnJvYkV4aWYbHQAABHRjGwcxW6KpvxMJZZRYtIAkD9CW/4seKRkAAAAChGp4bHCAAAAB4FsCEADECQhgCGAI
YP7/DgAAGAAIAAEAAAAAAICAJYki49gJae5YAQBKTgoKCgpscctGxagYY2R0W1uAypJkjIwxMkiIwUrR0dEQDjEihhHREYw9xRWA
+fzHgm0wDwAG45EBYRDyBAEJzzbrXkms0LqRwL4S8DYeWPMCAJi1GJQYCgCvrxk8wYlY7GcBS6obEMQ5gRfogyMAiw9A8EnfBqfa
AEBIsWmRSVfAxnlCvBAKBYdZ6juivv9E88dBzVfewyvjDV8ZQ0CA5zQlga7GdwAAJgCcAGJmdgMA5AkBAGBdAJDfBgAAAAAAAAAA
AAaIPIBaAeVggBhAGAIs9sBRCgWEIUDiSWAQQch6BwAgBwIAAAAjAAAAAAAAAAAAAAAAAAAOAFKoiNz8QprMd0UGKMJsSSYEBhEA
EAgRyBY4LNdrr+h/6i/3LwdbIxeFojutHX5yuA+0ZGJQHf3/UPwfTeknfNR6W+ty9yh+pKCgoKCgoDgzFfCREyKgGDyCVjFGIgS2
YAVcYnA4IqIkmhaDJSJidBhjUOhNilSpHRmAslwz6A4ZMchuq6gwb7dTxDG22zlYWLIl263E79h7l+12vZ1W8W636+12u91SXS+m
fECoD+3X4+SA1pv1+0luQauK+v18LaH9mKNiugjIep9jHCA/aOSKvd2uF/a9y+1qqnu93W7X2y1tQUMj3+2g+XTvejyq0EQJezto
v4S53ZEFtI2PHmfNDtoOI/D3Q/f+Df38ehoavR4d7G8xvfczsvr9ynF2QEXJdj2KImW7LRnist4OJlLZbkd7gGxLG9xjAkq2G+Pq
9X7Cr7+G2l+PmnG36/V640CQQz0=
""")
Y, X = np.mgrid[:64, :96]
PICTURE = np.dstack([X * 255 // 95, Y * 255 // 63, (X + Y) * 255 // 158]).astype(np.uint8)
ADOBE = {"whitepoint": (0.3127, 0.329), "primaries": (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), "gamma": 2.2}


@pytest.mark.parametrize("bits", [4, 8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_come_back_at_their_depth(read, bits, channels):
    kind = np.uint8 if bits <= 8 else np.uint16
    top = 2**bits - 1
    stored = np.random.default_rng(bits).integers(0, top + 1, (23, 29, channels), kind)
    data = imagecodecs.jpegxl_encode(stored if channels > 1 else stored[..., 0], bitspersample=bits, lossless=True)
    image = read(data, name="a.jxl")
    full = 255 if bits <= 8 else 65535
    expected = (stored.astype(np.uint64) * full + top // 2) // top
    colours = channels - (channels in (2, 4))
    np.testing.assert_array_equal(image.pixels, expected[..., :colours])
    assert (image.bit_depth, image.note) == (bits, None)
    if channels in (2, 4):
        np.testing.assert_array_equal(image.alpha, expected[..., colours:])
    else:
        assert image.alpha is None


@pytest.mark.parametrize("container", [False, True])
def test_with_and_without_a_container(read, container):
    data = imagecodecs.jpegxl_encode(PICTURE, lossless=True, usecontainer=container)
    assert data.startswith(b"\xff\x0a") is not container
    np.testing.assert_array_equal(read(data).pixels, PICTURE)


def test_a_lossy_file_with_a_profile_is_converted_and_not_left_in_linear_light(read):
    image = read(LOSSY)
    expected = imagecodecs.cms_transform(
        PICTURE, imagecodecs.cms_profile("rgb", **ADOBE), imagecodecs.cms_profile("srgb"),
        colorspace="rgb", outcolorspace="rgb",
    )  # fmt: skip
    apart = np.abs(image.pixels.astype(int) - expected)[8:-8, 8:-8]
    assert apart.mean() < 3
    assert (image.bit_depth, image.pixels.dtype) == (8, np.uint8)
    assert image.note == "colours converted from the embedded profile to sRGB"


def test_shadows_of_a_lossy_file_with_a_profile_have_all_their_steps(read):
    assert len(np.unique(read(LOSSY).pixels[..., 0])) > 200  # of eight bits of linear light, 150 would be left


def test_a_profile_that_cannot_be_read_is_named(read):
    image = read(LOSSLESS)
    np.testing.assert_array_equal(image.pixels, PICTURE)
    assert image.note == "its colour profile cannot be read: colours are approximate"


def test_linear_light_that_the_file_states_becomes_a_profile(read):
    image = read(
        imagecodecs.jpegxl_encode(PICTURE.astype(np.uint16) * 257, lossless=True)
    )  # linear, where nothing is said
    assert image.icc is not None
    assert image.icc_source == "colour encoding of the JPEG XL file"


def test_a_jpeg_file_inside_is_decoded_as_that_file(read):
    jpeg = imagecodecs.jpegxl_decode_jpeg(OF_JPEG, numthreads=1)
    image = read(OF_JPEG)
    np.testing.assert_array_equal(image.pixels, read(bytes(jpeg)).pixels)
    assert image.pixels.shape == (96, 64, 3)  # upright


def test_of_an_animation_the_first_frame_is_taken(read):
    frames = np.stack([PICTURE, PICTURE[::-1]])
    image = read(imagecodecs.jpegxl_encode(frames, lossless=True, photometric="RGB"))
    np.testing.assert_array_equal(image.pixels, PICTURE)
    assert image.note == "animated JPEG XL: first frame"


@pytest.mark.parametrize("others", [1, 2, 3])
def test_channels_beside_grey_are_ignored_and_not_taken_for_rows(read, others):
    """libjxl's binding gives them as planes, which are no rows."""
    planes = np.stack([PICTURE[..., 0], *[np.full((64, 96), 40 * number, np.uint8) for number in range(others)]])
    image = read(imagecodecs.jpegxl_encode(planes, lossless=True, planar=True, photometric="gray"))
    np.testing.assert_array_equal(image.pixels, PICTURE[..., :1])
    assert image.note == f"channels that are neither colour nor alpha ignored: {others}"


def test_channels_count_against_the_limit(read):
    planes = np.zeros((40, 64, 96), np.uint8)
    data = imagecodecs.jpegxl_encode(planes, lossless=True, planar=True, photometric="gray")
    assert read(data, max_pixels=64 * 96 * 10).pixels.shape == (64, 96, 1)
    with pytest.raises(
        ImageError, match=r"has 40 channels, too many for its size: it is 96 x 640 = .* above the limit"
    ):
        read(data, max_pixels=64 * 96 * 10 - 1)


def test_fractions_have_no_fixed_range(read):
    with pytest.raises(ImageError, match="has 32-bit floating point samples"):
        read(imagecodecs.jpegxl_encode(PICTURE.astype(np.float32) / 255, lossless=True))


@pytest.mark.parametrize("data", [LOSSY, LOSSLESS, OF_JPEG], ids=["lossy", "lossless", "of a JPEG"])
def test_every_truncated_file_is_refused(read, data):
    for length in [*range(2, len(data), len(data) // 40), len(data) - 1]:
        with pytest.raises(ImageError):
            read(data[:length])


@pytest.mark.parametrize("side", [1, 8, 9, 255, 256, 513, 8200])
@pytest.mark.parametrize("other", [1, 8, 9, 255, 256, 513])
def test_the_header_says_the_size(side, other):
    data = imagecodecs.jpegxl_encode(np.zeros((side, other), np.uint8), lossless=True, usecontainer=False)
    header = read_header(bytes(data))
    assert (header.height, header.width) == (side, other)


def test_a_header_that_says_too_much_is_refused_before_decoding(read, monkeypatch):
    data = bytes(imagecodecs.jpegxl_encode(np.zeros((2000, 2000), np.uint8), lossless=True))
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", None)
    with pytest.raises(ImageError, match="is 2000 x 2000 = 4 million pixels, above the limit of 1 million"):
        read(data)
