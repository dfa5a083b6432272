"""nibble reads the 4-bit checkpoints that transformers and bitsandbytes write themselves.

Run by tests/interop/run as: python test_read.py NIBBLE WORK (made by cases.py)
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from transformers import BitsAndBytesConfig

import cases
import decode4
import readers
from checks import Checks, expect, expect_equal, expect_same_set

KINDS = {
    # name: options of BitsAndBytesConfig
    "nf4_double": {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nf4": {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False},
    "fp4_double": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    "fp4": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
    "nf4_skip": {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": ["lm_head", "model.visual.blocks.2.mlp.fc1", "model.language_model.layers.3.mlp.up_proj"],
    },
}
SKIPPED = ["visual.blocks.2.mlp.fc1", "model.layers.3.mlp.up_proj"]


def write_checkpoint(folder, options):
    """What transformers makes of the shipped model; tokenizer and processor files are copied beside it."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **options)
    model = readers.load(cases.MODEL, quantization_config=config, dtype=torch.bfloat16)
    cases.copy_side_files(folder)
    model.save_pretrained(folder)


def check_storage(binary, folder, kind):
    """nibble inspect says for each linear how it is stored."""
    storage = json.loads(cases.nibble(binary, "inspect", folder, "--json"))["storage"]["linears"]
    quantized = decode4.quantized_linears(decode4.read_tensors(folder))
    expect_same_set([n for n, s in storage.items() if s["stored"] != "bf16"], quantized, "4-bit linears")
    for name, state in quantized.items():
        expect_equal(storage[name]["stored"], state["quant_type"], name)
    skipped = SKIPPED if kind == "nf4_skip" else []
    expect_same_set([n for n in storage if n not in quantized], skipped, "linears in 16 bits")
    return f"{len(quantized)} linears"


def check_text(binary, folder, samples, prompts, work):
    """nibble's greedy text is that of an fp32 model with the decoded weights."""
    ours = cases.answers(binary, folder, work / "last.jsonl", work)
    theirs = prompts.greedy(readers.load_carrier(folder, work), samples)
    for sample, a, b in zip(samples, ours, theirs, strict=True):
        expect(a == b, f"{sample['prompt']!r}: nibble {a!r}, transformers {b!r}")
    image = ["--image", samples[0]["images"][0]]
    said = cases.nibble(binary, "generate", folder, *image, "--prompt", samples[0]["prompt"], "--compute", "f32")
    expect_equal(said, theirs[0] + "\n", "generate")
    return f"{len(samples)} answers"


def check_bytes(theirs_folder, ours_folder):
    """NF4 of bf16 weights is byte-equal. The mean of absmax may differ by 2 ulp, the order of its sum not being
    defined; both files' double quantization must follow from the mean that they state."""
    theirs, ours = decode4.read_tensors(theirs_folder), decode4.read_tensors(ours_folder)
    source = decode4.read_tensors(cases.MODEL)
    states, our_states = decode4.quantized_linears(theirs), decode4.quantized_linears(ours)
    expect_same_set(our_states, states, "quantized linears")
    other_means = 0
    for name, state in states.items():
        weight = f"{name}.weight"
        for key in (weight, f"{weight}.quant_map"):
            expect(torch.equal(theirs[key], ours[key]), f"{key} differs")
        offset, our_offset = np.float32(state.pop("nested_offset")), np.float32(our_states[name].pop("nested_offset"))
        expect_equal(our_states[name], state, f"quant_state of {name}")
        distance = abs(int(offset.view(np.int32)) - int(our_offset.view(np.int32)))
        expect(distance <= 2, f"{name}: nested_offset {our_offset!r} is not {offset!r}")
        other_means += distance > 0
        table = ours[f"{weight}.nested_quant_map"]
        codes, scales = decode4.nested_codes(source[weight], our_offset, table.numpy())
        expect(np.array_equal(codes, ours[f"{weight}.absmax"].numpy()), f"{weight}.absmax does not follow from the mean")
        expect(np.array_equal(scales, ours[f"{weight}.nested_absmax"].numpy()), f"{weight}.nested_absmax differs")
        if distance == 0:
            for key in ("absmax", "nested_absmax"):
                expect(torch.equal(theirs[f"{weight}.{key}"], ours[f"{weight}.{key}"]), f"{weight}.{key} differs")
    return f"{len(states)} linears, {other_means} with another last bit of the mean"


def main():
    torch.set_num_threads(2)
    binary, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    checks = Checks(f"nibble reads what transformers {transformers.__version__} wrote")
    samples = [json.loads(line) for line in (work / "last.jsonl").read_text().splitlines()]
    prompts = readers.Prompts(cases.MODEL)
    for kind, options in KINDS.items():
        folder = work / "theirs" / kind
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, options)
        checks.run(f"{kind}, storage", check_storage, binary, folder, kind)
        checks.run(f"{kind}, greedy text", check_text, binary, folder, samples, prompts, work)
    checks.run("nf4_double, bytes", check_bytes, work / "theirs" / "nf4_double", work / "out" / "all")
    checks.finish()


if __name__ == "__main__":
    main()
