"""Writes tests/plan/goldens/measurements.json: made-up measurements of a small model in the shape of Qwen2-VL.

Run from the repository root: python3 tests/plan/make_measurements.py (Python 3 alone). Sizes follow the
bitsandbytes layout; errors are drawn from a fixed seed, larger in the first blocks and in the projector.
"""
import json
import math
import random

EMBED, HIDDEN, INNER, KV = 128, 192, 512, 64
random.seed(7)


def bytes4(out, inner):
    n = out * inner
    blocks = math.ceil(n / 64)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [out, inner],
             "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05190518498420715}
    return (n + 1) // 2 + blocks + 4 * 16 + 4 * math.ceil(blocks / 256) + 4 * 256 + len(json.dumps(state))


linears, errors = [], []


def add(name, group, tap, part, role, depth, out, inner, level, rows):
    linears.append({"name": name, "group": group, "tap": tap, "part": part, "role": role, "depth": depth,
                    "shape": [out, inner], "dtype": "BF16", "bytes16": 2 * out * inner,
                    "bytes4": bytes4(out, inner)})
    activation = {}
    for modality in ("vision", "text"):
        n = rows[modality]
        signal = n * out * random.uniform(0.5, 2)
        relative = level * math.exp(random.gauss(0, 0.5))
        activation[modality] = {"rows": n, "noise": signal * relative ** 2 if n else 0, "signal": signal if n else 0}
    errors.append({"name": name, "weight": random.uniform(0.09, 0.1), "largest_block": random.uniform(0.12, 0.2),
                   "activation": activation})


tower = {"vision": 4096, "text": 0}
decoder = {"vision": 1024, "text": 1300}
for d in range(3):
    block, level = f"visual.blocks.{d}", 0.3 / (d + 1)
    add(f"{block}.attn.qkv", f"{block}.attn.qkv", f"{block}.attn.input", "vision", "qkv", d, 3 * EMBED, EMBED, level,
        tower)
    add(f"{block}.attn.proj", f"{block}.attn.proj", f"{block}.attn.proj.input", "vision", "attention_out", d, EMBED,
        EMBED, level / 2, tower)
    add(f"{block}.mlp.fc1", f"{block}.mlp.fc1", f"{block}.mlp.input", "vision", "fc1", d, 4 * EMBED, EMBED, level / 2,
        tower)
    add(f"{block}.mlp.fc2", f"{block}.mlp.fc2", f"{block}.mlp.fc2.input", "vision", "fc2", d, EMBED, 4 * EMBED, level,
        tower)
merger = {"vision": 1024, "text": 0}
for name, out in (("visual.merger.mlp.0", 4 * EMBED), ("visual.merger.mlp.2", HIDDEN)):
    add(name, name, f"{name}.input", "projector", "projector", 0, out, 4 * EMBED, 0.2, merger)
for d in range(4):
    block, level = f"model.layers.{d}", 0.2 / (d + 1)
    for part, role, out in (("q_proj", "q", HIDDEN), ("k_proj", "k", KV), ("v_proj", "v", KV)):
        add(f"{block}.self_attn.{part}", f"{block}.self_attn.qkv", f"{block}.self_attn.input", "text", role, d, out,
            HIDDEN, level, decoder)
    add(f"{block}.self_attn.o_proj", f"{block}.self_attn.o_proj", f"{block}.self_attn.o_proj.input", "text",
        "attention_out", d, HIDDEN, HIDDEN, level / 2, decoder)
    for part, role in (("gate_proj", "gate"), ("up_proj", "up")):
        add(f"{block}.mlp.{part}", f"{block}.mlp.gate_up", f"{block}.mlp.input", "text", role, d, INNER, HIDDEN,
            level / 2, decoder)
    add(f"{block}.mlp.down_proj", f"{block}.mlp.down_proj", f"{block}.mlp.down_proj.input", "text", "down", d, HIDDEN,
        INNER, level, decoder)

other = 2 * 2100 * HIDDEN
record = {
    "nibble": "measurements", "version": 2, "data": ["pictures.txt", "texts.txt"], "samples": 16,
    "rows": {"vision": 4096, "text": 1300}, "compute": "f32", "window": 2048,
    "rounding": {"kind": "plain", "damping": {"vision": 0.0, "text": 0.0}, "guard": 0, "mix": 0.0}, "fuse": True, "effort": "none",
    "inventory": {"nibble": "inventory", "version": 1, "family": "qwen2_vl", "model": "models/made-up",
                  "parameters": other // 2 + sum(x["shape"][0] * x["shape"][1] for x in linears),
                  "other_bytes": other, "linears": linears},
    "errors": errors, "inputs": [], "solo": [],
}
with open("tests/plan/goldens/measurements.json", "w", encoding="utf-8") as file:
    json.dump(record, file, indent=1)
    file.write("\n")
