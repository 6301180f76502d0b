"""Every command that the README and the pages of docs/ show is run, on small settings."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile
from PIL import Image
from trouble_sound import sine

from aigc_cli.cli import main

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = ROOT / "tests" / "plugins" / "signals"
PAGES = {path.stem: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
#: Of each page in their order: what one resumes, samples or evaluates was trained by those before it, or is at home.
COMMANDS = {
    page: [
        line
        for block in re.findall(r"```console\n(.*?)```", PAGES.get(page, ""), flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith("aigc")
    ]
    for page in ("README", "own-data", "train", "data", "sample", "evaluate", "configure", "extend", "tokens")
}
FEW = ["trainer.steps=4", "trainer.batch_size=8", "trainer.sample_every=4", "trainer.samples=4", "model.width=8"]
STOPS = {"trainer.validate_every": "4", "trainer.steps": "4", "n": "8", "hydra.sweeper.n_trials": "2"}
LARGER = {"n": "400"}  # enough for the statistics of a metric


def fence(language, holding):
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGES["extend"], flags=re.DOTALL)
    return next(block for block in blocks if holding in block)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A folder with pictures, a plugin, and runs to go on with, of which the latest has a best checkpoint."""
    folder = tmp_path_factory.mktemp("furnished")
    for place in ("pictures", "samples"):
        (folder / place).mkdir()
        for i in range(12):
            Image.effect_noise((80, 70), 60 + i).save(folder / place / f"{i}.png")
    (folder / "sounds").mkdir()
    for i in range(12):
        soundfile.write(folder / "sounds" / f"{i}.wav", sine(300 + 50 * i, 16000), 16000)
    (folder / "letters").mkdir()
    (folder / "letters" / "all.txt").write_text(PAGES["train"] + PAGES["data"])
    shutil.copytree(SIGNALS, folder, dirs_exist_ok=True)
    (folder / "my_data.py").write_text(fence("python", "@register"))
    (folder / "my_flow.py").write_text(fence("python", "class MyFlow(Model)"))
    for kind, name in (("data", "discs"), ("model", "my_flow")):
        (folder / "configs" / kind).mkdir(exist_ok=True)
        (folder / "configs" / kind / f"{name}.yaml").write_text(fence("yaml", f"name: {name}"))
    with pytest.MonkeyPatch.context() as patch:
        at_home(folder, patch)
        for words in (["model=transformer"], ["trainer.validate_every=4"]):
            assert main(["train", *words, *FEW]) == 0
    return folder


def at_home(folder, patch):
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)


@pytest.fixture
def home(furnished, tmp_path, monkeypatch):
    """The same for one page, so that pages may come in any order."""
    folder = tmp_path / "home"
    shutil.copytree(furnished, folder, symlinks=True)
    at_home(folder, monkeypatch)
    return folder


def small(line, shared_data, folder):
    """The words of a command, with what would take long made short."""
    words = shlex.split(line)[1:]
    limits = STOPS | (LARGER if words[0] == "eval" else {})
    words = [f"{word.split('=')[0]}={limits[word.split('=')[0]]}" if word.split("=")[0] in limits else word
             for word in words]  # fmt: skip
    if words[0] == "train" and "--resume" not in words:
        given = {word.split("=")[0] for word in words}
        words += [word for word in FEW if word.split("=")[0] not in given]
    if "data=cifar10" in words:
        words.append(f"data.root={shared_data / 'cifar10'}")
    stamp = re.compile(r"(gan-digits|transformer-pydocs)/\d{4}-\S+")

    def made(match):
        return str(next((folder / "outputs").glob(f"{match[1]}/*")).relative_to(folder / "outputs"))

    return [stamp.sub(made, word) for word in words]


@pytest.mark.usefixtures("small_classifier")
@pytest.mark.parametrize("page", COMMANDS)
def test_its_commands_run(page, home, request, capsys):
    for line in COMMANDS[page]:
        for extra, module in (("joblib", "hydra_plugins.hydra_joblib_launcher"), ("optuna", "optuna.storages.journal")):
            if extra in line:
                pytest.importorskip(module, reason="the extra aigc-cli[sweep] is not installed")
        shared = request.getfixturevalue("shared_data") if "cifar10" in line else None
        words = small(line, shared, home)
        if re.search(r"\b(fid|kid)\b", line):  # the published weights are a download
            words.append(f"weights={request.getfixturevalue('random_inception')}")
        code = main(words)
        assert code == 0, f"{line}: {capsys.readouterr().err}"


def test_the_pieces_of_the_plugin_are_its_own():
    section, whole = PAGES["extend"].split("## A modality")[1], (SIGNALS / "signals.py").read_text()
    pieces = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(pieces) > 3
    assert all(piece in whole for piece in pieces)


def test_the_exit_codes_are_the_ones_told():
    from aigc_cli import errors

    section = PAGES["configure"].split("## Exit codes")[1].split("`--debug`")[0]
    told = {int(number) for number in re.findall(r"(?:^|;\s)(\d+) ", section.strip())}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AigcError)]
    assert {kind.exit_code for kind in kinds} | {errors.EXIT_OK} == told


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if page == "README" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGES[page]):
        assert link.startswith("http") or (folder / link).exists(), f"{page}.md links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_tests_and_benchmarks_are_there(page):
    for path in re.findall(r"`(?:python )?((?:tests|benchmarks|aigc_cli)/[\w/.]+)`", PAGES[page]):
        assert (ROOT / path).exists(), f"{page}.md names {path}"
