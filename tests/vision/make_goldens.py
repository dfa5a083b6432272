#!/usr/bin/env python3
"""Makes tests/vision/goldens: small pictures of every kind and what the reference libraries make of them.

Run from the repository root with pillow 13.0.0, numpy 2.4.6 and transformers 4.57.6 installed:
    python tests/vision/make_goldens.py
"""

import hashlib
import io
import json
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

warnings.simplefilter("ignore")
FOLDER = Path(__file__).parent / "goldens"
rng = np.random.default_rng(20)
random.seed(20)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pattern(width, height):
    """The picture that tests/vision/pattern.h makes: (height, width, 3) bytes."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    mixed = (x * 7919 + y * 104729 + c * 1299721 + x * y * 31).astype(np.uint64) * np.uint64(2654435761)
    noise = (mixed >> np.uint64(15)) & np.uint64(255)
    wave = (x * (3 + c) + y * (5 - c)) % 511
    wave = np.where(wave > 255, 510 - wave, wave).astype(np.uint64)
    return np.where((x // 8 + y // 8) % 2 == 0, noise, wave).astype(np.uint8)


def smooth(width, height, channels):
    """A picture-like array: low frequencies and a little noise."""
    planes = []
    for _ in range(channels):
        small = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2), dtype=np.uint8)
        planes.append(np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)))
    noisy = np.stack(planes, -1).astype(int) + rng.integers(-6, 7, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


# PNG -----------------------------------------------------------------------------------------------------------


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_row(samples, depth):
    samples = samples.reshape(-1)
    if depth == 16:
        return samples.astype(">u2").tobytes()
    bits = "".join(format(int(s), f"0{depth}b") for s in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def filtered(row, above, bpp, kind):
    """One row behind its filter byte (PNG specification, section 9)."""
    out = bytearray([kind])
    for i, value in enumerate(row):
        a = row[i - bpp] if i >= bpp else 0
        b = above[i] if above else 0
        c = above[i - bpp] if above and i >= bpp else 0
        p = a + b - c
        paeth = min((a, b, c), key=lambda q: (abs(p - q), (a, b, c).index(q)))
        out.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
    return bytes(out)


def png(samples, depth, color, interlaced=False, before=b"", after=b"", palette=None, parts=3):
    height, width, channels = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes:
        above = None
        if x0 >= width:
            continue
        for n, y in enumerate(range(y0, height, dy)):
            row = pack_row(samples[y, x0::dx], depth)
            raw += filtered(row, above, max(1, channels * depth // 8), n % 5)
            above = row
    packed = zlib.compress(raw, 9)
    size = -(-len(packed) // parts)
    data = b"".join(chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    table = chunk(b"PLTE", palette) if palette is not None else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + table + before + data + after + chunk(b"IEND", b"")


def png_samples(width, height, depth, channels, top=None):
    if top is not None:
        return rng.integers(0, top, (height, width, channels))
    scaled = smooth(width, height, channels).astype(int) * 257
    return scaled >> (16 - depth)


def png_pictures():
    channels_of = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    kinds = [(d, 0) for d in (1, 2, 4, 8, 16)] + [(d, 3) for d in (1, 2, 4, 8)]
    kinds += [(d, c) for c in (2, 4, 6) for d in (8, 16)]
    for depth, color in kinds:
        for interlaced in (False, True):
            samples = png_samples(21, 13, depth, channels_of[color])
            entries = 2**depth if interlaced else max(2, 2**depth * 3 // 4)  # some indices beyond the palette
            palette = rng.integers(0, 256, 3 * entries, dtype=np.uint8).tobytes() if color == 3 else None
            name = f"png_c{color}_d{depth}{'_interlaced' if interlaced else ''}.png"
            yield name, png(samples, depth, color, interlaced, palette=palette)
    palette = rng.integers(0, 256, 48, dtype=np.uint8).tobytes()
    yield "png_palette_trns.png", png(
        png_samples(9, 9, 4, 1), 4, 3, palette=palette, before=chunk(b"tRNS", bytes([0, 255, 70, 9]))
    )
    yield "png_palette_one_clear.png", png(
        png_samples(9, 9, 4, 1), 4, 3, palette=palette, before=chunk(b"tRNS", bytes([255, 255, 0, 255]))
    )
    yield "png_palette_missing.png", png(png_samples(9, 9, 2, 1), 2, 3)
    yield "png_grey_trns.png", png(png_samples(9, 9, 8, 1), 8, 0, before=chunk(b"tRNS", b"\0\x80"))
    yield "png_rgb_trns.png", png(png_samples(9, 9, 8, 3), 8, 2, before=chunk(b"tRNS", b"\0\1\0\2\0\3"))
    yield "png_rgb_palette_hint.png", png(png_samples(9, 9, 8, 3), 8, 2, palette=palette)
    yield "png_grey16_low.png", png(png_samples(12, 9, 16, 1, top=600), 16, 0)
    for width, height in ((1, 1), (1, 7), (5, 1), (3, 2), (4, 4)):
        yield f"png_interlaced_{width}x{height}.png", png(png_samples(width, height, 8, 3), 8, 2, True)
    # An animation whose first frame is the picture, and one whose picture is no frame.
    frame = struct.pack(">IIIIIHHBB", 0, 9, 9, 0, 0, 1, 10, 0, 0)
    second = struct.pack(">IIIIIHHBB", 1, 9, 9, 0, 0, 1, 10, 0, 0)
    pixels = zlib.compress(bytes(10 * 9))
    animation = chunk(b"acTL", struct.pack(">II", 2, 0))
    late_exif = chunk(b"eXIf", exif(6))  # belongs to nothing: it follows the second frame's header
    tail = chunk(b"fcTL", second) + chunk(b"fdAT", struct.pack(">I", 2) + pixels) + late_exif
    yield "png_animated.png", png(
        png_samples(9, 9, 8, 1), 8, 0, before=animation + chunk(b"fcTL", frame), after=tail
    )
    yield "png_default_image.png", png(png_samples(9, 9, 8, 1), 8, 0, before=animation)


# Orientation ---------------------------------------------------------------------------------------------------


def exif(value, endian="<", kind=3, count=1, extra=0):
    """A TIFF block with `extra` other entries before the orientation tag."""
    formats = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
    data = struct.pack(endian + "II", value * 2, 2) if kind == 5 else struct.pack(endian + formats[kind], value)
    data *= count
    offset = 8 + 2 + 12 * (extra + 1) + 4
    field = struct.pack(endian + "I", offset) if len(data) > 4 else data.ljust(4, b"\0")
    entries = b"".join(
        struct.pack(endian + "HHI", 256 + i, 3, 1) + struct.pack(endian + "HH", i, 0) for i in range(extra)
    )
    entries += struct.pack(endian + "HHI", 274, kind, count) + field
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", 8)
    return head + struct.pack(endian + "H", extra + 1) + entries + struct.pack(endian + "I", 0) + data


def xmp(value):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{value}"/></x:xmpmeta>'.encode()


def raw_profile(block):
    digits = block.hex().encode()
    lines = b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return b"Raw profile type exif\0" + f"\nexif\n{len(block):8}\n".encode() + lines + b"\n"


def saved(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def oriented_pictures():
    rgb = smooth(11, 7, 3)
    for value in range(10):
        endian = "<>"[value % 2]
        block = exif(value, endian, extra=value % 3)
        yield f"exif_{value}.jpg", saved(rgb, "JPEG", quality=90, exif=b"Exif\0\0" + block)
        yield f"exif_{value}.png", png(rgb, 8, 2, before=chunk(b"eXIf", block))
        yield f"exif_{value}.webp", saved(rgb, "WEBP", lossless=True, exif=block)
    blocks = {
        "long": exif(6, kind=4),
        "double": exif(6, ">", kind=12),
        "rational": exif(6, kind=5),
        "signed": exif(6, ">", kind=8),
        "two_values": exif(6, count=2),
        "three_values": exif(6, ">", count=3),
        "cut": exif(6, extra=1)[:-8],
        "early_cut": exif(6, extra=2)[:24],
        "empty": b"",
        "byte_order_only": b"II",
        "no_tiff": b"XX" + exif(6)[2:],
        "big_tiff": b"II+\0" + exif(6)[4:],
        "far_offset": b"II*\0" + struct.pack("<I", 1 << 31) + exif(6)[8:],
        "huge_count": exif(6, kind=12, count=1).replace(struct.pack("<I", 1), struct.pack("<I", 0xFFFFFFFF), 1),
    }
    for name, block in blocks.items():
        # Pillow reads the EXIF of a JPEG without resolution when it opens the file, and forgives damage there.
        jpeg = saved(rgb, "JPEG", quality=90)
        app1 = b"Exif\0\0" + block
        yield f"exif_{name}.jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:]
    yield "exif_twice.jpg", saved(rgb, "JPEG", exif=b"Exif\0\0Exif\0\0" + exif(8))
    yield "exif_late.png", png(rgb, 8, 2, after=chunk(b"eXIf", exif(5)))
    yield "exif_prefixed.png", png(rgb, 8, 2, before=chunk(b"eXIf", b"Exif\0\0" + exif(7)))
    profile = raw_profile(b"Exif\0\0" + exif(6, ">"))
    key, text = profile.split(b"\0", 1)
    yield "profile_text.png", png(rgb, 8, 2, before=chunk(b"tEXt", profile))
    yield "profile_packed.png", png(rgb, 8, 2, after=chunk(b"zTXt", key + b"\0\0" + zlib.compress(text)))
    yield "profile_international.png", png(rgb, 8, 2, before=chunk(b"iTXt", key + b"\0\0\0\0\0" + text))
    xmp_key = b"XML:com.adobe.xmp\0"
    yield "xmp.jpg", saved(rgb, "JPEG", xmp=xmp(6))
    yield "xmp_and_exif.jpg", saved(rgb, "JPEG", xmp=xmp(6), exif=b"Exif\0\0" + exif(3))
    yield "xmp.png", png(rgb, 8, 2, before=chunk(b"iTXt", xmp_key + b"\0\0\0\0" + xmp(8)))
    yield "xmp_packed.png", png(rgb, 8, 2, before=chunk(b"iTXt", xmp_key + b"\1\0\0\0" + zlib.compress(xmp(5))))
    yield "xmp_element.png", png(
        rgb, 8, 2, before=chunk(b"tEXt", xmp_key + b"<tiff:Orientation>7</tiff:Orientation>")
    )
    yield "xmp.webp", saved(rgb, "WEBP", lossless=True, xmp=xmp(6))
    yield "exif_prefixed.webp", saved(rgb, "WEBP", exif=b"Exif\0\0" + exif(6))


# JPEG and WebP -------------------------------------------------------------------------------------------------


def cmyk(width, height):
    return Image.merge("CMYK", [Image.fromarray(smooth(width, height, 1)[..., 0]) for _ in range(4)])


def jpeg_pictures():
    for progressive in (False, True):
        tail = "_progressive" if progressive else ""
        for subsampling in (0, 1, 2):
            yield f"jpeg_rgb_{subsampling}{tail}.jpg", saved(
                smooth(37, 22, 3), "JPEG", quality=75, subsampling=subsampling, progressive=progressive
            )
        yield f"jpeg_grey{tail}.jpg", saved(smooth(20, 17, 1)[..., 0], "JPEG", progressive=progressive)
        buffer = io.BytesIO()
        cmyk(19, 18).save(buffer, "JPEG", progressive=progressive)
        yield f"jpeg_cmyk{tail}.jpg", buffer.getvalue()
        adobe = buffer.getvalue().index(b"Adobe")
        as_ycck = bytearray(buffer.getvalue())
        as_ycck[adobe + 11] = 2
        yield f"jpeg_ycck{tail}.jpg", bytes(as_ycck)
    yield "jpeg_stored_rgb.jpg", saved(smooth(18, 18, 3), "JPEG", keep_rgb=True)
    yield "jpeg_restarts.jpg", saved(smooth(40, 24, 3), "JPEG", restart_marker_blocks=2)
    yield "jpeg_quality_1.jpg", saved(smooth(33, 33, 3), "JPEG", quality=1)
    yield "jpeg_1x1.jpg", saved(smooth(1, 1, 3), "JPEG")
    yield "jpeg_1x30.jpg", saved(smooth(1, 30, 3), "JPEG")
    whole = saved(smooth(32, 32, 3), "JPEG", quality=90)
    yield "jpeg_cut_but_ended.jpg", whole[: len(whole) * 2 // 3] + b"\xff\xd9"


def webp_pictures():
    rgba = smooth(23, 17, 4)
    rgba[..., 3] = np.where(rgba[..., 3] > 150, 255, np.where(rgba[..., 3] < 60, 0, rgba[..., 3]))
    for name, array in (("rgb", smooth(23, 17, 3)), ("rgba", rgba)):
        yield f"webp_{name}_lossy.webp", saved(array, "WEBP", quality=70)
        yield f"webp_{name}_lossless.webp", saved(array, "WEBP", lossless=True)
        yield f"webp_{name}_exact.webp", saved(array, "WEBP", lossless=True, exact=True)
        yield f"webp_{name}_animated.webp", saved(
            array, "WEBP", save_all=True, append_images=[Image.fromarray(array[::-1].copy())], duration=100
        )
    yield "webp_1x1.webp", saved(smooth(1, 1, 3), "WEBP")


def readable_from(data):
    """Lengths from which on, by turns, the starts of the file are and are not pictures to Pillow."""
    changes = []
    for length in range(len(data) + 1):
        try:
            Image.open(io.BytesIO(data[:length])).convert("RGB")
            readable = True
        except Exception:
            readable = False
        if readable != (len(changes) % 2 == 1):
            changes.append(length)
    return changes


def make_pictures():
    records = []
    for source in (png_pictures, jpeg_pictures, webp_pictures, oriented_pictures):
        for name, data in source():
            (FOLDER / "pictures" / name).write_bytes(data)
            stored = Image.open(io.BytesIO(data)).convert("RGB")
            upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            record = {"file": name, "stored": [*stored.size, sha(stored.tobytes())]}
            record["upright"] = [*upright.size, sha(upright.tobytes())]
            if source is not oriented_pictures:
                record["readable_from"] = readable_from(data)
            records.append(record)
    return records


# Resizing and preprocessing ------------------------------------------------------------------------------------


def make_resizes():
    sizes = [(64, 48, 28, 28), (64, 48, 200, 150), (100, 100, 7, 7), (13, 200, 100, 10), (200, 13, 10, 100)]
    sizes += [(1, 1, 50, 40), (50, 40, 1, 1), (1, 77, 3, 5), (77, 1, 5, 3), (40, 30, 40, 17), (40, 30, 23, 30)]
    sizes += [(3000, 2, 5, 3), (2, 3000, 3, 5), (300, 200, 299, 199), (5, 5, 640, 2), (31, 17, 31, 17)]
    # Either side of Pillow 13's choice of the first pass: height - new height against twice width - new width.
    sizes += [(60, 90, 50, 70), (60, 90, 50, 69), (60, 90, 50, 71), (60, 90, 61, 89), (60, 90, 61, 91)]
    sizes += [tuple(random.randint(1, 120) for _ in range(4)) for _ in range(40)]
    records = []
    for width, height, new_width, new_height in sizes:
        picture = Image.fromarray(pattern(width, height))
        for name, code in (("bilinear", 2), ("bicubic", 3), ("lanczos", 1), ("box", 4), ("hamming", 5)):
            resized = picture.resize((new_width, new_height), code)
            records.append([width, height, new_width, new_height, name, sha(resized.tobytes())])
    return records


def make_smart_sizes():
    records = []
    cases = [(h, w, 28, 3136, 1003520) for h in (1, 13, 14, 15, 42, 70, 98) for w in (1, 14, 28, 41, 42, 43, 70)]
    cases += [(1, 200, 28, 3136, 1003520), (1, 201, 28, 3136, 1003520), (201, 1, 28, 3136, 1003520)]
    cases += [(10, 2000, 28, 3136, 1003520), (10, 2001, 28, 3136, 1003520), (5, 5, 28, 0, 1003520)]
    cases += [(4000, 3000, 28, 3136, 1), (16000, 11000, 28, 3136, 12845056), (9, 9, 28, 10**9, 10**10)]
    for _ in range(300):
        side = [int(2 ** random.uniform(0, 13)) for _ in range(2)]
        limits = (int(2 ** random.uniform(0, 22)), int(2 ** random.uniform(4, 25)))
        cases.append((*side, random.choice((28, 28, 14, 32, 7)), *limits))
    for case in cases:
        try:
            records.append([*case, *smart_resize(*case)])
        except ValueError:
            records.append([*case, -1, -1])
    return records


def make_patches():
    plain = {"min_pixels": 3136, "max_pixels": 12845056}
    cases = [
        (64, 48, {}),
        (64, 48, plain),
        (200, 100, {"min_pixels": 784, "max_pixels": 6000}),
        (30, 40, {"min_pixels": 6000}),
        (56, 84, {"do_resize": False}),
        (57, 84, {"do_resize": False}),
        (40, 40, {"resample": 2}),
        (40, 40, {"do_rescale": False}),
        (40, 40, {"do_normalize": False}),
        (40, 40, {"do_rescale": False, "do_normalize": False, "do_convert_rgb": False}),
        (40, 40, {"image_mean": [0.5, 0.25, 1.5], "image_std": [0.5, 0.25, 3]}),
        (40, 40, {"image_mean": 0.5, "image_std": 0.5, "rescale_factor": 0.0078125}),
        (96, 64, {"patch_size": 16, "temporal_patch_size": 1, "merge_size": 1}),
        (96, 64, {"patch_size": 8, "temporal_patch_size": 3, "merge_size": 3}),
        (10, 1, {}),
        (10, 2, {}),
        (10, 3, {}),
        (2, 10, {}),
        (1, 200, {}),
        (1, 201, {}),
    ]
    records = []
    for width, height, config in cases:
        record = {"width": width, "height": height, "config": config}
        try:
            output = Qwen2VLImageProcessor(**config)(images=[Image.fromarray(pattern(width, height))])
            values = np.ascontiguousarray(np.asarray(output["pixel_values"]).astype(np.float32))
            record["grid"] = [int(n) for n in output["image_grid_thw"][0]]
            record["shape"] = list(values.shape)
            record["first"] = [float(v) for v in values.reshape(-1)[:4]]
            record["sha256"] = sha(values.tobytes())
        except ValueError:
            record["sha256"] = ""
        records.append(record)
    return records


def write(name, goldens):
    """A JSON file of lists, one record a line."""
    lines = [f' "{key}": [\n  ' + ",\n  ".join(json.dumps(r) for r in rows) + "\n ]" for key, rows in goldens.items()]
    (FOLDER / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    (FOLDER / "pictures").mkdir(parents=True, exist_ok=True)
    goldens = {
        "pictures": make_pictures(),
        "resizes": make_resizes(),
        "smart_sizes": make_smart_sizes(),
        "patches": make_patches(),
    }
    write("goldens.json", goldens)


if __name__ == "__main__":
    main()
