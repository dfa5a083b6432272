"""bitsandbytes' 4-bit layout in plain numpy: what the bytes of a checkpoint mean, apart from every library.

A quantized linear X has X.weight U8 (two codes a byte, the first in the high nibble), X.weight.absmax (fp32, or codes
of the map X.weight.nested_quant_map scaled by X.weight.nested_absmax, plus nested_offset), X.weight.quant_map (the
16 values) and X.weight.quant_state.bitsandbytes__{nf4,fp4} (JSON).
"""

import json

import numpy as np
import torch
from safetensors import safe_open

STATE = ".quant_state.bitsandbytes__"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def read_tensors(folder):
    """All tensors of a checkpoint folder by name, and that no name occurs in two files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                assert name not in tensors, f"{path}: {name} is in two files"
                tensors[name] = file.get_tensor(name)
    return tensors


def quantized_linears(tensors):
    """Stored name of each 4-bit linear -> its quant_state JSON."""
    out = {}
    for name, tensor in tensors.items():
        if STATE in name:
            linear, kind = name.split(".weight" + STATE)
            state = json.loads(tensor.numpy().tobytes())
            assert state["quant_type"] == kind, f"{name}: says {state['quant_type']}"
            out[linear] = state
    return out


def absmax_of(tensors, linear, state):
    """fp32 absmax of every block; with double quantization two roundings: code * scale, then + offset."""
    absmax = tensors[f"{linear}.weight.absmax"].numpy().reshape(-1)
    if "nested_offset" not in state:
        return absmax
    table = tensors[f"{linear}.weight.nested_quant_map"].numpy()
    scale = tensors[f"{linear}.weight.nested_absmax"].numpy()
    scales = np.repeat(scale, state["nested_blocksize"])[: absmax.size]
    return (table[absmax] * scales + np.float32(state["nested_offset"])).astype(np.float32)


def decode(tensors, linear, state):
    """The weight in the dtype that it had: value * absmax in fp32, then rounded to nearest even."""
    packed = tensors[f"{linear}.weight"].numpy().reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
    count = int(np.prod(state["shape"]))
    values = tensors[f"{linear}.weight.quant_map"].numpy()[codes[:count]]
    blocks = np.repeat(absmax_of(tensors, linear, state), state["blocksize"])[:count]
    return torch.from_numpy(values * blocks).reshape(state["shape"]).to(DTYPES[state["dtype"]])


def decoded_checkpoint(tensors):
    """The plain tensors that a 4-bit checkpoint stands for, in fp32, under the names of its files."""
    states = quantized_linears(tensors)
    out = {}
    for name, tensor in tensors.items():
        linear = name.split(".weight")[0]
        if linear not in states:
            out[name] = tensor.float()
        elif name == f"{linear}.weight":
            out[name] = decode(tensors, linear, states[linear]).float()
        elif ".weight." not in name:
            out[name] = tensor.float()  # its bias
    return out


def nested_codes(weight, offset, table):
    """Double quantization of a weight's absmax with a given offset, for blocks of 64 and 256: codes, scales, and the
    scaled values that the codes stand for. A code is the nearest value of the ascending table; of two, the even one.
    """
    flat = weight.float().numpy().reshape(-1)
    flat = np.pad(flat, (0, -flat.size % 64)).reshape(-1, 64)
    rest = np.abs(flat).max(axis=1) - np.float32(offset)
    groups = np.pad(rest, (0, -rest.size % 256)).reshape(-1, 256)
    scales = np.abs(groups).max(axis=1)
    x = (groups * (np.float32(1) / scales)[:, None]).reshape(-1)[: rest.size].astype(np.float64)
    right = np.clip(np.searchsorted(table, x), 1, len(table) - 1)
    down, up = x - table[right - 1], table[right] - x
    nearer_right = (up < down) | ((up == down) & (right % 2 == 0))
    return np.where(nearer_right, right, right - 1).astype(np.uint8), scales, x
