"""Writes goldens/: safetensors files as the library writes them, and JSON texts with Python's json.dumps of them.

Run from the repository root with Python 3.11, torch 2.x, safetensors 0.8.0 and numpy: python tests/io/make_goldens.py
"""

import json
import pathlib
import random

import torch
from safetensors.torch import save_file

GOLDENS = pathlib.Path(__file__).parent / "goldens"
DTYPES = ["float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def tensor(dtype, shape, seed):
    """A tensor whose byte i is (31 i + seed) mod 256, and i mod 2 for bool."""
    dtype = getattr(torch, dtype)
    n = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    bits = [i % 2 if dtype == torch.bool else (31 * i + seed) % 256 for i in range(n)]
    return torch.tensor(bits, dtype=torch.uint8).view(dtype).reshape(shape) if n else torch.empty(shape, dtype=dtype)


def save(name, tensors):
    save_file(tensors, GOLDENS / name, metadata={"format": "pt"})


def safetensors_files():
    rng = random.Random(1)
    types = {f"{name}.{dtype}": tensor(dtype, [3, 5], 7 * k) for k, dtype in enumerate(DTYPES) for name in "ba"}
    keys = sorted(types, key=lambda _: rng.random())
    save("dtypes.safetensors", {k: types[k] for k in keys})
    names = ["", " ", 'a"b', "a\\b", "a/b", "é", "日本", "\U0001F600", "a\nb", "\b\f\r\t", "\x01\x1f", "\x7f", "\u2028",
             "<>&'", "model.layers.10.weight", "model.layers.9.weight", "A", "a", "_", "a.b", "a-b", "ab", "\u00ff"]
    save("names.safetensors", {n: tensor("float32", [1], k) for k, n in enumerate(names)})
    save("shapes.safetensors", {
        "scalar": tensor("float32", [], 1), "byte": tensor("uint8", [], 2), "empty": tensor("float32", [0], 0),
        "empty.2d": tensor("bfloat16", [4, 0], 0), "odd": tensor("uint8", [7], 3), "half": tensor("float16", [3], 4),
        "bytes": tensor("int8", [5], 5), "rank": tensor("int16", [1, 2, 1, 3, 1], 6)})
    save("none.safetensors", {})
    for length in range(8):  # every remainder of the header's length by 8
        save(f"padding{length}.safetensors", {"x" * (length + 1): tensor("uint8", [1], length)})


def json_files():
    value = {
        "b": 1, "a": [], "object": {}, "nested": {"list": [1, [2, {"x": None}], "t"], "empty": [[], {}]},
        "numbers": [0, -1, 9007199254740993, 18446744073709551615, -9223372036854775808, 0.0, -0.0, 1e-05, 0.0001,
                    123456.0, 1e16, 6.0, 1.5, 5e-324, 1e-06, 500000.0, 0.05190518498420715],
        "true": True, "false": False, "null": None,
        "text": "é 日本 \U0001F600 \u2028 \" \\ / \b\f\n\r\t \x01\x1f\x7f <>&'", "": "empty key", "ключ": "x",
    }
    (GOLDENS / "value.json").write_text(json.dumps(value), encoding="utf-8")
    (GOLDENS / "value.dumped.json").write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
    index = {"metadata": {"total_size": 60},
             "weight_map": {"b.weight": "model-00001-of-00002.safetensors", "b.bias": "model-00001-of-00002.safetensors",
                            "a.weight": "model-00002-of-00002.safetensors"}}
    # As transformers' save_pretrained writes it.
    (GOLDENS / "index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


GOLDENS.mkdir(exist_ok=True)
safetensors_files()
json_files()
