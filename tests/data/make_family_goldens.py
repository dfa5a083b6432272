"""Goldens of every family: a tiny random model of each, and what transformers computes with it in fp32.

Run from the repository root with transformers 4.57.6, torch 2.15.0, tokenizers 0.22.2, pillow 13.0.0
(tests/interop/requirements-4.txt): python tests/data/make_family_goldens.py
then with transformers 5.23.0 (requirements-5.txt): python tests/data/make_family_goldens.py v5

Writes tests/data/goldens/families/NAME: a checkpoint in bf16 with a byte-level tokenizer, config.v5.json (the same
config as transformers 5 writes it), prompts.json (raw prompt, pictures, text of the greedy answer) and
prompts.safetensors (NUMBER.ids, NUMBER.logits of all tokens, NUMBER.greedy, and the processor's tensors).
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

OUT = pathlib.Path("tests/data/goldens/families")
SHIPPED = pathlib.Path("pictures/evaluation/images")
PICTURES = OUT / "pictures"
LIMIT = 12
MARGIN = 1e-4  # of the largest logit: see tests/run/make_goldens.py
SPECIALS = ["<s>", "</s>", "<|image|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>"]
VOCABULARY = 256 + len(SPECIALS)
ID = {token: 256 + i for i, token in enumerate(SPECIALS)}
IDS = {"bos_token_id": ID["<s>"], "eos_token_id": ID["</s>"], "pad_token_id": ID["<pad>"]}
DECODER = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3,
           "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False, **IDS}  # fmt: skip
# Short original lengths, so that a few dozen tokens show what is scaled.
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
TEXTS = [("The quick brown fox, 1234!", []), ("Ça va? 世界", [])]
ONE, TWO = [SHIPPED / "0000.png"], [PICTURES / "wide.png", SHIPPED / "0003.jpg"]


def llama():
    config = transformers.LlamaConfig(**DECODER, head_dim=16, attention_bias=True, mlp_bias=True,
                                      max_position_embeddings=512, rope_theta=5e5, rope_scaling=LLAMA3)  # fmt: skip
    return transformers.LlamaForCausalLM(config), TEXTS


def phi3():
    config = transformers.Phi3Config(**DECODER, max_position_embeddings=512, partial_rotary_factor=0.5)
    return transformers.Phi3ForCausalLM(config), TEXTS


def phi3_longrope():
    # The first prompt stays below the original length, the second begins above it, and the third grows past it.
    factors = {"short_factor": [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0], "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0]}
    config = transformers.Phi3Config(**{**DECODER, "tie_word_embeddings": True}, max_position_embeddings=512,
                                     original_max_position_embeddings=32,
                                     rope_scaling={"type": "longrope", **factors})  # fmt: skip
    return transformers.Phi3ForCausalLM(config), [("short", []), ("x" * 40, []), ("y" * 27, [])]


def llava():
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
              "num_attention_heads": 4, "head_dim": 8, "image_size": 64, "patch_size": 8, "hidden_act": "silu"}  # fmt: skip
    text = {"model_type": "mistral", **DECODER, "head_dim": 16, "sliding_window": None, "rope_theta": 1e6,
            "max_position_embeddings": 1024}  # fmt: skip
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=ID["[IMG]"],
                                      vision_feature_layer=-2, vision_feature_select_strategy="full")  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config)
    return model, [("[IMG]what?", ONE), ("one [IMG] two [IMG]three", TWO), ("none", [])]


def mllama():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_global_layers": 2,
              "attention_heads": 4, "image_size": 32, "patch_size": 8, "max_num_tiles": 4,
              "intermediate_layers_indices": [0, 2], "vision_output_dim": 96}  # fmt: skip
    text = {**DECODER, "num_hidden_layers": 4, "cross_attention_layers": [1, 3], "rope_theta": 5e5,
            "rope_scaling": LLAMA3, "max_position_embeddings": 512}  # fmt: skip
    # The image token is the first id behind the vocabulary, as published.
    text["vocab_size"] = ID["<|image|>"]
    text.update(eos_token_id=ID["</s>"], pad_token_id=ID["</s>"])
    config = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=ID["<|image|>"])
    model = transformers.MllamaForConditionalGeneration(config)
    prompts = [("<|image|>what?", ONE), ("a <|image|> b <|image|>c", TWO), ("<|image|><|image|>both", TWO), ("none", [])]
    return model, prompts


FAMILIES = {"llama": llama, "phi3": phi3, "phi3_longrope": phi3_longrope, "llava": llava, "mllama": mllama}
PREPROCESSORS = {
    "llava": {"image_processor_type": "PixtralImageProcessor", "processor_class": "PixtralProcessor",
              "size": {"longest_edge": 64}, "patch_size": {"height": 8, "width": 8}, "resample": 3},
    "mllama": {"image_processor_type": "MllamaImageProcessor", "processor_class": "MllamaProcessor",
               "size": {"height": 32, "width": 32}, "max_image_tiles": 4, "resample": 2,
               "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
}  # fmt: skip


def make_tokenizer(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", ID["<s>"])])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
              "pad_token": "<pad>", "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def randomize(model):
    """Weights of the scale of a trained model, norms and gates that are not trivial; all exact in bf16."""
    noise = torch.Generator().manual_seed(7)
    for name, tensor in model.named_parameters():
        random = torch.randn(tensor.shape, generator=noise)
        scale = 0.5 if tensor.dim() == 1 else tensor.shape[-1] ** -0.5 * 1.5
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensor.data = (offset + scale * random * (0.2 if offset else 1)).to(torch.bfloat16).to(torch.float32)


def run(model, processor, prompt, images):
    """The processor's tensors, logits of all tokens, and the greedy continuation."""
    if images:
        pictures = [transformers.image_utils.load_image(str(p)) for p in images]
        inputs = dict(processor(text=[prompt], images=[pictures], return_tensors="pt"))
    else:
        inputs = dict(processor(text=[prompt], return_tensors="pt"))
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
        done = model.generate(**inputs, do_sample=False, max_new_tokens=LIMIT, output_logits=True,
                              return_dict_in_generate=True)  # fmt: skip
    for step in done.logits:
        best = step[0].topk(2).values
        assert best[0] - best[1] > MARGIN * step.abs().max(), f"near equals after {prompt!r}: choose another seed"
    greedy = done.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    greedy = greedy[: greedy.index(ID["</s>"])] if ID["</s>"] in greedy else greedy
    ids = inputs.pop("input_ids")[0]
    out = {"ids": ids, "logits": logits, "greedy": torch.tensor(greedy, dtype=torch.int64)}
    return out | {k: v for k, v in inputs.items() if k not in ("attention_mask", "cross_attention_mask")}


def make(name):
    torch.manual_seed(0)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, prompts = FAMILIES[name]()
    randomize(model)
    model.eval()
    model.generation_config = transformers.GenerationConfig(**IDS)
    make_tokenizer(folder)
    if name in PREPROCESSORS:
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[name], indent=2))
    if name == "llava":
        (folder / "processor_config.json").write_text(json.dumps({"patch_size": 8, "processor_class": "PixtralProcessor"}))
    with tempfile.TemporaryDirectory() as temporary:
        saved = pathlib.Path(temporary)
        model.to(torch.bfloat16).save_pretrained(saved)
        for file in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(saved / file, folder / file)
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype", "bfloat16")  # the published key
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    loader = transformers.AutoModelForImageTextToText if name in PREPROCESSORS else transformers.AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    reader = transformers.AutoProcessor if name in PREPROCESSORS else transformers.AutoTokenizer
    processor = reader.from_pretrained(folder, **({"use_fast": False} if name in PREPROCESSORS else {}))
    tensors, records = {}, []
    for number, (prompt, images) in enumerate(prompts):
        result = run(model, processor, prompt, images)
        tensors.update({f"{number}.{k}": v.contiguous() for k, v in result.items()})
        records.append({"prompt": prompt, "images": [str(p) for p in images]})
    save_file(tensors, folder / "prompts.safetensors")
    (folder / "prompts.json").write_text(json.dumps(records, indent=1, ensure_ascii=False))


def main():
    if sys.argv[1:] == ["v5"]:
        for name in FAMILIES:
            with tempfile.TemporaryDirectory() as temporary:
                transformers.AutoConfig.from_pretrained(OUT / name).save_pretrained(temporary)
                shutil.copy(pathlib.Path(temporary) / "config.json", OUT / name / "config.v5.json")
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    wide = Image.open(SHIPPED / "0001.png").convert("RGB").resize((130, 37), Image.Resampling.BICUBIC)
    wide.save(PICTURES / "wide.png")
    for name in FAMILIES:
        make(name)


if __name__ == "__main__":
    main()
