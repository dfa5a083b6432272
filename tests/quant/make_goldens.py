"""Goldens of the 4-bit formats: what bitsandbytes itself writes and reads, on CPU, as hashes.

Run once with each pinned version, from the repository root:
    python tests/quant/make_goldens.py        (bitsandbytes 0.48.2, torch >= 2.8)
    python tests/quant/make_goldens.py        (bitsandbytes 0.50.2, torch >= 2.8)
Each writes tests/quant/goldens/bitsandbytes_<version>.json.

The CUDA rule is the standard. bitsandbytes on CPU leaves it in places, and the cases keep out of them:
- 0.48.2 rounds y in the tail block to the weight's 16 bits, cannot encode odd counts, crashes on a
  double-quantization block of zeros, and replaces the first entry of the dynamic map by -1 (so no absmax may fall
  beside it); its FP4 tables are rounded to four digits.
- 0.50.2 gives zero blocks the byte 0x77 and scales subnormal blocks otherwise; its double quantization looks up a
  table of 65536 cells (so only blocks of zeros are taken from it).
- Both find FP4 codes and double-quantization codes by other arithmetic on values within rounding of a threshold:
  inputs here keep away from them.
"""

import hashlib
import json
import pathlib
import sys

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch

VERSION = bitsandbytes.__version__
FP4_THRESHOLDS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333])
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def samples(seed, count):
    """Sums of four 16-bit numbers of splitmix64, minus 131070: bell-shaped whole numbers, exact everywhere."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    parts = sum(((z >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.int64) for s in (0, 16, 32, 48))
    return (parts - 131070).astype(np.float32)


def weight(case):
    count = int(np.prod(case["shape"], dtype=np.int64))
    x = samples(case["seed"], count) * np.float32(case["scale"])
    if case["zero_every"]:
        x[(np.arange(count) // 64) % case["zero_every"] == 0] = 0
    return torch.from_numpy(x).to(DTYPES[case["dtype"]]).reshape(case["shape"])


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def hits_threshold(w, block):
    """True when an element of w is within rounding of an FP4 threshold."""
    x = w.float().numpy().reshape(-1)
    for begin in range(0, x.size, block):
        y = np.abs(x[begin : begin + block].astype(np.float64))
        y = y / max(y.max(), 1e-300)
        if np.min(np.abs(y[:, None] / FP4_THRESHOLDS - 1)) < 1e-6:
            return True
    return False


def hits_midpoint(w, block):
    """True when an absmax is as near to one map entry as to another, within rounding, or beside the first one."""
    absmax = F.quantize_4bit(w, quant_type="nf4", blocksize=block)[1].absmax.double().numpy()
    d = absmax - absmax.mean()
    m = F.create_dynamic_map().double().numpy()
    middle = (m[1:] + m[:-1]) / 2
    for begin in range(0, d.size, 256):
        block = d[begin : begin + 256]
        y = block / np.abs(block).max()
        if y.min() < -0.98 or np.min(np.abs(y[:, None] - middle)) < 2e-7:
            return True
    return False


def clear(case, w):
    if case["double_quant"] and w.numel() > case["block"] and hits_midpoint(w, case["block"]):
        return False
    return case["format"] == "nf4" or not hits_threshold(w, case["block"])


def run(case):
    w = weight(case)
    while not clear(case, w):
        case["seed"] += 1
        w = weight(case)
    packed, state = F.quantize_4bit(w, quant_type=case["format"], blocksize=case["block"],
                                    compress_statistics=case["double_quant"])
    out = dict(case)
    tensors = state.as_dict(packed=True)
    out["tensors"] = {"." + k: [str(v.dtype)[6:], list(v.shape)] for k, v in sorted(tensors.items())}
    out["tensors"][""] = [str(packed.dtype)[6:], list(packed.shape)]
    state_key = next(k for k in tensors if k.startswith("quant_state"))
    out["state"] = bytes(tensors[state_key].numpy()).decode()
    if case["format"] == "nf4":  # FP4 codes of values near zero differ; the decoded values do not
        out["codes"] = sha(packed.numpy())
    out["quant_map"] = sha(state.code.numpy())
    if case["double_quant"]:
        out["q"] = sha(state.absmax.numpy())
        out["nested_absmax"] = sha(state.state2.absmax.numpy())
        out["nested_offset_bits"] = int(state.offset.numpy().view(np.uint32))
    else:
        out["absmax"] = sha(state.absmax.numpy())
    # One row of fp32 takes the paths of both versions that follow the rule; then round as the rule says.
    state.dtype, state.shape = torch.float32, torch.Size([w.numel()])
    decoded = F.dequantize_4bit(packed, state).reshape(-1) + 0.0
    assert decoded.dtype == torch.float32
    out["decoded_f32"] = sha(decoded.numpy())
    out["decoded_bf16"] = sha(decoded.bfloat16().view(torch.int16).numpy())
    out["decoded_f16"] = sha(decoded.half().view(torch.int16).numpy())
    return out


def cases():
    def case(fmt, dtype, shape, scale=1e-6, dq=False, block=64, zero_every=0, seed=1):
        return {"format": fmt, "dtype": dtype, "shape": list(shape), "seed": seed, "scale": float(np.float32(scale)),
                "zero_every": zero_every, "block": block, "double_quant": dq}

    old = VERSION == "0.48.2"
    for dtype in DTYPES:
        for shape in [(4, 96), (1, 64), (64,), (2, 3, 5, 8), (96, 160), (2, 1), (1, 100)]:
            yield case("nf4", dtype, shape)
        for block in (128, 256, 512, 1024, 2048, 4096):
            yield case("nf4", dtype, (65, 66), block=block)
    for dtype in ("bfloat16", "float32"):
        for scale in (2.5e33, 1e-3, 1e-35, 1e-41 if old else 1e-36):
            yield case("nf4", dtype, (32, 48), scale=scale, seed=2)
    for scale in (0.4, 1e-9, 1e-12 if old else 1e-10):
        yield case("nf4", "float16", (32, 48), scale=scale, seed=3)
    if old:
        for dtype in DTYPES:
            yield case("nf4", dtype, (16, 72), zero_every=3)
            yield case("nf4", dtype, (4, 64), zero_every=1)
            yield case("fp4", dtype, (4, 64), zero_every=1)
            for shape in [(400, 128), (96, 160), (300, 256)]:
                yield case("nf4", dtype, shape, dq=True)
        return
    for dtype in DTYPES:
        for shape in [(1, 1), (1, 3), (7, 9), (65, 65), (65,)]:
            yield case("nf4", dtype, shape)
        for shape in [(1, 1), (1, 64), (3, 17)]:
            yield case("nf4", dtype, shape, dq=True)
        yield case("fp4", dtype, (1, 1))
    for seed in (4, 5):
        for dtype in ("float16", "float32"):
            for shape in [(4, 96), (7, 9), (33, 65), (96, 160)]:
                yield case("fp4", dtype, shape, seed=seed)
            yield case("fp4", dtype, (65, 66), block=256, seed=seed)


def wanted(case):
    tail = int(np.prod(case["shape"])) % case["block"] != 0
    return not (VERSION == "0.48.2" and tail and case["dtype"] != "float32")


def main():
    if VERSION not in ("0.48.2", "0.50.2"):
        sys.exit(f"bitsandbytes {VERSION}: pinned are 0.48.2 and 0.50.2")
    path = pathlib.Path(__file__).parent / "goldens" / f"bitsandbytes_{VERSION}.json"
    lines = [json.dumps(run(c)) for c in cases() if wanted(c)]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
