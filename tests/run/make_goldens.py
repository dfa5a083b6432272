"""Goldens of the forward pass: what transformers computes in fp32 with models/qwen2-vl-tiny.

Run from the repository root with transformers 4.57.6, torch 2.15.0, safetensors, numpy
(tests/interop/requirements-4.txt): python tests/run/make_goldens.py
Writes tests/run/goldens/qwen2_vl.safetensors. Inputs are token ids and made-up pixels, so that neither a tokenizer nor
an image decoder takes part. For each prompt:
    NAME.ids, NAME.grids        the prompt; pixels are those of pixels() below
    NAME.positions, NAME.next   M-RoPE positions (3, tokens) and that of the next token
    NAME.logits                 of the last LAST tokens
    NAME.greedy                 up to LIMIT tokens, the end token not included
and for one of them the outputs of MODULES, as MODULE.output with the module's published name.
Further prompts have positions only; patches.* are the rows and columns of the patches of some grids.
"""

import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Qwen2VLForConditionalGeneration

MODEL = "models/qwen2-vl-tiny"
START, END, IMAGE = 2043, 2044, 2046
PATCH_FEATURES = 3 * 2 * 14 * 14
LAST, LIMIT = 2, 24
# A golden text must be the only right one: each choice beats the next best by this much of the largest logit, a
# hundred times what fp32 sums in another order differ by.
MARGIN = 1e-4
MODULES = [
    "visual.patch_embed", "visual.blocks.0.norm1", "visual.blocks.0.attn.qkv", "visual.blocks.0.attn",
    "visual.blocks.0", "visual.blocks.5", "visual.merger.ln_q", "visual.merger",
    "model.layers.0.input_layernorm", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
    "model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.0", "model.layers.7", "model.norm",
]  # fmt: skip


def pixels(grids):
    """Pixel i of all pictures, numbered as they lie: a hash of i, as a multiple of 2^-11 in [-2, 2)."""
    count = sum(t * h * w for t, h, w in grids) * PATCH_FEATURES
    i = np.arange(count, dtype=np.uint64)
    values = ((i * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)) >> np.uint64(19)).astype(np.float32) / 2048 - 2
    return torch.from_numpy(values).reshape(-1, PATCH_FEATURES)


def picture(grid):
    t, h, w = grid
    return [START] + [IMAGE] * (t * h * w // 4) + [END]


def words(seed, count):
    """Ids of ordinary tokens."""
    return np.random.default_rng(seed).integers(20, 2000, count).tolist()


SMALL, WIDE, TALL = (1, 4, 4), (1, 4, 10), (1, 8, 2)
PROMPTS = {
    "one": (words(1, 3) + picture(SMALL) + words(2, 5), [SMALL]),
    "two": (words(3, 2) + picture(WIDE) + words(4, 3) + picture(TALL) + words(15, 4), [WIDE, TALL]),
    "text": (words(6, 13), []),
}
POSITIONS_ONLY = {
    "first_and_last": (picture(TALL) + words(7, 2) + picture(WIDE), [TALL, WIDE]),
    "neighbours": (words(8, 1) + picture(SMALL) + picture(WIDE) + picture(SMALL) + words(9, 2), [SMALL, WIDE, SMALL]),
    "large": (words(10, 4) + picture((1, 36, 22)) + words(11, 3), [(1, 36, 22)]),
    "single_token": (words(12, 1), []),
}
PATCH_GRIDS = {"wide": (1, 4, 6), "tall": (1, 8, 2), "two_frames": (2, 4, 4)}


def published(module):
    """A module's published name, from its name in transformers' module tree."""
    return module.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1)


def watch(model, seen):
    """Hooks that put the outputs of MODULES into `seen`; takes itself off again with the handles it gives."""

    def keep(name):
        def hook(_, __, output):
            output = output[0] if isinstance(output, tuple) else output
            seen[f"{name}.output"] = output.reshape(-1, output.shape[-1]).clone()

        return hook

    modules = {published(name): module for name, module in model.named_modules()}
    return [modules[name].register_forward_hook(keep(name)) for name in MODULES]


def greedy(model, inputs):
    """Greedy tokens; fails when a choice is close."""
    ends = {model.generation_config.eos_token_id} if isinstance(model.generation_config.eos_token_id, int) else set(
        model.generation_config.eos_token_id)  # fmt: skip
    done = model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT, output_logits=True, return_dict_in_generate=True)
    for logits in done.logits:
        best = logits[0].topk(2).values
        assert best[0] - best[1] > MARGIN * logits.abs().max(), "two tokens are about equally likely: choose another seed"
    tokens = done.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens[:-1] if tokens[-1] in ends else tokens


def inputs_of(ids, grids):
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if grids:
        inputs |= {"pixel_values": pixels(grids), "image_grid_thw": torch.tensor(grids)}
    return inputs


def main():
    torch.set_grad_enabled(False)
    model = Qwen2VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    out = {}
    for name, (ids, grids) in (PROMPTS | POSITIONS_ONLY).items():
        inputs = inputs_of(ids, grids)
        positions, delta = model.model.get_rope_index(inputs["input_ids"], inputs.get("image_grid_thw"))
        out[f"{name}.ids"] = inputs["input_ids"][0]
        if grids:
            out[f"{name}.grids"] = inputs["image_grid_thw"]
        out[f"{name}.positions"] = positions[:, 0]
        out[f"{name}.next"] = (len(ids) + delta).reshape(1)
    for name, (ids, grids) in PROMPTS.items():
        handles = watch(model, out) if name == "one" else []
        logits = model(**inputs_of(ids, grids)).logits[0]
        for handle in handles:
            handle.remove()
        out[f"{name}.logits"] = logits[-LAST:]
        out[f"{name}.greedy"] = torch.tensor(greedy(model, inputs_of(ids, grids)))
    visual = model.model.visual
    for name, grid in PATCH_GRIDS.items():
        # The first frequency of either axis is 1, so its angle is the position itself.
        angles = visual.rot_pos_emb(torch.tensor([grid]))
        places = torch.stack([angles[:, 0], angles[:, angles.shape[1] // 2]], dim=1)
        out[f"patches.{name}.grid"] = torch.tensor(grid)
        out[f"patches.{name}.places"] = places.round().long()
    path = pathlib.Path(__file__).parent / "goldens" / "qwen2_vl.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, path, metadata={"format": "pt"})
    print(path, path.stat().st_size, {n: out[f"{n}.greedy"].tolist() for n in PROMPTS})


if __name__ == "__main__":
    main()
