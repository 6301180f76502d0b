"""Two processes with half of each batch train the same weights as one with the whole of it."""

import contextlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from toy_text import ToyText, documents

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import open_dataset
from aigc_cli.errors import ConfigError
from aigc_cli.models.base import build_model
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.build import check_config
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.distributed import Processes, share_of
from aigc_cli.training.parallel import check_sharding, synchronize_batchnorm, whole
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

OTHER = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_parallel
test_parallel.train_together(test_parallel.Path(sys.argv[3]), rank=1)
"""
STEPS = 12
# Adam would take a step of its full size where a gradient is 0 but for rounding, such as of a critic's last bias.
GAN = ["optimizer=sgd", "optimizer.lr=0.001", "model=gan", "data=digits", "model.network=mlp", "model.width=4",
       "model.latent=4", "model.generator_norm=none"]  # fmt: skip
TEXT = ["data=text", "data.root=.", "model.layers=1", "model.heads=2", "model.width=8"]
CASES = {
    "vae": ["model=vae", "data=digits", "model.network=mlp", "model.hidden=16", "model.latent=4"],
    "free_bits": ["model=vae", "data=digits", "model.network=mlp", "model.hidden=16", "model.latent=16",
                  "model.free_bits=0.005"],
    "vqvae": ["model=vqvae", "data=digits", "model.downsampling=4", "model.width=4", "model.codes=8",
              "model.code_dimensions=2"],
    # Clips end early, each its own number of tokens; the codebook begins late, by k-means.
    "vqvae_sound": ["model=vqvae", "data=tones", "data.items=44", "data.seconds=0.256", "data.codec.bins=16",
                    "data.codec.hop=128", "model.tokens=time", "model.downsampling=2", "model.width=8", "model.codes=4",
                    "model.code_dimensions=2", "model.warmup=4"],
    "gan": [*GAN, "model.penalty=r1", "model.r1_every=3", "model.augment=[ada,cutout,color]",
            "model.ada_length=200", "model.ada_target=0.1", "model.lecam=0.3", "model.consistency=1.0"],
    "wgan": [*GAN, "model.loss=wgan", "model.discriminator_steps=2", "trainer.accumulate=2"],
    "transformer": ["model=transformer", *TEXT],
    "bert": ["model=bert", *TEXT],
    "mlm": ["model=bert", *TEXT, "model.objective=mlm", "model.mixed_masks=true", "trainer.accumulate=2"],
    "muon": ["model=transformer", *TEXT, "optimizer=muon"],
    "seq2seq": ["model=seq2seq", "data=pairs", "data.source=.", "data.target=.", *TEXT[2:], "model.dropout=0.0"],
}  # fmt: skip
CASES |= {
    "sharded": [*CASES["transformer"], "trainer.clip_grad_norm=0.5", "trainer.sharding=full"],
    "sharded_pairs": [*CASES["seq2seq"], "trainer.accumulate=2", "trainer.sharding=full", "optimizer=muon"],
}
RESUMED = ("vae", "sharded")
#: A batch norm sees its own process's share, so that this is only alike in both processes.
SHARED_NORM = {"batch_norm": [*GAN[:-1], "model.generator_norm=batch", "model.discriminator_norm=batch"]}


def dataset_of(words, config):
    if "data=tones" in words:
        return open_dataset(config["data"], "train")
    if "data=digits" in words:
        random = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (44, 1, 8, 8), dtype=torch.uint8, generator=random)
        return ImageDataset(pixels, None)
    return ToyText(documents(44, 12), documents(44, 9, seed=5) if "data=pairs" in words else None)


def trained(path, name, processes, steps=STEPS, more=(), hooks=lambda trainer: Hooks()):
    """The last checkpoint of one case, trained from the newest that there is."""
    words = [*(CASES | SHARED_NORM)[name], *more]
    usual = ["trainer.batch_size=8", f"trainer.steps={steps}", "trainer.log_every=3", "trainer.device=cpu"]
    config = compose("train", [*words, *usual, "trainer.checkpoint_every=6", "recipe=null"])
    checked = check_config(config)
    dataset = dataset_of(words, config)
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    loader = Loader(
        dataset, batch_size=share_of(checked.trainer.batch_size, processes.world_size), seed=0, device="cpu",
        rank=processes.rank, world_size=processes.world_size,
    )  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0,
        run=Run(path, writes=processes.main), device=torch.device("cpu"), processes=processes,
    )  # fmt: skip
    trainer.restore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aigc_cli.training.journal.Journal.draw", lambda _: None)  # in the other process too
        trainer.fit(hooks(trainer))
    return trainer


def saved(path, step=STEPS):
    tensors = CheckpointFolder(path / "checkpoints").load(step).tensors
    return {f"{file}/{name}": tensor for file, group in tensors.items() for name, tensor in group.items()}


def real(name, tensors):
    """A tensor's values, float64; the vectors that a codebook will begin with are kept as the bits of theirs."""
    tensor = tensors[name]
    return (tensor.view(torch.float32) if name.endswith(".reservoir") else tensor).double()


def assert_close(left, right):
    assert left.keys() == right.keys()
    differences = {name: (real(name, left) - real(name, right)).abs().max().item() for name in left}
    assert max(differences.values()) <= 1e-5, differences


def stopped_early(path, processes):
    """The same, with a held-out score that only the main process may measure, and that does not become better."""

    def hooks(trainer):
        def validate():
            assert processes.main, "each process would measure another score, and stop elsewhere"
            return {"fd": {2: 3.0, 4: 1.0}.get(trainer.state.step, 2.0)}

        return Hooks(validate=validate)

    return trained(path, "vae", processes, more=["trainer.validate_every=2", "trainer.early_stop=2"], hooks=hooks)


def train_together(folder, rank):
    """What each of two processes does."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, rank, 2)
    for name in CASES | SHARED_NORM:
        trainer = trained(folder / "together" / name, name, processes)
        state = {key: whole(tensor).contiguous().clone() for key, tensor in trainer.model.state_dict().items()}
        save_file(state, folder / f"{name}-{rank}.safetensors")
    early = stopped_early(folder / "together" / "early", processes)
    save_file(
        {"step": torch.tensor(early.state.step), **early.model.state_dict()}, folder / f"early-{rank}.safetensors"
    )
    with contextlib.redirect_stderr(io.StringIO()) as said:
        for name in RESUMED:
            trained(folder / "resumed" / name, name, processes)
    (folder / f"said-{rank}").write_text(said.getvalue())
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name in RESUMED:
        trained(folder / "resumed" / name, name, Processes(), steps=6)
    here = Path(__file__).parent
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(here), str(here.parent), str(folder)])
    try:
        train_together(folder, rank=0)
        assert other.wait(60) == 0
    finally:
        other.kill()
        other.wait()
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_does(folder, name):
    trained(folder / "alone" / name, name, Processes())
    assert_close(saved(folder / "together" / name), saved(folder / "alone" / name))


@pytest.mark.parametrize("name", CASES | SHARED_NORM)
def test_both_have_the_same_weights_and_buffers(folder, name):
    first, second = (load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_the_figures_are_of_the_whole_batch_and_written_once(folder):
    trained(folder / "figures", "wgan", Processes())
    alone, together = (read_rows(folder / run / "metrics.jsonl") for run in ("figures", "together/wgan"))
    assert [row["step"] for row in together] == [row["step"] for row in alone] == [3, 6, 9, 12]
    for left, right in zip(alone, together, strict=True):
        assert left.keys() == right.keys()
        assert right["epoch"] == left["epoch"]
        losses = {key: value for key, value in left.items() if "/" in key}
        assert {key: right[key] for key in losses} == pytest.approx(losses, abs=1e-5)


def test_both_stop_early_where_one_alone_does(folder):
    stopped_early(folder / "alone" / "early", Processes())
    alone, together = (Run(folder / which / "early") for which in ("alone", "together"))
    assert together.why == alone.why
    assert "stopped early at step 8: 2 validations without a held-out score better than 1" in together.why
    assert together.status() == "complete"
    assert_close(saved(together.path, 8), saved(alone.path, 8))
    first, second = (load_file(folder / f"early-{rank}.safetensors") for rank in range(2))
    assert first["step"] == 8
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_with_more_processes_or_fewer(folder, capsys, name):
    longer, fewer = folder / "longer" / name, folder / "fewer" / name
    trained(longer, name, Processes(), steps=15)
    assert_close(saved(folder / "resumed" / name), saved(longer))
    shutil.copytree(folder / "together" / name, fewer)
    capsys.readouterr()
    trained(fewer, name, Processes(), steps=15)
    assert_close(saved(fewer, 15), saved(longer, 15))
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "trained by 2 processes so far, now by 1" in said
    assert (folder / "said-0").read_text().count("trained by 1 processes so far, now by 2") == len(RESUMED)
    assert Run(fewer).status() == "complete"


def test_what_cannot_be_spread_is_refused():
    def check(case, *words):
        config = compose("train", [*CASES[case], "trainer.sharding=full", *words])
        model = build_model(config["model"], dataset_of(CASES[case], config).spec)
        check_sharding(model, check_config(config).trainer)

    check("bert")
    with pytest.raises(ConfigError, match="spreads transformers over processes, and VAE is not one"):
        check("vae")
    with pytest.raises(ConfigError, match=r"cannot be combined with trainer.precision=fp16"):
        check("bert", "trainer.precision=fp16")


def test_batch_norms_are_synchronised_on_gpus_alone():
    config = compose("train", SHARED_NORM["batch_norm"])
    model = build_model(config["model"], dataset_of(["data=digits"], config).spec)
    with pytest.raises(ConfigError, match="this is a cpu"):
        synchronize_batchnorm(model, torch.device("cpu"))
    synchronize_batchnorm(model, torch.device("cuda"))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
