#!/usr/bin/env python3
"""Writes tests/text/goldens/: what the reference makes of adversarial texts.

  python tests/text/make_goldens.py [SHARED]

Needs tokenizers 0.22.2. SHARED is the folder beside the repository
with zoo/*/tokenizer.json; without it the goldens of those tokenizers are left as they are.

Every file but patterns.json and utf8.json holds {"tokenizer": a tokenizer.json} or {"path": of one}, and
  encode: [text, add_special_tokens, ids]
  repeat: [text, times, SHA-256 of the ids with a space after each]
  decode: [ids, skip_special_tokens, text]
"""
import hashlib
import json
import random
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

assert tokenizers.__version__ == "0.22.2" and transformers.__version__ == "4.57.6"

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).resolve().parent / "goldens"

# The patterns of the published tokenizers.
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
          r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = ["The quick brown fox's friend said: we'll see, don't worry, I'm HERE, they've 12345 of 3.14.",
          "aaaa bbbb abab aaaaaaaa \u00e9t\u00e9 na\u00efve \u65e5\u672c\u8a9e \u0442\u0435\u043a\u0441\u0442 \U0001f600\n\n\n    x  \t"] * 5

WORDS = ("the Hello fox's WORLD Don't 123 4567 3.14 foo_bar CamelCase \u00e9a nai\u0308ve \u65e5\u672c\u8a9e "
         "\ud55c\uad6d\uc5b4 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940 "
         "\u0e44\u0e17\u0e22 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f x\u00b2 \u00bd "
         "\u2167 _ -- ... !? a/b\\c {}[]() abab aaaa").split()
CONTRACTIONS = ["'s", "'S", "'RE", "'ve", "'LL", "'\u017f", "\u2019s", "K", "\u212a", "\u00df", "\u1e9e", "\ufb01", "\u0130",
                "\u03c2", "'"]
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff\u180e"
SPECIALS = ["<|bos|>", "<|im_start|>", "<|im", "<|im_end|>", "<L>", "<LR>", "word", "ab\u00e9", "\u00c5ng", "e\u0301e\u0301",
            "sw", "<|image_pad|>", "<|begin_of_text|>", "<s>", "[INST]", "   ", " ", "\n\n", "\u65e5\u672c", "\x00",
            "a\u0323\u0307", "a\u0307\u0323"]
RANGES = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x590, 0x700), (0x700, 0xE00), (0xE00, 0x1200),
          (0x1E00, 0x2100), (0x2100, 0x2C00), (0x2C00, 0x3400), (0x4E00, 0x4F00), (0xA000, 0xAC00), (0xAC00, 0xAD00),
          (0xE000, 0xE010), (0xF900, 0x10000), (0x10000, 0x12000), (0x16000, 0x17000), (0x1C000, 0x1D800),
          (0x1F000, 0x1FC00), (0x2EBF0, 0x2EE60), (0x2F800, 0x2FA20), (0xE0000, 0xE0200), (0x10FFF0, 0x110000)]


def character(r):
    return chr(r.randrange(*r.choice(RANGES)))


def random_text(r):
    parts = []
    for _ in range(r.choice([1, 2, 3, 5, 8, 13])):
        parts.append(r.choice([
            lambda: r.choice(WORDS), lambda: r.choice(WORDS), lambda: " ", lambda: r.choice(CONTRACTIONS),
            lambda: r.choice(SPACES) * r.choice([1, 1, 2, 3]), lambda: r.choice(SPECIALS), lambda: character(r),
            lambda: character(r) * r.choice([2, 3]), lambda: chr(r.randrange(0x300, 0x370)),
            lambda: "".join(r.choice("abcXYZ01 ") for _ in range(r.randrange(1, 9)))])())
    return "".join(parts)


def cases(tok, seed, texts=180, decodes=40):
    r = random.Random(seed)
    encode = [["", True], ["", False], [" ", True]]
    encode += [[random_text(r), r.random() < 0.5] for _ in range(texts)]
    # (The reference takes quadratic memory for many spaces where an added token is one and strips them.)
    spaces = 1000 if tok.token_to_id(" ") is not None else 100000
    repeat = [["a", 100000], ["ab", 60000], [" ", spaces], ["\n ", spaces // 4], ["\u65e5\u672c\u8a9e", 20000],
              ["A", 100000], ["x\u0301\u0323", 20000], ["the fox's ", 5000], ["<|im", 5000]]
    size = tok.get_vocab_size()
    decode = [[[r.randrange(size + 3) for _ in range(r.choice([1, 3, 20]))], r.random() < 0.5] for _ in range(decodes)]
    ids = lambda text, special: tok.encode(text, add_special_tokens=special).ids
    digest = lambda ids: hashlib.sha256("".join(f"{i} " for i in ids).encode()).hexdigest()
    return {"encode": [[text, special, ids(text, special)] for text, special in encode],
            "repeat": [[text, n, digest(ids(text * n, False))] for text, n in repeat],
            "decode": [[some, skip, tok.decode(some, skip_special_tokens=skip)] for some, skip in decode]}


def write(name, data):
    (OUT / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")


def special(content, **options):
    return AddedToken(content, special=True, normalized=False, **options)


def added_tokens():
    plain = lambda content, **options: AddedToken(content, special=False, **options)
    return [special("<|bos|>"), special("<|im_start|>"), special("<|im"), special("<|im_end|>", rstrip=True),
            special("<L>", lstrip=True), plain("<LR>", normalized=False, lstrip=True, rstrip=True),
            plain("word", normalized=False, single_word=True), plain("ab\u00e9", normalized=True),
            plain("\u212bng", normalized=True), plain("e\u0301e\u0301", normalized=False),
            AddedToken("sw", special=True, normalized=True, single_word=True, lstrip=True, rstrip=True),
            plain("\n\n", normalized=False), plain("   ", normalized=True), plain(" ", normalized=False, rstrip=True),
            plain("\u65e5\u672c", normalized=True, lstrip=True), plain("\x00", normalized=False),
            AddedToken("a\u0323\u0307", special=True, normalized=True), plain("a\u0307\u0323", normalized=True)]


def bos_and_eos(tok):
    tokens = [(t, tok.token_to_id(t)) for t in ("<|bos|>", "<|im_end|>")]
    return processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|bos|> $A <|im_end|>", pair="<|bos|> $A $B:1", special_tokens=tokens)])


def tiny(name, pre_tokenizer, normalizer=None, added=(), template=False, legacy_merges=False, **model):
    tok = Tokenizer(models.BPE(**model))
    if normalizer:
        tok.normalizer = normalizer
    if pre_tokenizer:
        tok.pre_tokenizer = pre_tokenizer
    first = [model["unk_token"]] if "unk_token" in model else []
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=330, show_progress=False, special_tokens=first,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    for token in added:
        (tok.add_special_tokens if token.special else tok.add_tokens)([token])
    tok.decoder = decoders.ByteLevel()
    if template:
        tok.post_processor = bos_and_eos(tok)
    data = json.loads(tok.to_str())
    if model.get("ignore_merges"):  # a word that no merge makes
        data["model"]["vocab"]["\u0120zzz"] = len(data["model"]["vocab"]) + len(added)
    if legacy_merges:
        data["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in data["model"]["merges"]]
    write(name, {"tokenizer": data, **cases(Tokenizer.from_str(json.dumps(data)), name)})


def split(pattern, behavior="isolated", invert=False, level=True):
    parts = [pre_tokenizers.Split(pattern, behavior, invert=invert)]
    if level:
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(parts)


def tiny_tokenizers():
    level = lambda **options: pre_tokenizers.ByteLevel(**options)
    tiny("qwen2", split(Regex(QWEN2)), normalizers.NFC(), added_tokens(), template=True)
    tiny("llama3", split(Regex(CL100K)), added=[special("<|bos|>"), special("<|im_end|>")], template=True, legacy_merges=True)
    tiny("tekken", split(Regex(TEKKEN)), added=added_tokens()[:9], unk_token="<unk>")
    tiny("gpt2", level(add_prefix_space=True), normalizers.Sequence([normalizers.NFC()]), added_tokens()[:5])
    tiny("whole", level(add_prefix_space=False, use_regex=False), normalizers.NFKC(), ignore_merges=True)
    tiny("unknown", pre_tokenizers.Digits(individual_digits=False), normalizers.NFD(), unk_token="<unk>", fuse_unk=True)
    tiny("parts", pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.Split("ab", "merged_with_previous"),
        pre_tokenizers.Punctuation("contiguous"), level(add_prefix_space=False)]))
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        tiny(f"{behavior}_inverted", split(Regex(r"\s|[aeiou]+|(?=[0-9])"), behavior, invert=True, level=False),
             unk_token="<unk>")


def published(shared):
    write_path = lambda name, path, file: write(name, {"path": path, **cases(Tokenizer.from_file(str(file)), name)})
    path = "models/qwen2-vl-tiny/tokenizer.json"
    write_path("path_qwen2_vl", path, ROOT / path)
    if shared is None:
        return
    for family in ("llama", "mllama", "phi3", "pixtral"):
        path = f"zoo/{family}/tokenizer.json"
        write_path(f"path_{family}", f"../shared/{path}", shared / path)


# Patterns beyond the published ones.
PATTERNS = [
    CL100K, TEKKEN, r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "^a", "^", "$", r"a\z", r"a\Z", r"\Aa", r"\bx|x\b", r"\B\w", ".", "(?m).", "(?m:a.)|b.", "a(?i)b|c", "(?i:k)|(?-i:s)",
    "(?i:[k-s])+", "(?i:[^k])", "a{2}?b", "a{2,2}?b", "a{1,2}?b", "a{1,2}+b", "a{,2}", "a{", "a{x}", "a{,}", "a*+a", "a?+a",
    "(?:a|b)*?c", "(?:)++", "(?:a?)*b", "(?>a|ab)c", "(?<=a|bc)d", "(?<!\\s)b", "(?=\\s)", "x*", "(ab)(?<n>c)", "(?#no)a",
    "[]a]+", "[^]a]+", "[a-]+", "[a-c-e]+", "[+--]", "[a\\-z]+", "[a-z&&[^aeiou]&&b-y]+", "[[ab]c]+", "[&&a]", "[\\]\\[]",
    r"\p{Han}+|\p{Hiragana}|\p{Latn}+", r"\P{L}+", r"\p{^Lu}+", r"[\p{^L}]+", r"\p{Cn}+", r"\w+", r"[\w]+", r"[^\W\d]+", r"\h+",
    r"\S+", r"[\s\d]+", r"\x{e9}|\u0061|\x41|\t|\n", r"\.|\-|\/", "a|", "|a", r"[\x{e9}-\x{fc}]", r"\p{Uppercase_Letter}",
]
PATTERN_TEXTS = ["a\na\n\nab abab aab dbcd xx x ax", "kK\u212asS\u017f\u00df aB\u00e9\u00ea A1b2\u00b2\u00bd a{x} a{,} a- c-e +,-",
                 "\u65e5\u672c\u3042Latin\u0378\U00016d40\U0002ebf0\u0301 ]a[&b\r\n\u2028\u0085 \u00a0 it'S we'LL 12345\n"]


def patterns():
    rows = []
    for pattern in PATTERNS:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        rows += [[pattern, text, [part for part, _ in cut.pre_tokenize_str(text)]] for text in PATTERN_TEXTS]
    write("patterns", rows)


def utf8():
    r = random.Random("utf8")
    odd = [b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x9f\x98", b"\xe2\x82", b"\xff",
           b"\xf8\x88\x80\x80\x80", b"\x80", b"\xf0\x9f", b"\xf0", b"\xed\xbf", b"\xf4\x8f\xbf\xbf", b"\xef\xbf\xbf", b"\x00"]
    rows = odd + [x + y for x in odd for y in (b"a", b"\xe2\x82\xac")]
    rows += [bytes(r.choice([r.randrange(256), r.randrange(0x80, 0xC0), r.randrange(0xC0, 0x100)]) for _ in range(12))
             for _ in range(300)]
    write("utf8", [[row.hex(), row.decode("utf-8", "replace")] for row in rows])


OUT.mkdir(exist_ok=True)
tiny_tokenizers()
published(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
patterns()
utf8()
