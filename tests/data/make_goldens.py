"""Goldens of whole prompts, from text and picture files to the answer: transformers in fp32, models/qwen2-vl-tiny.

Run from the repository root with transformers 4.57.6, torch 2.15.0, tokenizers 0.22.2, pillow 13.0.0
(tests/interop/requirements-4.txt): python tests/data/make_goldens.py
Writes into tests/data/goldens: prompts.json (prompt, pictures, greedy text of each), prompts.safetensors (NAME.ids;
NAME.logits of the last token; NAME.grids) and pictures/, two pictures that must be resized to fit the patch grid.
"""

import json
import pathlib

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers.image_utils import load_image

MODEL = "models/qwen2-vl-tiny"
SHIPPED = "pictures/evaluation/images"
OUT = pathlib.Path("tests/data/goldens")
LIMIT = 40
MARGIN = 1e-4  # of the largest logit: see tests/run/make_goldens.py
PROMPTS = {
    "png": ("Describe this image.", [f"{SHIPPED}/0000.png"]),
    "jpeg": ("Describe this image.", [f"{SHIPPED}/0003.jpg"]),
    "choice": (
        "What color is the train?\nA. red\nB. purple\nC. black\nD. orange\nAnswer with the letter.",
        [f"{SHIPPED}/0000.png"],
    ),
    "two_sizes": ("Describe this image.", [f"{SHIPPED}/0002.png", f"{OUT}/pictures/turned.jpg"]),
    "resized": ("Describe this image.", [f"{OUT}/pictures/small.webp"]),
    "text": ("Name a color. Grüße, 世界! 12345", []),
}


def make_pictures():
    """A JPEG whose EXIF says that it lies on its side, and a lossless WebP with a palette's few colours."""
    folder = OUT / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(f"{SHIPPED}/0001.png").resize((90, 61)).save(folder / "turned.jpg", quality=80, exif=turned)
    Image.open(f"{SHIPPED}/0003.jpg").resize((75, 50)).quantize(64).convert("RGB").save(
        folder / "small.webp", lossless=True
    )


def processor():
    tokenizer = transformers.Qwen2TokenizerFast.from_pretrained(MODEL)
    images = transformers.Qwen2VLImageProcessor.from_pretrained(MODEL)  # the slow one
    videos = transformers.Qwen2VLVideoProcessor.from_pretrained(MODEL)
    template = json.loads(pathlib.Path(MODEL, "chat_template.json").read_text())["chat_template"]
    return transformers.Qwen2VLProcessor(images, tokenizer, videos, template)


def greedy(model, inputs):
    """Greedy tokens without the end token; fails when a choice is close."""
    done = model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT, output_logits=True, return_dict_in_generate=True)
    for logits in done.logits:
        best = logits[0].topk(2).values
        assert best[0] - best[1] > MARGIN * logits.abs().max(), "two tokens are about equally likely: choose another prompt"
    return done.sequences[0, inputs["input_ids"].shape[1] :]


def main():
    torch.set_grad_enabled(False)
    make_pictures()
    prepare = processor()
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    tensors, records = {}, []
    for name, (prompt, images) in PROMPTS.items():
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompt}]
        chat = prepare.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        inputs = prepare(text=[chat], images=[load_image(i) for i in images] or None, return_tensors="pt")
        tensors[f"{name}.ids"] = inputs["input_ids"][0]
        if images:
            tensors[f"{name}.grids"] = inputs["image_grid_thw"]
        tensors[f"{name}.logits"] = model(**inputs).logits[0, -1:].contiguous()
        text = prepare.tokenizer.decode(greedy(model, inputs), skip_special_tokens=True)
        records.append({"name": name, "prompt": prompt, "images": images, "text": text})
    save_file(tensors, OUT / "prompts.safetensors", metadata={"format": "pt"})
    document = json.dumps({"limit": LIMIT, "prompts": records}, indent=2, ensure_ascii=False)
    (OUT / "prompts.json").write_text(document + "\n", encoding="utf-8")
    print(document)


if __name__ == "__main__":
    main()
