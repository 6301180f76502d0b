import base64
import csv
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from reports.conftest import record

from aigc_cli.cli import main
from aigc_cli.reports.facts import Facts, facts_of
from aigc_cli.reports.media import Album
from aigc_cli.reports.page import report
from aigc_cli.reports.svg import Line, chart, parallel, thinned, ticks
from aigc_cli.runs import Run, find_run

Make = Callable[..., Run]


class Checked(HTMLParser):
    """Holds that what is opened is closed, and keeps what leads out of the page."""

    VOID = ("meta", "link", "img", "input", "br", "line", "rect", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.leads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.leads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def filled(run: Run, *, sound: bool = False) -> Run:
    """With previews, a set of samples, nearest neighbours and a warning."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for step in (10, 20):
        Image.fromarray(noise).save(run.path / f"samples/step-{step}.png")
        (run.path / f"samples/step-{step}.txt").write_text("AI-generated <b>&</b>\x00\x1b\n")
    Image.fromarray(noise).save(run.path / "eval/memorization-1.png")
    (run.path / "warnings.txt").write_text("step 10: overfitting: the score <rose>\n")
    folder = run.path / "generated/step-20-seed-0"
    folder.mkdir(parents=True)
    files = ["000000.wav"] if sound else []
    for name in files:
        soundfile.write(folder / name, np.zeros(800), 8000)
    Image.fromarray(noise).save(folder / "grid.png")
    stranger = [*files, "../../../../secret.png"]
    (folder / "samples.json").write_text(
        json.dumps({"overview": ["grid.png"], "files": stranger, "seed": 0, "step": 20})
    )
    return run


def write_sweep(folder: Path, runs: list[Run]) -> None:
    folder.mkdir(parents=True)
    with (folder / "sweep.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", "overrides", "status", "run", "steps", "val/fd", "message"])
        for number, run in enumerate(runs):  # the last was given up when it was ahead
            lr, status = 10.0 ** -(number + 2), "complete" if number < 2 else "given up"
            steps, score = (20 + number, 90 - 10 * number) if number < 2 else (5, 30)
            writer.writerow([number + 1, f"model=gan optimizer.lr={lr}", status, run.path, steps, score, "a <loss>"])


def checked(page: str) -> Checked:
    parsed = Checked()
    parsed.feed(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(lead.startswith(("#", "data:")) for lead in parsed.leads)
    assert {lead[1:] for lead in parsed.leads if lead.startswith("#")} <= set(parsed.ids)
    return parsed


def test_a_page_needs_neither_a_network_nor_the_runs(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    filled(make("a", record(8.0)), sound=True), filled(make("b", record(5.0), seed=1))
    write_sweep(Path("outputs/sweeps/s"), [make("c"), make("d"), make("e")])
    Path("secret.png").write_bytes(b"")
    assert main(["report", "a", "b", "outputs/sweeps/s", "out=r/report.html"]) == 0
    assert "gan-digits/d" in capsys.readouterr().out  # the best of the sweep
    page = Path("r/report.html").read_text()
    checked(page)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", page)
    assert len(page) < 300_000
    for said in (
        "gan on digits", "20 of 20 steps", "fd[digits-cnn] 8 (real items: 1.5, lower is better)", "overfitting",
        "recipe/gan_digits.yaml", "3 jobs, 2 of them complete", "a &lt;loss&gt;", "8 ± 0.1", "x.name=&lt;/script&gt;",
        "nearest training items", "data-of=\"run-0-last-png\"", "<audio controls", "AI-generated &lt;b&gt;",
        "torch==2", "fingerprint abab",
    ):  # fmt: skip
        assert said in page, said
    assert "secret" not in page


def test_the_latest_run_by_itself(make: Make) -> None:
    run = make("a")
    Path("outputs/latest").symlink_to(run.path)
    assert main(["report", "--json"]) == 0
    page = Path("report.html").read_text()
    checked(page)
    assert "<h1>gan-digits/a</h1>" in page
    assert "Comparison" not in page


def test_an_overview_has_columns_for_the_scores_that_most_runs_share(make: Make) -> None:
    def kept(run: Run, metric: str, **figures: float) -> None:
        (run.path / f"eval/{metric}.json").write_text(
            json.dumps({**record(1.0), "metric": metric, "figures": figures, "spread": {}, "better": {}})
        )

    for name in ("a", "b", "c"):
        run = make(name)
        if name != "b":  # the scores of a VAE, before its fd
            kept(run, "elbo", elbo=1.0, nelbo=-1.0, kl=2.0, kl_std=0.1, mse=3.0)
        kept(run, "fd", **{"fd[digits-cnn]": 7.5})
    kept(run, "memorization", copies=0.1)
    page = report(facts_of([find_run(name) for name in ("a", "b", "c")]))[0]
    head = re.search(r"<thead>(.*?)</thead>", page)[1]  # type: ignore[index]
    assert re.findall("<th>(.*?)</th>", head)[4:-2] == ["fd[digits-cnn]", "elbo", "nelbo", "kl", "other scores"]
    rows = [re.findall("<td.*?>(.*?)</td>", row)[4:-2] for row in re.findall("<tr>(.*?)</tr>", page)[1:4]]
    assert rows == [
        ["7.5", "1", "-1", "2", "mse 3"],
        ["7.5", "", "", "", ""],
        ["7.5", "1", "-1", "2", "mse 3, copies 0.1"],
    ]


@pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("pdftotext") is None, reason="no chromium or poppler"
)
def test_no_column_of_a_wide_table_is_cut_on_paper(make: Make, tmp_path: Path) -> None:
    runs = [make(name * 24, seed=seed) for name, seed in zip("abcdefgh", range(1001, 1009), strict=True)]
    (tmp_path / "report.html").write_text(report(facts_of(runs))[0])
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    paper = f"--print-to-pdf={tmp_path / 'report.pdf'}"
    command = ["chromium", *options, paper, f"file://{tmp_path / 'report.html'}"]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    command = ["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert any(all(str(seed) in line for seed in range(1001, 1009)) for line in printed.splitlines())


@pytest.mark.parametrize("words", [["nothing"], ["a", "out=page.png"], ["a", "colour=red"], ["broken"]])
def test_what_cannot_be_reported_is_refused_before_anything_is_written(make: Make, words: list[str]) -> None:
    make("a"), (make("broken").path / "config.yaml").write_text("- a\n")
    assert main(["report", *words]) in (2, 3)
    assert not Path("report.html").exists()


def test_runs_with_a_comma_between_are_told_how_they_are_written(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a"), make("b")
    assert main(["report", "a,b"]) == 2
    assert "separate runs by spaces: a b" in capsys.readouterr().err


def test_what_has_no_room_is_named(make: Make) -> None:
    page, left_out = report([Facts(filled(make("a")))], room=20_000)
    checked(page)
    assert left_out
    assert all(f"{name}" in page for name in left_out)
    assert len(page) < 100_000


def test_large_pictures_and_sounds_are_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(size=30 * 8000) / 10, 8000)
    album = Album(3_000_000, tmp_path)
    assert "data:image/jpeg" in album.show(tmp_path / "a.png")
    assert "data:audio/mpeg" in album.show(tmp_path / "a.wav")
    assert 3_000_000 - album.room < 600_000
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert album.show(tmp_path / "b.png") == ""
    assert "b.png" in album.left_out[0]


def test_a_picture_that_moves_stays_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    first, *others = map(Image.fromarray, draw)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100, lossless=True)
    assert (tmp_path / "a.webp").stat().st_size > 60_000
    shown = Album(10**6, tmp_path).show(tmp_path / "a.webp")
    with Image.open(io.BytesIO(base64.b64decode(shown.partition("base64,")[2].partition('"')[0]))) as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]


def test_what_is_nan_or_infinite_is_marked_at_its_step(make: Make) -> None:
    run = make("a")
    rows = [
        {"step": step, "main/loss": loss, "main/kl": math.nan}
        for step, loss in ((5, 2.0), (10, math.nan), (15, math.inf))
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report(facts_of([run]))[0]
    crosses = re.findall(r'<path class="lost"[^>]*><title>([^<]*)</title>', page)
    lost = ["step 10: main/loss is nan", "step 15: main/loss is inf"]
    assert crosses == [*lost, *(f"step {step}: main/kl is nan" for step in (5, 10, 15))]
    assert re.findall("<h4>(.*?) <button", page) == ["loss", "kl"]
    assert page.count("main/loss (\N{MULTIPLICATION SIGN}: NaN or infinite)</span>") == 1
    for found in re.findall(r'<script type="application/json">(.*?)</script>', page):
        json.loads(found, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_no_peak_is_lost_where_points_are_thinned() -> None:
    points = [(float(step), 1.0) for step in range(10_000)]
    points[777] = (777.0, 50.0)
    kept = thinned(points)
    assert len(kept) <= 402
    assert points[777] in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(3, 3) == [3]
    assert 2 <= len(ticks(-1e-7, 3e-7)) <= 8


def test_a_chart_has_its_numbers_and_says_them() -> None:
    made = chart("a<b", [Line("train", [(1, 2.0), (2, 1.0)]), Line("val", [(2, 3.0)], 1, dashed=True)], {"m": 2})
    data = json.loads(re.search(r'json">(.*?)</script>', made)[1])  # type: ignore[index]
    assert data["lines"][0] == {"name": "train", "points": [[1, 2.0], [2, 1.0]], "lost": {}}
    assert 'aria-label="a&lt;b: train from 2 to 1; val from 3 to 3"' in made
    assert "step 2: m" in made


def test_parallel_coordinates_take_words_and_missing_values() -> None:
    rows = [("one", ["adam", "0.1", 3.0]), ("two", ["sgd", "0.0001", 4.0]), ("three", [None, "0.01", 5.0])]
    made = parallel(["optimizer", "lr", "fd"], rows)
    assert made.count("<polyline") == 3
    assert "best" in made.rpartition("<polyline")[2]
    places = [float(pair.split(",")[1]) for pair in re.findall(r'points="([^"]*)"', made)[1].split()]
    assert 100 < places[0] < 250  # 0.01 is in the middle of a logarithmic axis


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_draws_it_without_an_error(make: Make, tmp_path: Path) -> None:
    page, _ = report([Facts(filled(make("a"))), Facts(filled(make("b", seed=1)))])
    (tmp_path / "report.html").write_text(page)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert 'data-of="run-1-last-png" src="data:' in done.stdout  # the script ran


def test_what_links_of_a_run_lead_to_is_not_passed_on(make: Make, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text('{"key": "SECRET"}')
    run = filled(make("a"))
    for name in ("samples/step-20.txt", "command.txt", "warnings.txt", "env.json", "data.json"):
        (run.path / name).unlink()
        (run.path / name).symlink_to(tmp_path / "own.txt")
    page, left_out = report([Facts(run)])
    assert "SECRET" not in page
    assert left_out == ["gan-digits/a/step-20.txt (it is not in the run)"]


def test_runs_of_one_name_are_told_apart(make: Make, tmp_path: Path) -> None:
    first = filled(make("a"))
    second = tmp_path / "copies/gan-digits/a"
    shutil.copytree(first.path, second)
    page, _ = report(facts_of([first, Run(second)]))
    found = checked(page)
    assert len(found.ids) == len({*found.ids})
    assert "outputs/gan-digits/a</h2>" in page
    assert "copies/gan-digits/a</h2>" in page


def test_a_run_from_a_stranger_is_reported_as_far_as_it_can_be_read(make: Make) -> None:
    run = make("a", record(3.0))
    odd: list[dict[str, Any]] = [
        {"figures": {"fd": None}}, {"metric": ["m"]}, {"better": [1]}, {"floor": 7}, {"notes": 1}, {"spread": "x"}
    ]  # fmt: skip
    for number, change in enumerate(odd):
        (run.path / f"eval/{number}.json").write_text(json.dumps({**record(1.0), **change}))
    (run.path / "env.json").write_text('{"gpus": [1], "versions": 3}')
    with (run.path / "metrics.jsonl").open("a") as file:
        for value in ('"x"', "1" + "0" * 400, "[" * 100_000 + "]" * 100_000):
            file.write(f'{{"step": 20, "seconds": {value}, "items_per_second": {value}, "a/b": {value}}}\n')
    page, _ = report([Facts(run)])
    checked(page)
    assert len(Facts(run).records) == 1
