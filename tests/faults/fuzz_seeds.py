"""Good input for the fuzzer: one small file of each kind that a reader knows."""

from __future__ import annotations

import io
import json
import struct
import zlib

import imagecodecs
import numpy as np
import onnx
import pillow_heif
import tifffile
from onnx import TensorProto, helper
from PIL import Image, ImageCms
from safetensors.numpy import save

from pipelines.demo_images import MAGNETIC_TILE
from pipelines.images.write import encode_image
from pipelines.models.model_file import METADATA_KEY

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (19, 23), np.uint8)
SMOOTH = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (5, 6, 3), np.uint8)).resize((31, 27)))
DEEP = SMOOTH.astype(np.uint16) * 257 + 3
PICTURE = Image.fromarray(SMOOTH)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DIGEST = "0" * 64


def images() -> list[bytes]:
    """Of every format, in most of the ways that it stores pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = PICTURE.convert("RGBA")
    clear.putalpha(PICTURE.convert("L"))
    few, turned = PICTURE.quantize(30), PICTURE.rotate(90)
    files = [
        saved(PICTURE, "PNG", exif=exif, icc_profile=PROFILE, dpi=(300, 300)),
        saved(few, "PNG", transparency=3),
        saved(PICTURE.convert("1"), "PNG"),
        saved(clear, "PNG"),
        saved(PICTURE, "PNG", save_all=True, append_images=[turned]),
        imagecodecs.png_encode(DEEP),
        *(interlaced(pixels) for pixels in (SMOOTH, DEEP, GREY)),
        saved(PICTURE, "JPEG", exif=exif, icc_profile=PROFILE),
        saved(PICTURE, "JPEG", progressive=True, dpi=(72, 72)),
        *(saved(PICTURE, kind, exif=_photograph()) for kind in ("JPEG", "PNG", "TIFF")),
        saved(PICTURE.convert("L"), "JPEG"),
        saved(PICTURE.convert("CMYK"), "JPEG"),
        saved(PICTURE, "JPEG", restart_marker_blocks=2),
        saved(PICTURE, "JPEG")[:-2] + b"left over\xff\xd9 after the end",
        imagecodecs.jpeg8_encode(DEEP >> 4, bitspersample=12),
        imagecodecs.jpeg8_encode(DEEP, bitspersample=16, lossless=True),
        imagecodecs.jpegls_encode(SMOOTH),
        imagecodecs.jpegls_encode(DEEP[..., 0].copy(), level=2),
        saved(few, "GIF", save_all=True, append_images=[turned.quantize(30)]),
        saved(few, "GIF", transparency=2, interlace=1),
        *(saved(PICTURE.convert(mode), "BMP") for mode in ("RGB", "L", "1")),
        saved(few, "BMP"),
        saved(PICTURE, "WEBP", lossless=True, exif=exif, icc_profile=PROFILE),
        saved(clear, "WEBP", quality=80),
        saved(PICTURE, "WEBP", save_all=True, append_images=[turned]),
        imagecodecs.jpeg2k_encode(DEEP, codecformat="JP2", level=0),
        imagecodecs.jpeg2k_encode(GREY, codecformat="J2K", level=0),
        saved(PICTURE, "JPEG2000", tile_size=(16, 16)),
        *_netpbm(),
        *_tiffs(),
        *_photographs(exif, clear, turned),
    ]
    files += [encode_image(kind, SMOOTH, icc=PROFILE, dpi=(90, 90))[0] for kind in ("png", "tiff", "webp", "jpeg")]
    tile = Image.open(next((MAGNETIC_TILE / "test" / "crack").iterdir()))
    return [*files, saved(tile.crop((0, 0, 64, 48)), "JPEG")]


def _photographs(exif: Image.Exif, clear: Image.Image, turned: Image.Image) -> list[bytes]:
    """HEIC, AVIF and JPEG XL, of telephones and of the web."""
    files = [
        saved(PICTURE, "AVIF", exif=exif, icc_profile=PROFILE),
        saved(clear, "AVIF", quality=60),
        saved(PICTURE, "AVIF", save_all=True, append_images=[turned.resize(PICTURE.size)]),
        imagecodecs.avif_encode(DEEP >> 6, level=90, bitspersample=10),
        imagecodecs.jpegxl_encode(SMOOTH, lossless=True),
        imagecodecs.jpegxl_encode(DEEP, lossless=True),
        imagecodecs.jpegxl_encode(SMOOTH, distance=1.0, usecontainer=True),
        imagecodecs.jpegxl_encode(np.asarray(clear), lossless=True, usecontainer=False),
        imagecodecs.jpegxl_encode_jpeg(saved(PICTURE, "JPEG", icc_profile=PROFILE, exif=exif)),
    ]
    files.append(files[2].replace(b"meta", b"free", 1).replace(b"avif", b"iso8"))  # a sequence alone
    ways: list[tuple[str, np.ndarray, dict[str, object]]] = [
        ("RGB", SMOOTH, {"icc_profile": PROFILE}),
        ("L", GREY, {}),
        ("RGBA", np.asarray(clear), {"quality": 60}),
        ("RGB;16", DEEP, {"quality": -1}),
        ("RGB", np.tile(SMOOTH, (6, 6, 1)), {"tile_size": 64}),
    ]
    for mode, pixels, options in ways:
        height, width = pixels.shape[:2]
        file = pillow_heif.from_bytes(mode=mode, size=(width, height), data=np.ascontiguousarray(pixels).tobytes())
        file[0].info["exif"] = exif.tobytes()
        buffer = io.BytesIO()
        file.save(buffer, **options)
        files.append(buffer.getvalue())
    return files


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """By Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def interlaced(pixels: np.ndarray) -> bytes:
    """A PNG file of seven passes, which no library at hand writes."""
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, colour, 0, 0, 1)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = [b"\x00" + row.tobytes() for x, y, dx, dy in passes for row in big_endian[y::dy, x::dx]]
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _netpbm() -> list[bytes]:
    plain = b" ".join(b"%d" % value for value in GREY[:3, :4].ravel())
    return [
        b"P1\n# plain\n4 3\n0101 1010\n0011",
        b"P2 4 3 255\n" + plain,
        b"P3 2 2 255\n" + plain,
        b"P4 23 19\n" + np.packbits(GREY > 99, axis=1).tobytes(),
        b"P5 23 19 255\n" + GREY.tobytes(),
        b"P6\n31 27\n65535\n" + DEEP.astype(">u2").tobytes(),
    ]


def _tiffs() -> list[bytes]:
    wide = np.dstack([DEEP, DEEP[..., :1]])
    ways = [
        (GREY, {"photometric": "miniswhite"}),
        (GREY > 99, {"photometric": "minisblack"}),
        (SMOOTH, {"tile": (16, 16), "compression": "zlib", "predictor": True}),
        (SMOOTH, {"compression": "jpeg", "rowsperstrip": 8}),
        (SMOOTH, {"compression": "jpegxr", "photometric": "rgb"}),
        (SMOOTH, {"compression": "jpeg2000", "photometric": "rgb"}),
        (np.dstack([SMOOTH, GREY[0, 0] * np.ones_like(SMOOTH[..., :1])]), {"photometric": "separated"}),
        (DEEP, {"planarconfig": "contig", "compression": "lzw", "iccprofile": PROFILE, "resolution": (72, 72)}),
        (np.moveaxis(DEEP, 2, 0), {"planarconfig": "separate", "photometric": "rgb"}),
        (wide, {"photometric": "rgb", "extrasamples": ["assocalpha"], "bigtiff": True}),
        (GREY, {"byteorder": ">", "compression": "packbits"}),
        (np.stack([GREY, GREY]), {"photometric": "minisblack"}),
    ]
    place = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0, 0, 5e5, 4.6e6, 0), True),
        (34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True), (301, 3, 256, tuple(range(0, 65536, 256)), True),
    ]  # fmt: skip
    ways += [
        (GREY, {"photometric": "minisblack", "extratags": place}),
        (GREY, {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) // 3}),
        (np.stack([GREY, GREY]), {"imagej": True, "resolution": (3, 3), "metadata": {"unit": "micron", "axes": "ZYX"}}),
        (GREY, {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}}),
    ]
    files = [_thumbnail_first()]
    for pixels, options in ways:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **options)
        files.append(buffer.getvalue())
    kinds = ("group3", "group4", "tiff_ccitt", "tiff_lzw", "tiff_adobe_deflate")
    files += [saved(PICTURE.convert("1"), "TIFF", compression=kind) for kind in kinds]
    return [*files, saved(PICTURE.convert("1"), "TIFF", compression="group3", tiffinfo={292: 5})]


def _thumbnail_first() -> bytes:
    """With the picture in its sub-directory, and a mask behind."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(SMOOTH[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(SMOOTH, photometric="rgb", metadata=None)
        file.write(GREY > 99, photometric="minisblack", subfiletype=4, metadata=None)
    return buffer.getvalue()


def _photograph() -> bytes:
    """An EXIF block of three directories."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a maker", 6
    exif.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    return exif.tobytes()


def jobs() -> list[bytes]:
    """The least that works, and a file that uses every table."""
    least = b'name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "good"\n'
    return [
        least,
        least + b'licence = "CC0"\nmax_images = 9\n[model]\ntarget = "features"\nsize = [48, 40]\nstrides = [8, 16]\n'
        b'vae = "deep"\nexperts = ["memory"]\nlevels = 2\nscore = "ratio"\n'
        b'classes = ["a", "b"]\nbackbone_weights = "w.safetensors"\n[train]\nsteps = 40\nminutes = 2.5\nbeta = 1.0\n'
        b'corruption = "perlin"\nseed = 3\n[calibrate]\nfalse_alarms = 0.05\nfraction = 0.2\n[promote]\n'
        b'rule = "always"\n[schedule]\ntrain = "1d"\nscore = "*/5 2 * * 1-5"\nfolder = "in"\nout = "out"\nbudget = 3\n'
        b'overlap = "queue"\ntimezone = "Europe/Berlin"\n',
        b'task = "denoise"\nname = "d"\ndata = {train = "clean"}\nmodel.network = "S"\nmodel.level = 25.0\n'
        b'schedule = {restore = "6h", folder = "a", out = "b"}\n',
    ]


def overrides() -> list[bytes]:
    """Of `--set`."""
    return [b"train.steps=500", b"model.size=[48, 40]", b"name=other", b"schedule.train=1d", b"data.train='x'"]


def metadata() -> list[bytes]:
    """Of a model that scores."""
    known = {
        "format": 1, "name": "tiles", "task": "reconstruct", "summary": "Finds.", "channels": 1, "bit_depth": 8,
        "value_range": [0, 255], "size_multiple": 1, "halo": None, "likelihood": "gaussian", "licence": None,
        "outputs": {"score": "nats", "anomaly_map": "nats"}, "git_commit": None, "data_digest": "0",
        "images": {"train": 9}, "kintsugi": "0.1.0", "size": [48, 40], "target": "pixels", "backbone": None,
        "strides": [1], "places": [6, 5], "stages": 2, "smooth": "both", "dims": 1920, "latent_shape": [4, 6, 5],
        "samples": 2, "score": "-ELBO / D", "experts": [["linear_vae", 0.5], ["memory", 0.5]],
    }  # fmt: skip
    return [json.dumps(known).encode()]


def with_metadata(text: bytes) -> bytes:
    """The smallest ONNX file that has an output `score`, and this as its metadata, whatever it is."""
    value = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["score"])], "g", [image], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    mark = b"@" * len(text)  # the library takes text only; other bytes are put in its place
    onnx.helper.set_model_props(model, {METADATA_KEY: mark.decode()})
    return model.SerializeToString().replace(mark, text) if text else model.SerializeToString()


def calibrations() -> list[bytes]:
    """With all that it may hold."""
    known = {
        "format": 1, "model_sha256": DIGEST, "scores": [0.5, 1.0, 1.5, 2.0], "false_alarms": 0.2,
        "map_quantiles": {"0.5": 0.1, "0.99": 1.0, "0.999": 2.0, "1.0": 3.0},
        "statistics": {"brightness": [0.1, 0.2], "contrast": [0.3, 0.4]},
        "places": {"places": 99, "shares": [0.5, 0.1, 0.01], "values": [0.0, 1.0, 2.0]},
        "groups": {"a": [0.5, 1.0], "b": [1.5, 2.0]},
    }  # fmt: skip
    return [json.dumps(known).encode()]


def galleries() -> list[bytes]:
    """Three good images."""
    tensors = {
        "embedding": RANDOM.normal(size=(3, 8)).astype(np.float32),
        "thumbnail": RANDOM.integers(0, 256, (3, 12, 12, 3), np.uint8),
        "thumbnail_size": np.array([[12, 9]] * 3, np.int32),
    }
    return [save(tensors, {"names": json.dumps(["a.png", "b.png", "c.png"]), "model_sha256": DIGEST})]
