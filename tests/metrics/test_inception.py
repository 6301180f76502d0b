"""FID, KID and IS on the Inception network: parity with torch-fidelity, and weights that cannot be trusted."""

import pickle
from pathlib import Path

import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics import inception
from aigc_cli.metrics.features import Sources
from aigc_cli.metrics.inception import FILE, SHA256, Inception, InceptionConfig, load_weights


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise DataError("no connection")

    monkeypatch.setattr("aigc_cli.data.download.download", refuse)
    return tmp_path


def test_without_weights_it_says_which_file_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(DataError, match="no connection") as caught:
        Inception(InceptionConfig(), Sources())
    assert caught.value.exit_code == 3
    for part in (FILE, SHA256, str(cache / "cache" / "weights"), "weights=FILE", "--metric fd"):
        assert part in caught.value.mend


@pytest.mark.parametrize("folder", ["cache/weights", "torch/hub/checkpoints"])
def test_weights_are_found_where_others_keep_them(cache: Path, folder: str) -> None:
    path = cache / folder / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    with pytest.raises(DataError, match=f"{folder}/{FILE} is corrupt"):
        Inception(InceptionConfig(), Sources())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def _evil(path: Path) -> None:
    path.write_bytes(pickle.dumps({"fc.weight": Evil()}))


def _evil_in_torch(path: Path) -> None:
    torch.save({"fc.weight": Evil()}, path)


def _truncated(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _no_tensors(path: Path) -> None:
    torch.save([1, 2], path)


def _nan(path: Path) -> None:
    torch.save({"a": torch.tensor([float("nan")])}, path)


@pytest.mark.parametrize("break_it", [Path.touch, _evil, _evil_in_torch, _truncated, _no_tensors, _nan])
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, break_it) -> None:  # type: ignore[no-untyped-def]
    break_it(tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth"):
        load_weights(tmp_path / "w.pth")


def test_a_broken_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_weights(tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="no file of weights"):
        load_weights(tmp_path / "none.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="do not fit"):
        Inception(InceptionConfig(), Sources(weights=tmp_path / "w.pth"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights on which features have the size of trained ones.

    With torch's default initialisation features all but vanish, and any two implementations agree on nothing.
    """
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        import torch_fidelity.feature_extractor_inceptionv3 as module

        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("x", ["2048"], None)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.8, 1.2, generator=generator)
            layer.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(layer, torch.nn.Linear):
            layer.weight.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


class Tensors(torch.utils.data.Dataset):
    def __init__(self, content: torch.Tensor) -> None:
        self.content = content

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.content[index]


@pytest.mark.slow
def test_parity_with_torch_fidelity(weights: Path, images) -> None:  # type: ignore[no-untyped-def]
    from torch_fidelity import calculate_metrics

    from aigc_cli.data.images import ImageDataset
    from aigc_cli.metrics.evaluation import Evaluator
    from aigc_cli.metrics.images import DatasetImages

    fake = images(16, (3, 32, 32), 0)
    ramps = torch.arange(32, dtype=torch.uint8) * torch.arange(1, 8, dtype=torch.uint8)[:, None]
    real = ramps.repeat(3, 1)[:20, None, None, :].expand(20, 3, 32, 32) // 2 + images(20, (3, 32, 32), 1) // 2
    wanted = calculate_metrics(
        input1=Tensors(fake),
        input2=Tensors(real),
        fid=True,
        kid=True,
        isc=True,
        kid_subset_size=12,
        kid_subsets=10,
        isc_splits=2,
        feature_extractor_weights_path=str(weights),
        cuda=False,
        verbose=False,
        batch_size=8,
        cache=False,
        save_cpu_ram=True,
    )
    seeded = {"extractor": "inception", "seed": 2020}
    metrics = {
        "fid": {"name": "fid", "extractor": "inception"},
        "kid": {"name": "kid", "subsets": 10, "subset_size": 12, **seeded},
        "is": {"name": "is", "splits": 2, **seeded},
    }
    sides = [DatasetImages(ImageDataset(content, None), "train", "x") for content in (real, fake)]
    evaluator = Evaluator(metrics, Sources(weights=weights), sides[0], batch_size=8)
    got = {key: value for result in evaluator.evaluate(sides[1]) for key, value in result.labelled().items()}
    bracket = f"[{evaluator._extractors['inception'].name}]"  # these are not the weights that FID means
    assert bracket.startswith("[inception-v3-compat-")
    assert got[f"fid{bracket}"] > 0.1  # else agreement would prove nothing
    assert got[f"fid{bracket}"] == pytest.approx(wanted["frechet_inception_distance"], rel=1e-6)
    assert got[f"kid{bracket}"] == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-5)
    assert got[f"kid_std{bracket}"] == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-4)
    assert got[f"is{bracket}"] == pytest.approx(wanted["inception_score_mean"], rel=1e-6)
    assert got[f"is_std{bracket}"] == pytest.approx(wanted["inception_score_std"], rel=1e-5)
    assert evaluator._extractors["inception"].checksum != inception.SHA256


@pytest.mark.slow
def test_grey_images_are_their_rgb_selves(weights: Path, images) -> None:  # type: ignore[no-untyped-def]
    extractor = Inception(InceptionConfig(), Sources(weights=weights))
    grey = images(2, (1, 16, 16))
    assert torch.equal(extractor(grey)["features"], extractor(grey.repeat(1, 3, 1, 1))["features"])
