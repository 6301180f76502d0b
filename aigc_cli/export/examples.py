"""``example.py``: how an exported model is used with numpy and onnxruntime alone, a script for each kind of loop."""

from __future__ import annotations

from aigc_cli.export.way_back import SOUND

_HEAD = '''\
"""Draws samples from the files beside it. It needs numpy and onnxruntime, and nothing else.

    python example.py{usage}
"""

import json
import struct
import sys
import wave
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "export.json").read_text())
SEED = 0


def load(name):
    """A file as a function of named arrays."""
    session = onnxruntime.InferenceSession(str(HERE / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda **given: dict(zip(names, session.run(None, given)))


def save(raw, stem):
    """Pixels (n, c, h, w) as one PNG each, sound (n, channels, samples) as WAV, anything else as one array."""
    if ABOUT["modality"] == "image" and raw.dtype == np.uint8:
        for index, picture in enumerate(raw):
            rows = picture.transpose(1, 2, 0)
            lines = b"".join(b"\\0" + row.tobytes() for row in rows)
            size = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, {1: 0, 3: 2}[rows.shape[2]], 0, 0, 0)
            chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
            data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
            Path(f"{stem}-{index}.png").write_bytes(b"\\x89PNG\\r\\n\\x1a\\n" + data)
    elif ABOUT["modality"] == "audio" and raw.dtype == np.int16:
        for index, clip in enumerate(raw):
            with wave.open(f"{stem}-{index}.wav", "wb") as file:
                file.setparams((clip.shape[0], 2, ABOUT["rate"], 0, "NONE", ""))
                file.writeframes(clip.T.tobytes())
    else:
        np.save(f"{stem}.npy", raw)
    print(f"{len(raw)} samples {raw.shape[1:]} {raw.dtype}: {stem}")


def raw_of(found):
    """What a person sees or hears of what a file gave."""
    if (HERE / "latents_decoder.onnx").is_file():
        found = load("latents_decoder")(latents=found["content"])
    return found["raw"] if "raw" in found else heard(found["content"]) if ABOUT["sound"] else found["content"]


draws = np.random.default_rng(SEED)
'''
_COUNT = """
n = int(sys.argv[1]) if len(sys.argv) > 1 else 4
labels = {"label": np.arange(n, dtype=np.int64) % len(ABOUT["classes"])} if ABOUT["classes"] else {}
"""
_LATENT = """
file = "decoder" if (HERE / "decoder.onnx").is_file() else "generator"
width = ABOUT["files"][f"{file}.onnx"]["inputs"]["latent"]["shape"][1]
latent = draws.standard_normal((n, width)).astype(np.float32)
save(raw_of(load(file)(latent=latent, **labels)), "sample")
"""
_FLOW = """
velocity, steps = load("velocity"), 16
x = draws.standard_normal((n, *ABOUT["shape"])).astype(np.float32)


def at(x, time):
    return velocity(x=x, time=np.full(n, time, np.float32), **labels)["velocity"]


for step in range(steps):  # Heun's method, from noise at time 0 to data at time 1
    first = at(x, step / steps)
    second = at(x + first / steps, (step + 1) / steps)
    x = x + (first + second) / (2 * steps)
save(raw_of(load("codec")(content=x) if (HERE / "codec.onnx").is_file() else {"content": x}), "sample")
"""
_CODES_ONLY = """
encode, decode = load("encoder"), load("decoder")
content = np.zeros((n, *ABOUT["shape"]), np.float32)  # items as the encoding has them; put yours here
save(raw_of(decode(codes=encode(content=content)["codes"])), "reconstruction")
"""
_WRITE = '''

def start(count):
    """Keys and values of nothing."""
    inputs = ABOUT["files"][f"{FILE}.onnx"]["inputs"]
    shapes = {name: each["shape"] for name, each in inputs.items() if name.startswith("past_key_values.")}
    return {name: np.zeros((count, s[1], 0, s[3]), np.float32) for name, s in shapes.items() if s[2] == "past"}


def write(rows, count, temperature=1.0, more=None, stop=None, limited=None):
    """Rows of token ids, all of one length, with up to `count` more tokens each; codebooks of `limited` codes, if there
    are several, take turns."""
    model, past, ids = load(FILE), start(len(rows)), np.array(rows, np.int64)
    read, tokens = 0, ids
    for step in range(count):
        read += tokens.shape[1]
        places = np.tile(np.arange(read - tokens.shape[1], read, dtype=np.int64), (len(rows), 1))
        found = model(input_ids=tokens, attention_mask=np.ones((len(rows), read), np.int64), position_ids=places,
                      **past, **(more or {}))
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        scores = found["logits"][:, -1].astype(np.float64)
        if limited:
            owner = np.arange(scores.shape[1]) // limited
            scores[:, (owner != step % ABOUT["codebooks"]) & (owner < ABOUT["codebooks"])] = -np.inf
        if temperature:  # adding Gumbel noise and taking the largest draws from the distribution
            scores = scores / temperature + draws.gumbel(size=scores.shape)
        tokens = scores.argmax(-1)[:, None]
        ids = np.concatenate([ids, tokens], 1)
        if stop is not None and (ids == stop).any(1).all():
            break
    return ids
'''
_TEXT = '''
import re

SAVED = json.loads((HERE / "tokenizer.json").read_text())
VOCABULARY = SAVED["model"]["vocab"]
SPELLED = {token: word for word, token in VOCABULARY.items()}
SPECIAL = ABOUT.get("source_specials") or ABOUT["specials"]
RANKS = {tuple(merge): rank for rank, merge in enumerate(SAVED["model"]["merges"])}
BYTES = SAVED["decoder"]["type"] == "ByteLevel"
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = {byte: chr(byte) for byte in PRINTABLE}
LETTERS |= {byte: chr(256 + place) for place, byte in enumerate(b for b in range(256) if b not in LETTERS)}
OF_LETTER = {letter: byte for byte, letter in LETTERS.items()}
WORDS = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\\W\\d_]+| ?\\d+| ?(?:[^\\s\\w]|_)+|\\s+(?!\\S)|\\s+")


def tokens_of(text):
    """The ids of a text, as the tokenizer of the model has them."""
    if not BYTES:
        return [VOCABULARY.get(letter, SPECIAL["unk"]) for letter in text]
    found = []
    for word in WORDS.findall(text) if RANKS else [text]:
        parts = [LETTERS[byte] for byte in word.encode()]
        while len(parts) > 1:
            rank, place = min((RANKS.get(pair, len(RANKS)), at) for at, pair in enumerate(zip(parts, parts[1:])))
            if rank == len(RANKS):
                break
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        found += [VOCABULARY[part] for part in parts]
    return found


def text_of(ids):
    """The text of ids, up to the end."""
    ids = list(ids)
    while ids and ids[0] in (SPECIAL["pad"], SPECIAL["bos"], SPECIAL["eos"]):
        ids.pop(0)
    words = [SPELLED[token] for token in (ids[: ids.index(SPECIAL["eos"])] if SPECIAL["eos"] in ids else ids)
             if token not in SPECIAL.values()]
    return bytes(OF_LETTER[c] for w in words for c in w).decode(errors="replace") if BYTES else "".join(words)

'''
_WRITER = """
FILE = "model"
prompt = sys.argv[1] if len(sys.argv) > 1 else ""
first = [SPECIAL["bos"]] if ABOUT["start"] == SPECIAL["bos"] else [] if prompt else [ABOUT["start"]]
row = first + tokens_of(prompt)
print(text_of(write([row], ABOUT["window"] - len(row), temperature=0.8, stop=SPECIAL["eos"])[0]))
"""
_TRANSLATOR = """
FILE = "decoder_model"
source = sys.argv[1] if len(sys.argv) > 1 else "a dog is running ."
ids = np.array([[SPECIAL["bos"], *tokens_of(source), SPECIAL["eos"]]], np.int64)
there = np.ones_like(ids)
read = load("encoder_model")(input_ids=ids, attention_mask=there)
read.pop("last_hidden_state")
across = {name.replace("present", "past_key_values"): part for name, part in read.items()}
written = write([[SPECIAL["bos"]]], ABOUT["window"] - 1, temperature=0,
                more={"encoder_attention_mask": there, **across}, stop=SPECIAL["eos"])
print(text_of(written[0]))
"""
_FILLER = """
# Gaps are written as ____; each underscore is one token.
text = sys.argv[1] if len(sys.argv) > 1 else "to be, or not to ____"
ids = [token for part in re.split("(_)", text) for token in ([ABOUT["mask"]] if part == "_" else tokens_of(part))]
ids = np.array([ids], np.int64)
model = load("model")
while (ids == ABOUT["mask"]).any():  # the token that the model is surest of first
    scores = model(input_ids=ids, attention_mask=np.ones_like(ids))["logits"][0]
    scores[:, list(SPECIAL.values())] = -np.inf
    best = np.where(ids[0] == ABOUT["mask"], scores.max(-1) - np.logaddexp.reduce(scores, -1), -np.inf).argmax()
    ids[0, best] = scores[best].argmax()
print(text_of(ids[0]))
"""
_TEXT_LATENT = """
FILE = "decoder"
latent = draws.standard_normal((4, ABOUT["files"]["decoder.onnx"]["inputs"]["latent"]["shape"][1])).astype(np.float32)
for row in write([[SPECIAL["bos"]]] * 4, ABOUT["window"] - 1, more={"latent": latent}, stop=SPECIAL["eos"]):
    print(text_of(row))
"""
_CODES_WRITER = """
FILE = "model"
length, books = ABOUT["shape"][0], ABOUT["codebooks"]
each = ABOUT["vocab_size"] // books  # codes of a codebook; those of the first come first
told = [ABOUT["vocab_size"] + label for label in labels.get("label", ())] or [ABOUT["any_class"]] * n
if ABOUT["delayed"]:  # each step writes a code of every codebook, and those of the next one come a step later each
    ids = write_steps(np.array(told), length // books + books - 1, books, each)
    codes = np.stack([ids[:, book : book + length // books, book] for book in range(books)], 2).reshape(n, length)
else:
    codes = write([[token] for token in told], length, limited=None if books == 1 else each)[:, 1:]
save(raw_of(load("codes_decoder")(codes=codes)), "sample")
"""
_STEPS = '''

def write_steps(told, count, books, each):
    """Codes (n, count, books), with the token for any class where a codebook has none yet, or none any more."""
    model, past, n = load(FILE), start(len(told)), len(told)
    tokens, found = np.repeat(told[:, None, None], books, 2).astype(np.int64), []
    for step in range(count):
        given = model(input_ids=tokens, attention_mask=np.ones((n, step + 1), np.int64),
                      position_ids=np.full((n, 1), step, np.int64), **past)
        past = {name: given[name.replace("past_key_values", "present")] for name in past}
        scores = given["logits"][:, -1].reshape(n, books, -1).astype(np.float64)
        codes = (scores + draws.gumbel(size=scores.shape)).argmax(-1) + each * np.arange(books)
        beyond = [not book <= step < count - books + 1 + book for book in range(books)]
        codes[:, beyond] = ABOUT["any_class"]
        tokens = codes[:, None].astype(np.int64)
        found.append(codes)
    return np.stack(found, 1)

'''
_CODES_SPEAKER = """
FILE, end, length = "decoder_model", ABOUT["specials"]["eos"], ABOUT["shape"][0]
said = sys.argv[1] if len(sys.argv) > 1 else "seven"
voice = np.array([ABOUT["vocab_size"] if ABOUT["classes"] else ABOUT["any_class"]], np.int64)  # the first of them
ids = np.array([[SPECIAL["bos"], *tokens_of(said), SPECIAL["eos"]]], np.int64)
read = load("encoder_model")(input_ids=ids, voice=voice)
read.pop("last_hidden_state")
across = {name.replace("present", "past_key_values"): part for name, part in read.items()}
there = np.ones((1, ids.shape[1] + 1), np.int64)  # the voice stands before the text
codes = write([[ABOUT["vocab_size"]]], length, temperature=0.7, more={"encoder_attention_mask": there, **across},
              stop=end)[:, 1:]
codes = np.pad(codes, ((0, 0), (0, length - codes.shape[1])), constant_values=end)
save(raw_of(load("codes_decoder")(codes=codes)), "speech")
"""
_CODES_FILLER = """
length, mask, passes, books = ABOUT["shape"][0], ABOUT["mask"], 12, ABOUT["codebooks"]
told = np.array([ABOUT["vocab_size"] + label for label in labels.get("label", ())] or [ABOUT["any_class"]] * n)
codes, model = np.full((n, length), mask, np.int64), load("model")
for step in range(1, passes + 1):  # each pass settles more of the codes: those that the model is surest of
    ids = np.concatenate([told[:, None], codes], 1)
    scores = model(input_ids=ids, attention_mask=np.ones_like(ids))["logits"][:, 1:].astype(np.float64)
    if books > 1:  # a place has a code of its own codebook, or of none
        owner = np.arange(scores.shape[2]) // (ABOUT["vocab_size"] // books)
        scores[:, (owner != np.arange(length)[:, None] % books) & (owner < books)] = -np.inf
    drawn = (scores + draws.gumbel(size=scores.shape)).argmax(-1)
    sure = np.take_along_axis(scores, drawn[..., None], -1)[..., 0] - np.logaddexp.reduce(scores, -1)
    sure = sure + 4 * (1 - step / passes) * draws.gumbel(size=sure.shape)
    drawn, sure = np.where(codes == mask, drawn, codes), np.where(codes == mask, sure, np.inf)
    left = int(length * np.cos(np.pi / 2 * step / passes))
    codes = drawn
    np.put_along_axis(codes, sure.argsort(-1)[:, :left], mask, -1)
save(raw_of(load("codes_decoder")(codes=codes)), "sample")
"""
_SCRIPTS = {
    "latent": (" [how many]", _COUNT + _LATENT),
    "flow": (" [how many]", _COUNT + _FLOW),
    "codes_only": (" [how many]", _COUNT + _CODES_ONLY),
    "writer": (' ["how a text begins"]', _TEXT + _WRITE + _WRITER),
    "translator": (' ["a text"]', _TEXT + _WRITE + _TRANSLATOR),
    "filler": (' ["a text with ____"]', _TEXT + _FILLER),
    "text_latent": ("", _TEXT + _WRITE + _TEXT_LATENT),
    "codes_writer": (" [how many]", _COUNT + _WRITE + _STEPS + _CODES_WRITER),
    "codes_speaker": (' ["what is said"]', _TEXT + _WRITE + _CODES_SPEAKER),
    "codes_filler": (" [how many]", _COUNT + _CODES_FILLER),
}


def example(kind: str, *, sound: bool = False) -> str:
    """The script of a kind of loop, as of :class:`aigc_cli.export.parts.Exported`, with the way back to `sound` where
    that is needed; "" where there is none."""
    if kind not in _SCRIPTS:
        return ""
    usage, body = _SCRIPTS[kind]
    return _HEAD.replace("{usage}", usage) + (SOUND if sound else "") + body
