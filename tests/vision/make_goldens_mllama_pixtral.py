#!/usr/bin/env python3
"""Makes tests/vision/goldens/mllama_pixtral.json: sizes and pixels that the slow image processors give.

Run from the repository root with pillow 13.0.0, numpy 2.4.6 and transformers 4.57.6 installed:
    python tests/vision/make_goldens_mllama_pixtral.py
"""

import random

import numpy as np
from make_goldens import pattern, sha, write
from PIL import Image
from transformers.models.mllama import image_processing_mllama as mllama
from transformers.models.pixtral import image_processing_pixtral as pixtral

random.seed(57)

# Sizes ---------------------------------------------------------------------------------------------------------


def random_side(top):
    return int(2 ** random.uniform(0, np.log2(top)))


def make_canvases():
    """Height, width, max_image_tiles, tile size; canvas in tiles, size in it, aspect ratio id."""
    sides = (1, 55, 56, 57, 112, 113, 224, 448, 449)
    cases = [(h, w, 4, 112) for h in sides for w in sides]
    cases += [(h, w, n, 100) for n in (1, 2, 3, 6, 12) for h, w in ((100, 100), (1, 5000), (5000, 1), (300, 299))]
    cases += [(3, 40000, 4, 560), (40000, 3, 4, 560), (9999, 10000, 4, 560), (7, 5, 16, 1), (7, 5, 64, 3)]
    for _ in range(300):
        cases.append((random_side(5000), random_side(5000), random.randint(1, 16), random.randint(1, 600)))
    records = []
    for height, width, most, tile in cases:
        canvas = mllama.get_optimal_tiled_canvas(height, width, most, tile)
        size = mllama.get_image_size_fit_to_canvas(height, width, *canvas, tile)
        grid = tuple(int(side) // tile for side in canvas)
        ids = mllama.convert_aspect_ratios_to_ids([[grid]], most)
        records.append([height, width, most, tile, *grid, *(int(n) for n in size), int(ids[0, 0])])
    return records


def make_pixtral_sizes():
    """Height, width, limits of height and width, patch size; height and width in whole patches."""
    cases = [(h, w, 512, 512, 16) for h in (1, 16, 17, 511, 512, 513, 1024) for w in (1, 15, 32, 512, 600, 2000)]
    cases += [(2, 3000, 1024, 1024, 16), (3000, 2, 1024, 1024, 16), (7, 7, 3, 5, 2), (4000, 3000, 1540, 1540, 28)]
    for _ in range(300):
        limits = (random_side(2000),) * 2 if random.random() < 0.7 else (random_side(2000), random_side(2000))
        cases.append((random_side(9000), random_side(9000), *limits, random.choice((16, 14, 28, 8, 3))))
    records = []
    for height, width, *limits, patch in cases:
        picture = np.broadcast_to(np.uint8(0), (height, width, 3))
        size = pixtral.get_resize_output_image_size(picture, tuple(limits), patch, "channels_last")
        records.append([height, width, *limits, patch, *size])
    return records


# Pixels --------------------------------------------------------------------------------------------------------


def record_of(width, height, config, rows, **more):
    values = np.ascontiguousarray(rows.reshape(len(rows), -1).astype(np.float32))
    first = [float(v) for v in values.reshape(-1)[:4]]
    return {
        "width": width, "height": height, "config": config, **more,
        "shape": list(values.shape), "first": first, "sha256": sha(values.tobytes()),
    }  # fmt: skip


def make_tiles():
    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    small = {"size": {"height": 56, "width": 56}}
    cases = [(w, h, {**small, **clip, "resample": 2}) for w, h in ((30, 20), (56, 56), (57, 56), (150, 40), (40, 150))]
    cases += [(w, h, small) for w, h in ((1, 1), (1, 90), (90, 1), (3, 2), (50, 3), (3, 50), (400, 390), (2, 500))]
    cases += [
        (300, 200, {}),
        (90, 40, {**small, "max_image_tiles": 1}),
        (40, 200, {**small, "max_image_tiles": 9}),
        (90, 40, {**small, "resample": 3}),
        (90, 40, {**small, "resample": 1}),
        (90, 40, {**small, "do_rescale": False}),
        (90, 40, {**small, "do_normalize": False}),
        (90, 40, {**small, "do_rescale": False, "do_normalize": False, "do_convert_rgb": False}),
        (90, 40, {**small, "rescale_factor": 0.0078125, "image_mean": 0.25, "image_std": 1.5}),
        (9, 5, {"size": {"height": 1, "width": 1}}),
    ]
    records = []
    for width, height, config in cases:
        processor = mllama.MllamaImageProcessor(**config)
        output = processor(images=[Image.fromarray(pattern(width, height))])
        number, aspect_id = output["num_tiles"][0][0], int(output["aspect_ratio_ids"][0][0])
        grid = mllama.get_all_supported_aspect_ratios(processor.max_image_tiles)[aspect_id - 1]
        mask = np.asarray(output["aspect_ratio_mask"])[0, 0]
        assert mask.tolist() == [1] * number + [0] * (processor.max_image_tiles - number)
        tiles = np.asarray(output["pixel_values"])[0, 0, :number]
        records.append(record_of(width, height, config, tiles, grid=list(grid), id=aspect_id))
    return records


def make_patches():
    small = {"size": {"longest_edge": 64}}
    cases = [(w, h, small) for w, h in ((30, 20), (64, 48), (65, 48), (200, 90), (90, 200), (1, 50), (3, 2), (50, 2))]
    cases += [(w, h, small) for w, h in ((50, 3), (3, 3), (200, 3), (50, 1), (1, 1), (2, 200), (200, 2))]
    cases += [
        (300, 200, {}),
        (90, 40, {**small, "patch_size": 14}),
        (90, 40, {**small, "patch_size": [8, 8]}),
        (90, 40, {**small, "patch_size": {"height": 4, "width": 4}}),
        (90, 40, {"size": {"height": 20, "width": 70}, "patch_size": 8}),
        (90, 40, {**small, "resample": 2}),
        (90, 40, {**small, "do_rescale": False}),
        (90, 40, {**small, "do_normalize": False}),
        (90, 40, {**small, "do_rescale": False, "do_normalize": False, "do_convert_rgb": False}),
        (90, 40, {**small, "rescale_factor": 0.0078125, "image_mean": [0.5, 0.25, 1.5], "image_std": 0.5}),
        (48, 32, {"do_resize": False}),
        (50, 40, {"do_resize": False}),
        (50, 15, {"do_resize": False}),
    ]
    records = []
    for width, height, config in cases:
        try:
            processor = pixtral.PixtralImageProcessor(**config)
            output = processor(images=[Image.fromarray(pattern(width, height))])
            pixels, patch = np.asarray(output["pixel_values"])[0], processor.patch_size["height"]
            grid = [int(side) // patch for side in output["image_sizes"][0]]
            if 0 in grid:
                raise ValueError("the convolution has no place")
        except ValueError:
            records.append({"width": width, "height": height, "config": config, "sha256": ""})
            continue
        whole = pixels[:, : grid[0] * patch, : grid[1] * patch]
        patches = whole.reshape(3, grid[0], patch, grid[1], patch).transpose(1, 3, 0, 2, 4)
        rows = patches.reshape(grid[0] * grid[1], -1)
        records.append(record_of(width, height, config, rows, grid=grid))
    return records


def main():
    goldens = {
        "canvases": make_canvases(),
        "tiles": make_tiles(),
        "pixtral_sizes": make_pixtral_sizes(),
        "patches": make_patches(),
    }
    write("mllama_pixtral.json", goldens)


if __name__ == "__main__":
    main()
