"""What metrics say of sound: errors of known clips, known pitches, and packages and weights that are missing."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics import speech
from aigc_cli.metrics.extractors import vggish
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.items import SampledItems
from aigc_cli.metrics.pitch import F0, Pitch, pitches
from aigc_cli.metrics.reconstructions import Reconstruction, ReconstructionConfig
from aigc_cli.metrics.sound import along_best_path, clip_errors, wave_errors
from aigc_cli.modalities.base import Batch, DataSpec

RATE = 8000
SPEC = DataSpec("audio", (1, 4096), content=(1, 4096), rate=RATE)


def tones(*hertz: float, loud: float = 0.5, samples: int = 4096) -> Tensor:
    at = torch.arange(samples, dtype=torch.float64) / RATE
    waves = [sum(torch.sin(2 * math.pi * k * f * at) / k for k in (1, 2, 3)) for f in hertz]  # type: ignore[misc]
    return (torch.stack(waves)[:, None] * loud * 16_000).round().to(torch.int16)


def test_what_came_back_as_it_was_has_no_error() -> None:
    clips = tones(200, 300)
    assert {name: float(each.max()) for name, each in clip_errors(clips, clips, RATE).items()} == {
        "mel_l1": 0, "lsd": 0, "mcd": 0,
    }  # fmt: skip
    assert wave_errors(clips, clips, RATE)["si_sdr"].min() == pytest.approx(100)


def test_half_as_loud_is_6_decibels_and_a_factor_e_is_a_nat() -> None:
    whole, half = tones(220, loud=0.9), tones(220, loud=0.9 / 2)
    errors = clip_errors(whole, half, RATE)
    assert float(errors["lsd"]) < 20 * math.log10(2) + 0.1  # less where both are below what is heard
    assert 0.2 < float(errors["mel_l1"]) <= math.log(2) + 0.01
    assert float(errors["mcd"]) < float(clip_errors(whole, tones(470), RATE)["mcd"])
    assert wave_errors(whole, half, RATE)["si_sdr"].item() > 60  # which does not see a gain


def test_silence_after_a_clip_does_not_dilute_its_error() -> None:
    clips, noise = tones(220), torch.randint(-3000, 3000, (1, 1, 4096), dtype=torch.int16)
    spoilt = (clips + noise).clamp(-32767, 32767)
    long = [torch.nn.functional.pad(part, (0, 12_288)) for part in (clips, spoilt)]
    short, padded = clip_errors(clips, spoilt, RATE), clip_errors(long[0], long[1], RATE)
    for name, each in short.items():
        assert float(padded[name]) == pytest.approx(float(each), rel=0.1)


def test_the_best_path_is_that_of_all_paths() -> None:
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(40, 5, 6, generator=generator, dtype=torch.float64)
    first, second = (torch.randint(1, most + 1, (40,), generator=generator) for most in (5, 6))
    first[0], second[0] = 5, 6

    def paths(rows: int, columns: int) -> list[list[tuple[int, int]]]:
        if (rows, columns) == (1, 1):
            return [[(0, 0)]]
        before = [(rows - 1, columns - 1), (rows - 1, columns), (rows, columns - 1)]
        return [[*path, (rows - 1, columns - 1)] for i, j in before if i and j for path in paths(i, j)]

    found = along_best_path(lambda i, j: costs[:, i, j], first, second)
    for each, m, n, mean in zip(costs, first.tolist(), second.tolist(), found.tolist(), strict=True):
        best = min(paths(m, n), key=lambda path: sum(float(each[place]) for place in path))
        assert mean == pytest.approx(sum(float(each[place]) for place in best) / len(best), abs=1e-12)


def test_aligned_in_time_a_slower_clip_is_hardly_another() -> None:
    parts = [tones(200, samples=n) for n in (1024, 2048)], [tones(450, samples=n) for n in (1024, 2048)]
    quick, slow = (torch.cat([part[place] for part in parts], dim=-1) for place in (0, 1))
    quick = torch.nn.functional.pad(quick, (0, 2048))
    plain, aligned = (clip_errors(quick, slow, RATE, align=align)["mcd"].item() for align in (False, True))
    assert aligned < plain / 3
    same = clip_errors(slow, slow, RATE, align=True)
    assert float(same["mcd"]) == 0
    metric = Reconstruction(ReconstructionConfig(name="reconstruction", align=True))
    metric.spec = SPEC
    metric.update("pairs", slow, quick)
    assert metric.compute()["mcd"] == pytest.approx(aligned)
    assert metric.facts()["mcd"] == "aligned in time"


def test_noise_costs_as_many_decibels_as_it_is_loud() -> None:
    clips = tones(220)
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = (clips + noise * clips.double().std() / 10).round().to(torch.int16)
    assert wave_errors(clips, noisy, RATE)["si_sdr"].item() == pytest.approx(20, abs=0.3)


def test_pitches_are_within_four_cents_and_noise_has_none() -> None:
    wanted = torch.tensor([82.4, 110.0, 220.0, 441.3, 880.0])
    cents = 1200 * (pitches(tones(*wanted.tolist()), RATE) / wanted).log2().abs()
    assert cents.max() < 4
    noise = torch.randint(-9000, 9000, (3, 1, 4096), dtype=torch.int16, generator=torch.Generator().manual_seed(0))
    assert pitches(torch.cat([noise, torch.zeros_like(noise)]), RATE).tolist() == [0.0] * 6


def test_f0_counts_wrong_pitches_apart_from_small_errors() -> None:
    metric = F0(PlainConfig(name="f0"))
    metric.spec = SPEC
    originals, made = tones(200, 300, 400, 500), tones(200 * 2 ** (10 / 1200), 300, 600, 500)
    made[3] = 0
    metric.update("pairs", made, originals)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == {"f0_cents": pytest.approx(5, abs=1), "f0_wrong": 0.5}


def test_pitch_compares_two_sets() -> None:
    metric = Pitch(PlainConfig(name="pitch"))
    metric.spec = SPEC
    metric.update("real", tones(200, 400))
    metric.update("fake", torch.cat([tones(400, 800), torch.zeros(2, 1, 4096, dtype=torch.int16)]))
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == {"pitched": 0.5, "pitch_distance": pytest.approx(1200, abs=3)}


def test_dnsmos_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the packages") as caught:
        speech.DNSMOS(speech.DNSMOSConfig(name="dnsmos", most=3))
    assert "aigc-cli[speech]" in str(caught.value.hint)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnxruntime", "speechmos"))), reason="its packages are missing"
)
def test_dnsmos_hears_noise() -> None:
    scores = []
    noise = torch.randint(-9000, 9000, (1, 1, 4096), dtype=torch.int16)
    for clips in (torch.zeros_like(noise), noise):  # silence has no background that could be heard
        metric = speech.DNSMOS(speech.DNSMOSConfig(name="dnsmos", most=3))
        metric.spec = SPEC
        metric.update("fake", clips)
        scores.append(float(metric.compute()["dnsmos_background"]))
    assert 1 <= scores[1] < scores[0] <= 5


def items() -> SampledItems:
    return SampledItems(lambda: iter([Batch(tones(200))]), 1, SPEC)


def test_fad_without_weights_names_what_works() -> None:
    with pytest.raises(DataError, match="weights of VGGish are not here") as caught:
        vggish.VGGish(PlainConfig(name="vggish"), Sources(items=items()))
    assert "--metric fd,kd" in str(caught.value.hint)


def test_fad_listens_through_the_weights_that_are_named(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small = torch.nn.ModuleDict({"features": torch.nn.Sequential(torch.nn.MaxPool2d(16)),
                                     "embeddings": torch.nn.Linear(24, 128)})  # fmt: skip
        patch.setattr(vggish, "_network", lambda: small)
        save_file(small.state_dict(), tmp_path / "w.safetensors")
        sources = Sources(weights=tmp_path / "w.safetensors", items=items())
        extractor = vggish.VGGish(PlainConfig(name="vggish"), sources)
        assert extractor(tones(200, 300, samples=20_480))["features"].shape == (2, 128)
    with torch.device("meta"):
        assert isinstance(vggish._network()["embeddings"][-1], torch.nn.Linear), "an embedding may be negative"  # type: ignore[index]
    assert vggish.log_mel(torch.zeros(1, 16_000)).shape == (1, 1, 96, 64)
    assert vggish.log_mel(torch.zeros(1, 16_000)).unique().item() == pytest.approx(math.log(0.01))
