"""transformers loads what nibble wrote for every family, with plain from_pretrained, and computes what nibble computes.

Run by tests/interop/run as: python test_families.py WORK (made by family_cases.py)
"""

import json
import pathlib
import sys
import tempfile

import bitsandbytes
import torch
import transformers
from safetensors.torch import load_file, save_file

import decode4
import readers
from checks import Checks, expect, expect_equal, expect_same_set

# fp32 sums in another order: logits agree to about 1e-6 of the largest; a wrong op or weight shows far above 1e-4.
LOGITS = 1e-4
# LLM.int8 rounds activations to 127 steps: one that fp32 noise moves to the next step shows as about 1/127 of one
# product. A wrong weight or a missing outlier shows far above.
LOGITS_8 = 1e-2
PICTURES = {"llava", "mllama"}
IN_TREE = {
    "llava": (("language_model.model.", "model.language_model."), ("vision_tower", "model.vision_tower"),
              ("multi_modal_projector", "model.multi_modal_projector")),
    "mllama": (("language_model.model.", "model.language_model."), ("vision_model", "model.vision_model"),
               ("multi_modal_projector", "model.multi_modal_projector")),
}  # fmt: skip


def in_module_tree(family, name):
    for ours, theirs in IN_TREE.get(family, ()):
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def load(case, folder, **options):
    kind = transformers.AutoModelForImageTextToText if case["family"] in PICTURES else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, **options).eval()


def check_modules(case, model):
    """The modules of the plan's format are the plan's, and 4-bit ones decode to what the format says."""
    plan = json.loads((pathlib.Path(case["folder"]) / "nibble.json").read_text())["plan"]
    wanted = {in_module_tree(case["family"], d["name"]): d["name"] for d in plan["decisions"] if not d["keep"]}
    kind = bitsandbytes.nn.Linear8bitLt if case["format"] == "int8" else bitsandbytes.nn.Linear4bit
    modules = {name: m for name, m in model.named_modules() if isinstance(m, kind)}
    expect_same_set(modules, wanted, f"{kind.__name__} modules")
    tensors = decode4.read_tensors(pathlib.Path(case["folder"]))
    if case["format"] == "int8":
        for name, module in modules.items():
            expect(torch.equal(module.weight.data, tensors[wanted[name] + ".weight"]), f"codes of {name}")
            expect(torch.equal(module.weight.SCB, tensors[wanted[name] + ".SCB"]), f"scales of {name}")
        return f"{len(modules)} of {len(plan['decisions'])} linears in 8 bits"
    states = decode4.quantized_linears(tensors)
    for name, module in modules.items():
        expect(torch.equal(module.weight.data, tensors[wanted[name] + ".weight"]), f"codes of {name}")
        if module.in_features % 64:
            continue  # bitsandbytes' AVX-512 decoder is wrong there; the codes are what they should be
        ours = decode4.decode(tensors, wanted[name], states[wanted[name]])
        expect(torch.equal(ours, readers.decode_module(module)), f"decoded weight of {name}")
    return f"{len(modules)} of {len(plan['decisions'])} linears in 4 bits"


def inputs_of(case):
    trace = load_file(case["trace"])
    inputs = {k: v for k, v in trace.items() if not k.endswith(".output") and k != "logits"}
    inputs["input_ids"] = inputs["input_ids"][None]
    if case["family"] == "mllama":  # from the image token on, the tiles of the one picture
        image = json.loads((pathlib.Path(case["folder"]) / "config.json").read_text())["image_token_index"]
        seen = (inputs["input_ids"] == image).cumsum(1)
        inputs["cross_attention_mask"] = seen[:, :, None, None] * inputs["aspect_ratio_mask"][:, None]
    return inputs, trace["logits"]


def check_logits(case, model, limit):
    inputs, ours = inputs_of(case)
    logits = model(**inputs).logits[0]
    expect_equal(ours.shape, logits.shape, "shape of logits")
    difference = ((ours - logits).abs().max() / logits.abs().max()).item()
    expect(difference <= limit, f"logits differ by {difference:g} of the largest")
    return f"logits within {difference:.1e} of the largest"


def carrier(case):
    """An fp32 model with the weights that the checkpoint decodes to."""
    folder = pathlib.Path(case["folder"])
    with tempfile.TemporaryDirectory() as temporary:
        target = pathlib.Path(temporary)
        config = json.loads((folder / "config.json").read_text())
        config.pop("quantization_config", None)
        (target / "config.json").write_text(json.dumps(config))
        tensors = decode4.decoded_checkpoint(decode4.read_tensors(folder))
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return load(case, target, dtype=torch.float32)


def in_fp32(model):
    """An 8-bit model whose other parameters are fp32; to() is refused for quantized models in some versions."""
    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return model


def main():
    work = pathlib.Path(sys.argv[1])
    checks = Checks(f"transformers {transformers.__version__} reads every family")
    for case in json.loads((work / "families.json").read_text()):
        model = load(case, case["folder"])
        checks.run(f"{case['name']}, modules", check_modules, case, model)
        if case["format"] == "int8":
            checks.run(f"{case['name']}, logits", check_logits, case, in_fp32(model), LOGITS_8)
        else:
            checks.run(f"{case['name']}, logits", check_logits, case, carrier(case), LOGITS)
    checks.finish()


if __name__ == "__main__":
    main()
