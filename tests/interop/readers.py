"""What transformers makes of a checkpoint and of a prompt. Works with transformers 4.57 and 5."""

import copy
import json
import pathlib
import shutil
import tempfile

import bitsandbytes
import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.image_utils import load_image

import decode4

if transformers.__version__.startswith("4."):
    from transformers import Qwen2TokenizerFast as Tokenizer
    from transformers import Qwen2VLImageProcessor as ImageProcessor
else:  # the image processor that computes with Pillow and numpy, as the one of transformers 4 does
    from transformers import AutoTokenizer as Tokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil as ImageProcessor

torch.set_grad_enabled(False)
torch.set_num_threads(1)  # tests/interop/run tests two versions side by side


def in_module_tree(name):
    """The name of a module in transformers' module tree, from its published name or that name itself."""
    if name.startswith(("model.visual.", "model.language_model.")):
        return name
    for ours, theirs in (("visual.", "model.visual."), ("model.", "model.language_model.")):
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def load(folder, **options):
    """Plain from_pretrained."""
    return Qwen2VLForConditionalGeneration.from_pretrained(folder, **options).eval()


def linear4_modules(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def decode_module(module):
    """The weight of a Linear4bit as bitsandbytes decodes it; ask before the module has computed anything.

    Decoded in fp32 and then rounded, as its CUDA kernels do. On a CPU, 0.48 rounds the 16 values of the code to the
    weight's dtype before it multiplies, which moves up to a fifth of the results by an ulp.
    """
    state = copy.copy(module.weight.quant_state)
    dtype, state.dtype = state.dtype, torch.float32
    return bitsandbytes.functional.dequantize_4bit(module.weight.data, state).to(dtype)


def load_carrier(folder):
    """An fp32 model with the weights that a checkpoint decodes to, and its config.json without quantization."""
    with tempfile.TemporaryDirectory() as carrier:
        write_carrier(folder, pathlib.Path(carrier))
        model, info = Qwen2VLForConditionalGeneration.from_pretrained(
            carrier, dtype=torch.float32, output_loading_info=True
        )
    head_is_tied = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    missing = [k for k in info["missing_keys"] if not (head_is_tied and k == "lm_head.weight")]
    assert not missing and not info["unexpected_keys"], f"{folder}: {missing} {info['unexpected_keys']}"
    return model.eval()


def write_carrier(folder, carrier):
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (carrier / "config.json").write_text(json.dumps(config))
    if (folder / "generation_config.json").exists():
        shutil.copy(folder / "generation_config.json", carrier)
    tensors = decode4.decoded_checkpoint(decode4.read_tensors(folder))
    save_file(tensors, carrier / "model.safetensors", metadata={"format": "pt"})


class Prompts:
    """The processor of a checkpoint."""

    def __init__(self, folder):
        # Classes by name: AutoProcessor cannot combine the slow image processor with the fast tokenizer in either.
        template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
        tokenizer = Tokenizer.from_pretrained(folder)
        videos = transformers.Qwen2VLVideoProcessor.from_pretrained(folder)
        self.processor = Qwen2VLProcessor(ImageProcessor.from_pretrained(folder), tokenizer, videos, template)
        self.processor.tokenizer.padding_side = "left"

    def inputs(self, samples):
        """A left-padded batch of samples {"prompt", "images": [...], "raw": bool}."""
        texts, pictures = [], []
        for sample in samples:
            content = [{"type": "image"} for _ in sample["images"]] + [{"type": "text", "text": sample["prompt"]}]
            turn = [{"role": "user", "content": content}]
            chat = self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            texts.append(sample["prompt"] if sample.get("raw") else chat)
            pictures += [load_image(path) for path in sample["images"]]
        return self.processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")

    def greedy(self, model, samples, limit=64, batch=32):
        """Greedy text for each sample."""
        out = []
        for begin in range(0, len(samples), batch):
            inputs = self.inputs(samples[begin : begin + batch])
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=limit)
            answers = ids[:, inputs["input_ids"].shape[1] :]
            out += self.processor.batch_decode(answers, skip_special_tokens=True)
        return out
