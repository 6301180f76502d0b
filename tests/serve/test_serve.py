"""A server gives each request what it would get alone, and refuses what it should, with the right status."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from PIL import Image
from serve_runs import fresh_runs, serving

from aigc_cli.api import LoadedRun
from aigc_cli.cli import main
from aigc_cli.commands.serve import _bound
from aigc_cli.errors import ConfigError
from aigc_cli.serve.guard import Limits
from aigc_cli.serve.house import House

ROOT = Path(__file__).resolve().parents[2]
WRITER, FILLER, VAE, TOLD, TRANSLATOR, SOUND = (
    "text/writer", "text/filler", "digits/vae", "digits/told", "pairs/translator", "tones/vae"
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LoadedRun]]:
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fresh_runs([WRITER, FILLER, VAE, TOLD, TRANSLATOR, SOUND])


@pytest.fixture(scope="module")
def served(runs: list[LoadedRun]) -> Iterator[tuple[str, House]]:
    with serving(runs) as (url, house):
        yield url, house


@pytest.fixture(scope="module")
def client(served: tuple[str, House]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0], timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def openly(served: tuple[str, House]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0) as client:
        yield client


def pixels(sample: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sample["data"]))), dtype=int)


# OpenAI's client


def test_openais_client_lists_the_runs_and_streams_what_it_gets_whole(openly: openai.OpenAI) -> None:
    assert [model.id for model in openly.models.list()][:2] == [WRITER, FILLER]
    assert openly.models.retrieve(WRITER).owned_by == "aigc"
    asked: dict[str, Any] = {"model": WRITER, "prompt": "the cat", "max_tokens": 20, "seed": 3}
    whole = openly.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in openly.completions.create(**asked, stream=True)]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 20


def test_a_text_is_that_of_the_command_alone_and_among_others(
    openly: openai.OpenAI, runs: list[LoadedRun], served: tuple[str, House]
) -> None:
    """32 at once, of unequal prompts, lengths and controls; some rows end while others are still to come."""

    def ask(seed: int) -> str:
        prompt = ["the ", "a mat and", "so", ""][seed % 4]
        made = openly.completions.create(
            model=WRITER, prompt=prompt, max_tokens=8 + 3 * seed, seed=seed, temperature=[1.0, 0.7, 0][seed % 3],
            extra_body={"repetition_penalty": 1.3} if seed % 5 == 0 else {"top_k": 9} if seed % 3 == 1 else {},
        )  # fmt: skip
        return made.choices[0].text

    alone = [ask(seed) for seed in range(32)]
    worker = served[1].runs[WRITER].worker
    before = worker.batches, worker.batched
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == alone
    assert worker.batched - before[1] > 2 * (worker.batches - before[0])
    samples = runs[0].sample(1, seed=1, prompt="a mat and", max_tokens=11, temperature=0.7, top_k=9)
    assert samples == ["a mat and" + alone[1]]


def test_n_texts_are_the_first_of_more_and_stop_ends_them(openly: openai.OpenAI, runs: list[LoadedRun]) -> None:
    made = openly.completions.create(model=WRITER, prompt="the cat", n=3, max_tokens=30, seed=5, echo=True)
    texts = [choice.text for choice in made.choices]
    assert texts == runs[0].sample(3, seed=5, prompt="the cat", max_tokens=30)
    stop = texts[0][len("the cat") + 6 : len("the cat") + 8]
    first = openly.completions.create(model=WRITER, prompt="the cat", max_tokens=30, seed=5, stop=stop).choices[0]
    assert first.text == texts[0][len("the cat") :].partition(stop)[0]
    assert first.finish_reason == "stop"


def test_logprobs_are_those_of_the_model(openly: openai.OpenAI) -> None:
    choice = openly.completions.create(
        model=WRITER, prompt="the cat", max_tokens=5, temperature=0, logprobs=3
    ).choices[0]  # fmt: skip
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.top_logprobs is not None
    assert told.token_logprobs is not None
    for logprob, top in zip(told.token_logprobs, told.top_logprobs, strict=True):
        assert logprob == pytest.approx(max(top.values()))  # the likeliest was taken
    assert "".join(told.tokens) == choice.text
    asked: dict[str, Any] = {"model": WRITER, "prompt": "the", "max_tokens": 2, "seed": 0}
    many = openly.completions.create(**asked, logprobs=20).choices[0].logprobs
    assert many is not None
    assert many.top_logprobs is not None
    assert [len(top) for top in many.top_logprobs] == [20, 20], "each token has a name of its own"


def test_other_models_complete_embed_fill_and_translate(openly: openai.OpenAI, client: httpx.Client) -> None:
    made = openly.completions.create(model=FILLER, prompt="the", max_tokens=4, seed=0)
    written = made.choices[0]
    assert written.finish_reason == "length"
    assert made.usage is not None
    assert 0 < made.usage.prompt_tokens <= len("the")
    assert 0 < made.usage.completion_tokens <= 4
    streamed = list(openly.completions.create(
        model=FILLER, prompt="the", max_tokens=4, seed=0, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert streamed[-1].usage == made.usage
    told = openly.completions.create(model=FILLER, prompt="the", max_tokens=4, seed=0, stop=written.text[-1]).choices[0]
    assert (told.text, told.finish_reason) == (written.text.partition(written.text[-1])[0], "stop")
    whole = openly.completions.create(model=FILLER, prompt="the ____ cat", extra_body={"mode": "infill"}).choices[0]
    assert whole.finish_reason == "stop"
    asked: dict[str, Any] = {"model": TRANSLATOR, "prompt": "the", "temperature": 1, "seed": 0, "n": 16}
    some, more = (openly.completions.create(**asked, max_tokens=most).choices for most in (30, 50))
    assert {each.finish_reason for each in some} == {"length", "stop"}
    for each, longer in zip(some, more, strict=True):
        assert (each.text == longer.text) == (each.finish_reason == "stop")
    vectors = openly.embeddings.create(model=FILLER, input=["the cat", "a mat"]).data  # base64, as it asks by itself
    assert len(vectors[0].embedding) == 16
    filled = client.post("/infill", json={"model": FILLER, "prompt": "the ____ cat", "seed": 1}).json()["samples"]
    assert filled[0]["text"].startswith("the ")
    asked = {"model": TRANSLATOR, "text": ["the cat", "a mat"], "max_tokens": 6}
    assert len(client.post("/translate", json=asked).json()["samples"]) == 2


# pictures and sound


def test_pictures_are_of_their_class_and_seed_alone_and_among_others(client: httpx.Client) -> None:
    def ask(seed: int) -> dict[str, Any]:
        asked = {"model": TOLD, "n": 2, "seed": seed, "class": "3,5"}
        answer = client.post("/generate", json=asked)
        assert answer.headers["x-ai-generated"].startswith("AI-generated")
        made: dict[str, Any] = answer.json()
        return made

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, [seed % 4 for seed in range(8)]))
    for seed, made in enumerate(together):
        assert [sample["class"] for sample in made["samples"]] == ["3", "5"]
        for one, other in zip(made["samples"], alone[seed % 4]["samples"], strict=True):
            assert abs(pixels(one) - pixels(other)).max() <= 1
    number = client.post("/generate", json={"model": TOLD, "n": 1, "class": 3}).json()
    assert number["samples"][0]["class"] == "3", "as at the command line"
    about = alone[0]["aigc"]
    assert (about["label"], about["run"], about["seed"]) == ("AI-generated", TOLD, 0)


def test_a_file_is_had_as_it_is_with_its_label(client: httpx.Client) -> None:
    asked = {"model": TOLD, "n": 1, "seed": 0, "response": "file"}
    answer = client.post("/generate", json=asked)
    assert answer.headers["content-type"] == "image/png"
    assert "AI-generated" in Image.open(io.BytesIO(answer.content)).text["Description"]  # type: ignore[attr-defined]
    sound = client.post("/generate", json={**asked, "model": SOUND})
    assert sound.content[:4] == b"RIFF"
    assert b"AI-generated" in sound.content
    assert json.loads(sound.headers["x-aigc-provenance"])["run"] == SOUND


def test_an_upload_is_reconstructed(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(buffer, "PNG")
    where, kind = f"/reconstruct?model={VAE}", {"content-type": "image/png"}
    original, made = client.post(where, content=buffer.getvalue(), headers=kind).json()["samples"]
    assert original["role"] == "original"
    assert "label" not in original
    assert made["label"] == "AI-generated"
    assert (pixels(original) == np.arange(64).reshape(8, 8) * 3).all()
    sound = client.post("/generate", json={"model": SOUND, "n": 1, "response": "file"}).content
    again = client.post(f"/reconstruct?model={SOUND}", content=sound, headers={"content-type": "audio/wav"})
    assert len(again.json()["samples"]) == 2
    assert "/tmp" not in again.text
    for content, status in ((b"no picture", 400), (b"", 400)):
        assert client.post(where, content=content, headers=kind).status_code == status
    assert client.post(where, content=b"x", headers={"content-type": "x/y"}).status_code == 415
    assert client.post(f"{where}&seed=-1", content=b"x", headers=kind).status_code == 400


def test_an_upload_that_would_fill_the_memory_is_refused_before_it_is_decoded(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (5000, 4000)).save(buffer, "PNG")  # of 3 kB
    kind = {"content-type": "image/png"}
    answer = client.post(f"/reconstruct?model={VAE}", content=buffer.getvalue(), headers=kind)
    assert answer.status_code == 400
    assert "64 MB once it is decoded" in answer.json()["error"]["message"]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(np.arange(1000, dtype=np.int16), 18_000), 8000, format="FLAC")  # 38 minutes
    kind = {"content-type": "audio/flac"}
    answer = client.post(f"/reconstruct?model={SOUND}", content=buffer.getvalue(), headers=kind)
    assert "64 MB once it is decoded" in answer.json()["error"]["message"]


# what is refused


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/generate", {"model": TOLD, "n": 10_000}, 400, "1 to 64 samples"),
        ("/generate", {"model": TOLD, "class": "../../etc/passwd"}, 400, "no such class"),
        ("/generate", {"model": TOLD, "truncaton": 1.0}, 400, "did you mean truncation"),
        ("/generate", {"model": TOLD, "mode": "interpolate", "frames": 1000}, 400, "up to 64"),
        ("/generate", {"model": SOUND, "mode": "reconstruct", "prompt": "/etc/passwd"}, 400, "none of this server"),
        ("/generate", {"model": TOLD, "format": "exe"}, 400, "format=exe"),
        ("/generate", {"model": "../x"}, 404, "there is no run"),
        ("/infill", {"model": TOLD}, 400, "fills no gaps"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 10**6}, 400, "up to 2048"),
        ("/v1/completions", {"prompt": "the", "n": 65}, 400, "1 to 64"),
        ("/v1/completions", {"prompt": "\u4e2d"}, 400, "vocabulary"),
        ("/v1/completions", {"prompt": [10**6]}, 400, "vocabulary"),
        ("/v1/completions", {"prompt": [5] * 9000}, 400, "8,192 tokens"),
        ("/v1/completions", {"prompt": "the", "seed": "one"}, 400, "seed"),
        ("/v1/completions", {"prompt": "the", "echo": True, "logprobs": 1}, 400, "leave out echo or logprobs"),
        ("/v1/completions", {"prompt": "the", "presence_penalty": 1}, 400, "not supported"),
        ("/v1/completions", {"model": TOLD, "prompt": "the"}, 400, "completes no texts"),
        ("/v1/embeddings", {"model": TOLD, "input": "the"}, 400, "reads text"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_a_line(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_strangers_are_refused_before_anything_is_read(client: httpx.Client) -> None:
    def status(path: str = "/v1/models", method: str = "GET", **how: Any) -> int:
        return client.request(method, path, **how).status_code

    assert status(headers={"host": "evil.example"}) == 421
    assert status(headers={"host": "127.0.0.1.evil.example:80"}) == 421
    assert status(headers={"origin": "http://evil.example"}) == 403
    assert status("/generate", "POST", content="{}", headers={"content-type": "text/plain"}) == 415
    assert status("/generate", "POST", content="{", headers={"content-type": "application/json"}) == 400
    with socket.create_connection((client.base_url.host, client.base_url.port)) as large:  # a body of 1 GB
        large.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n")
        assert large.recv(12) == b"HTTP/1.1 413"
    parts = (b"x" * 2**20 for _ in range(12))  # a body that does not say how long it is
    with contextlib.suppress(httpx.HTTPError):  # hung up on while it was still sending
        assert status("/generate", "POST", content=parts, headers={"content-type": "application/json"}) == 413
    half = '{"model": "' + TOLD + '", "format": "\\ud800"}'  # half a character, which an answer cannot hold
    assert status("/generate", "POST", content=half, headers={"content-type": "application/json"}) == 400
    assert status("/docs") == 404
    assert status("/health", headers={"host": "localhost"}) == 200
    assert "access-control-allow-origin" not in client.get("/health").headers


def test_another_machine_needs_the_token(runs: list[LoadedRun]) -> None:
    with serving(runs[:1], host="0.0.0.0", token="a-long-secret") as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer a-long-secres"}).status_code == 401
        assert client.post("/generate", json={}).status_code == 401
        good = {"authorization": "Bearer a-long-secret"}
        assert client.get("/v1/models", headers=good).status_code == 200
        assert client.get("/v1/models", headers={**good, "host": "192.168.0.7"}).status_code == 200
        assert client.get("/v1/models", headers={**good, "host": "evil.example"}).status_code == 421


def test_a_full_queue_is_told_and_whoever_leaves_makes_room(runs: list[LoadedRun]) -> None:
    asked = {"prompt": "the", "max_tokens": 100_000, "temperature": 0, "stream": True}
    with (
        serving(runs[:1], Limits(queue=1, tokens=100_000)) as (url, house),
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        with client.stream("POST", "/v1/completions", json=asked) as stream:
            lines = stream.iter_lines()  # held: what is dropped hangs up
            next(lines)
            full = client.post("/v1/completions", json={"prompt": "the"})
            assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        left = client.build_request("POST", "/v1/completions", json={**asked, "stream": False}, timeout=1)
        deadline = time.monotonic() + 20
        while house.counts.waiting and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(httpx.TimeoutException):  # who waits for all of it at once leaves too
            client.send(left)
        assert house.counts.waiting
        time.sleep(2)
        assert client.post("/v1/completions", json={"prompt": "the", "max_tokens": 2}).status_code == 200
        counted = client.get("/metrics").text
    assert 'aigc_requests_total{route="/v1/completions",status="429"} 1' in counted


def test_what_takes_too_long_is_given_up(runs: list[LoadedRun]) -> None:
    with serving(runs[:1], Limits(seconds=0.3)) as (url, _):
        asked = {"prompt": "the", "max_tokens": 2000, "temperature": 0}
        assert httpx.post(f"{url}/v1/completions", json=asked).status_code == 504


# the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["host=0.0.0.0"], "add token="),
        (["run=text/nobody"], "there is no run"),
        (["token=short"], "token"),
        (["port=99999999"], "port"),
    ],
)
def test_the_command_refuses_in_a_line(
    runs: list[LoadedRun], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", f"run={WRITER}", "port=0", *words]) == 2
    assert said in capsys.readouterr().err


def test_two_runs_of_one_name_are_not_served_as_one(
    runs: list[LoadedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs[0].run.path, tmp_path / WRITER)
    assert main(["serve", f"run={WRITER},{other}", "port=0"]) == 2
    assert f"are both called {WRITER}" in capsys.readouterr().err


def test_a_place_is_taken_before_the_run_is_loaded() -> None:
    with _bound("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="cannot be listened on"):
        _bound("127.0.0.1", first.getsockname()[1])


def test_a_signal_drains_what_is_at_work(runs: list[LoadedRun]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "aigc_cli", "serve", f"run={WRITER}", f"port={port}", "device=cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        while "listening" not in (line := process.stderr.readline()):
            assert line, "it ended"
        url, asked = f"http://127.0.0.1:{port}", {"prompt": "the", "max_tokens": 300, "stream": True, "temperature": 0}
        client = httpx.Client(transport=httpx.HTTPTransport(retries=5), timeout=60)
        with client, client.stream("POST", f"{url}/v1/completions", json=asked) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(timeout=60) in (143, -signal.SIGTERM)
