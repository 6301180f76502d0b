"""Writing in batches with a cache of keys and values, side by side with reading the whole prefix for every token.

    python benchmarks/decoding.py

Both draw the same tokens from the same network, of the size of experiment=shakespeare_char_cpu but with a window that
holds them all. `plain` is the loop that small projects have: a forward pass over all tokens so far, the scores of the
last place, softmax and multinomial. They take turns; each turn gives one ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.tokenizers import SPECIALS
from aigc_cli.models.base import Prompts, build_model
from aigc_cli.models.language_model import WritingControls
from aigc_cli.models.transformer import DecoderLanguageModel
from aigc_cli.randomness import Noise

VOCAB = 69  # that of Tiny Shakespeare


def plain(model: DecoderLanguageModel, prompts: Tensor, count: int, temperature: float) -> Tensor:
    rows = prompts
    for _ in range(count):
        window = rows[:, -model.context :]
        logits = model.decoder.logits(model.decoder.hidden(window))[:, -1] / max(temperature, 1e-6)
        token = torch.multinomial(logits.softmax(-1), 1) if temperature else logits.argmax(-1, keepdim=True)
        rows = torch.cat([rows, token], 1)
    return rows


def timed(act: Callable[[], Tensor], device: torch.device, clock: Callable[[], float]) -> float:
    start = clock()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("words", nargs="*", help="further key=value words, such as model.width=384")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    config = compose("train", ["experiment=shakespeare_char_cpu", *options.words])
    spec = DataSpec("text", (options.tokens + 2,), vocab_size=VOCAB, specials=SPECIALS)
    torch.manual_seed(0)
    model = build_model(config["model"], spec).to(device).eval()
    assert isinstance(model, DecoderLanguageModel)
    model.eos = -1  # nothing ends early
    prompts = [[4 + row % 60] for row in range(options.rows)]
    start = torch.tensor(prompts, device=device)

    def ours(temperature: float = 1.0) -> Tensor:
        noise = Noise(0, range(options.rows), device)
        controls = WritingControls(max_tokens=options.tokens, temperature=temperature)
        return model.sample(noise, controls, Prompts(prompts))

    clock = time.process_time if options.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    with torch.inference_mode():
        assert torch.equal(ours(0.0), plain(model, start, options.tokens, 0.0)), "greedy rows are the same"
        for _ in range(options.turns):
            times["plain"].append(timed(lambda: plain(model, start, options.tokens, 1.0), device, clock))
            times["ours"].append(timed(ours, device, clock))
    for name, measured in times.items():
        rate = options.rows * options.tokens / statistics.median(measured)
        print(f"{name:6} {statistics.median(measured):7.2f} s (median), {rate:8.0f} tokens/s")
    ratios = [a / b for a, b in zip(times["plain"], times["ours"], strict=True)]
    print(f"plain/ours: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
