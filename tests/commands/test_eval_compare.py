"""``aigc eval compare``: runs side by side, and records that were saved before."""

from pathlib import Path

import pytest
from evaluations import told

from aigc_cli.cli import main
from aigc_cli.runs import Run

pytestmark = pytest.mark.usefixtures("small_classifier")


def test_a_run_against_itself_at_another_step(
    tiny_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    other = tiny_run.path.with_name("other")
    shutil.copytree(tiny_run.path, other)
    shutil.rmtree(other / "checkpoints" / "step-5")
    words = ["compare", f"run={tiny_run.name},gan-digits/other", "--metric", "fd,vendi", "n=60"]
    first = told(capsys, *words)
    assert [one["name"] for one in first["compared"]] == [tiny_run.name, "gan-digits/other"]
    assert all(record["generated"]["seeds"] == 3 for one in first["compared"] for record in one["records"])
    assert {row["figure"] for row in first["differences"]} == {"fd[digits-cnn]", "vendi[digits-cnn]"}
    assert all(row["exceeds"] in (True, False) for row in first["differences"])
    from aigc_cli.metrics.evaluation import Evaluation

    drawn = []
    original = Evaluation.of
    monkeypatch.setattr(Evaluation, "of", lambda self, *items: drawn.append(items) or original(self, *items))
    assert told(capsys, *words)["differences"] == first["differences"]
    assert not drawn  # the saved records were measured under these very conditions
    told(capsys, *words, "seed=9")
    assert drawn
    files = [next(run.glob("eval/fd-*-n60-*.json")) for run in (tiny_run.path, other)]
    told(capsys, *words, "out=elsewhere")
    assert len(list(Path("elsewhere").iterdir())) == 4
    saved = told(capsys, "compare", f"run={files[0]},{files[1]}")
    assert {row["figure"] for row in saved["differences"]} == {"fd[digits-cnn]"}


@pytest.mark.parametrize(
    "changed",
    [
        '"spread": {"a": "z"}', '"bounds": {"a": 3}', '"figures": {"a": NaN}', '"facts": [1]',
        '"facts": {"per_token": 3}',
        f'"figures": {{"a": {"9" * 400}}}', '"figures": {"a": true}', '"better": {"a": ["lower"]}', '"real": 3',
    ],
    ids=lambda changed: changed[:30],
)  # fmt: skip
def test_a_record_from_a_stranger_is_data(tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text('{"metric": "fd", "figures": {"a": 1}, "spread": {"a": 1}, "bounds": {"a": "<="}}')
    words = ["eval", "compare", f"run={files[0]},{files[1]}"]
    assert main(words) == 0
    for file in files:
        file.write_text(f'{{"metric": "fd", "figures": {{"a": 1}}, {changed}}}')
    assert main(words) == 3
    assert "is not a record of an evaluation" in capsys.readouterr().err


def test_records_under_other_conditions_are_not_compared(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        told(capsys, "--metric", "fd", *words)["files"][0] for words in (["n=40"], ["n=41"], ["n=40", "split=test"])
    ]
    for other, named in ((made[1], "n is 40 and 41"), (made[2], "split is train and test")):
        assert main(["eval", "compare", f"run={made[0]},{other}"]) == 2
        message = capsys.readouterr().err
        assert "do not compare" in message
        if named.startswith("n "):
            assert named in message
    Path("no.json").write_text("{}")
    assert main(["eval", "compare", f"run={made[0]},no.json"]) == 3
