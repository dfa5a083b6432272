"""Makes what the interoperability tests look at: sources in every style, what nibble writes from them, and what
nibble itself answers with it. Run by tests/interop/run as: python cases.py NIBBLE WORK

WORK/cases.json lists the checkpoints; each has the samples that nibble answered and the prompts that it traced.
"""

import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import torch
from PIL import Image
from safetensors.torch import save_file

import decode4
from checks import expect

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "qwen2-vl-tiny"
EVALUATION = ROOT / "pictures" / "evaluation"
SAMPLES = 32  # judged for most checkpoints: the first or the last of pictures/evaluation
SPECIAL_LIMIT = 32  # tokens of an answer to an unusual prompt, which the model may never end


def nibble(binary, *arguments):
    """stdout of one nibble command."""
    done = subprocess.run([str(binary), *map(str, arguments)], capture_output=True, encoding="utf-8", errors="replace")
    expect(done.returncode == 0, f"nibble {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def answers(binary, checkpoint, samples, *options):
    """nibble's greedy text for every sample of a jsonl file, in fp32."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        nibble(binary, "eval", checkpoint, "--data", samples, "--json", out.name, "--compute", "f32", *options)
        return [sample["output"] for sample in json.loads(pathlib.Path(out.name).read_text())["samples"]]


def make_pictures(folder):
    """Pictures in every format and of other sizes, some of them beyond what a patch grid holds without resizing."""
    folder.mkdir()
    picture = [Image.open(EVALUATION / "images" / name) for name in ("0000.png", "0001.png", "0003.jpg", "0007.jpg")]
    made = {
        "wide.png": (picture[0].resize((301, 95)), {}),
        "tall.jpg": (picture[1].resize((61, 203)), {"quality": 90}),
        "grey.png": (picture[2].convert("L"), {}),
        "palette.png": (picture[3].quantize(32), {}),
        "small.webp": (picture[0].resize((40, 33)), {"lossless": True}),
        "alpha.png": (picture[1].resize((120, 90)).convert("RGBA"), {}),
    }
    for name, (image, options) in made.items():
        image.save(folder / name, **options)
    turned = Image.Exif()
    turned[0x0112] = 6  # Orientation: to be turned by a quarter
    picture[3].resize((200, 140)).save(folder / "exif.jpg", exif=turned, quality=92)


def write_samples(work):
    """Two jsonl files of SAMPLES samples of the shipped set, and one with several or no pictures in a prompt."""
    shipped = [json.loads(line) for line in (EVALUATION / "samples.jsonl").read_text().splitlines()]
    for sample in shipped:
        sample["images"] = [str(EVALUATION / sample.pop("image"))]
    expect(len(shipped) >= 2 * SAMPLES, f"{EVALUATION} has only {len(shipped)} samples")
    images, pictures = EVALUATION / "images", work / "pictures"
    special = [
        ([images / "0000.png", images / "0001.png"], "What differs?"),
        ([pictures / "wide.png", pictures / "tall.jpg"], "Describe this image."),
        ([pictures / "small.webp", images / "0003.jpg", pictures / "palette.png"], "Describe this image."),
        ([pictures / "alpha.png"], "What color is the sky?"),
        ([pictures / "grey.png"], "Describe this image."),
        ([pictures / "exif.jpg"], "Describe this image."),
        ([], "Name a color."),
        ([], "Grüße, 世界! 1234567 \u00a0 🙂 can't\n\n  stop"),
    ]
    special = [{"images": [str(i) for i in images], "prompt": prompt, "answer": "."} for images, prompt in special]
    out = {"first": shipped[:SAMPLES], "last": shipped[-SAMPLES:], "every": shipped, "special": special}
    for name, samples in out.items():
        lines = [json.dumps(s, ensure_ascii=False) + "\n" for s in samples]
        (work / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return out


def trace_prompts(work):
    images, pictures = EVALUATION / "images", work / "pictures"
    start, end, pad = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
    prompts = {
        "caption": ("Describe this image.", [images / "0002.png"], False),
        "two": ("What is different?", [pictures / "wide.png", pictures / "small.webp"], False),
        "palette": ("Describe this image.", [pictures / "palette.png", pictures / "alpha.png"], False),
        "jpeg": ("Describe this image.", [pictures / "tall.jpg", pictures / "exif.jpg", pictures / "grey.png"], False),
        "text": ("Name a color. Grüße, 世界!", [], False),
        "raw": ("The sky above the train is", [], True),
        "raw_picture": (f"one {start}{pad}{end} two {start}{pad}{end} three", [images / "0003.jpg", pictures / "tall.jpg"], True),
    }
    return {n: {"prompt": p, "images": [str(i) for i in i_], "raw": raw} for n, (p, i_, raw) in prompts.items()}


def copy_side_files(target):
    target.mkdir(parents=True)
    for path in MODEL.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
            shutil.copy(path, target)


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def make_sources(folder):
    """The shipped model in the other styles that sources come in."""
    tensors = decode4.read_tensors(MODEL)
    renamed = {"visual.": "model.visual.", "model.": "model.language_model."}

    def in_tree(name):
        prefix = next((p for p in renamed if name.startswith(p)), "")
        return renamed.get(prefix, "") + name[len(prefix) :]

    def save(name, tensors):
        copy_side_files(folder / name)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})

    save("v5", tensors)
    shutil.copy(ROOT / "tests" / "interop" / "config.v5.json", folder / "v5" / "config.json")
    for name, dtype in (("float16", torch.float16), ("float32", torch.float32)):
        converted = {n: t.to(dtype) for n, t in tensors.items()}
        expect(all(t.isfinite().all() for t in converted.values()), f"the model does not fit into {name}")
        if name == "float32":  # values that bf16 does not hold
            noise = torch.Generator().manual_seed(1)
            for t in converted.values():
                t *= 1 + 0.001 * torch.rand(t.shape, generator=noise)
        save(name, converted)
        edit_config(folder / name, torch_dtype=name)
    embedding = tensors["model.embed_tokens.weight"]
    noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(2))
    head = (embedding.float() + 0.02 * embedding.float().std() * noise).to(embedding.dtype)
    save("untied", {**tensors, "lm_head.weight": head})
    edit_config(folder / "untied", tie_word_embeddings=False)
    save("tree", {in_tree(n): t for n, t in tensors.items()})


def random_list(binary, path, seed, count):
    """A list file of `count` random linears."""
    inventory = json.loads(nibble(binary, "inspect", MODEL, "--json"))
    names = [linear["name"] for linear in inventory["linears"]]
    path.write_text("".join(f"{n}\n" for n in random.Random(seed).sample(names, count)))
    return path


def main():
    binary, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    make_pictures(work / "pictures")
    samples, prompts = write_samples(work), trace_prompts(work)
    make_sources(work / "sources")
    measurements = work / "measurements.json"
    nibble(binary, "measure", MODEL, "--data", ROOT / "pictures" / "calibration", "-o", measurements)
    plans = [
        # name, source, options, samples, traced prompts
        ("all", MODEL, ["--policy", "all"], "every", ["caption", "text"]),
        ("none", MODEL, ["--policy", "none"], "last", ["caption"]),
        ("dynamic", MODEL, ["--measurements", measurements, "--budget", "28%"], "first", list(prompts)),
        ("sharded", MODEL, ["--policy", "random:3", "--budget", "20%", "--max-shard-size", "500KB"], "last", ["caption"]),
        ("v5", work / "sources" / "v5", ["--policy", "vision"], "first", ["caption", "two"]),
        ("float16", work / "sources" / "float16", ["--policy", "all"], "last", ["caption"]),
        ("float32", work / "sources" / "float32", ["--policy", "all"], "first", ["caption"]),
        ("untied", work / "sources" / "untied", ["--policy", "all"], "last", ["caption", "text"]),
        ("tree", work / "sources" / "tree", ["--policy", "random:5", "--budget", "30%"], "first", ["caption"]),
    ]
    for seed, count in ((1, 20), (2, 5)):
        path = random_list(binary, work / f"list{seed}.txt", seed, count)
        plans.append((f"list{seed}", MODEL, ["--policy", f"list:{path}"], "last", ["caption"]))
    cases = []
    for name, source, options, chosen, traced in plans:
        out = work / "out" / name
        out.parent.mkdir(exist_ok=True)
        nibble(binary, "quantize", source, "-o", out, *options)
        case = {"name": name, "folder": str(out), "source": str(source), "samples": samples[chosen], "traces": []}
        case["answers"] = answers(binary, out, work / f"{chosen}.jsonl")
        if len(traced) > 1:
            limit = ["--max-new-tokens", SPECIAL_LIMIT]
            case["special"], case["special_limit"] = samples["special"], SPECIAL_LIMIT
            case["special_answers"] = answers(binary, out, work / "special.jsonl", *limit)
        for key in traced:
            file = work / "out" / f"{name}.{key}.safetensors"
            images = [a for image in prompts[key]["images"] for a in ("--image", image)]
            raw = ["--raw"] if prompts[key]["raw"] else []
            nibble(binary, "trace", out, *images, "--prompt", prompts[key]["prompt"], *raw, "-o", file, "--compute", "f32")
            case["traces"].append({"name": key, "file": str(file), **prompts[key]})
        cases.append(case)
    (work / "cases.json").write_text(json.dumps(cases))
    print(f"{len(cases)} checkpoints made")


if __name__ == "__main__":
    main()
