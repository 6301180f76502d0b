"""``aigc verify``: what files claim about where they come from, and what of it is proven by drawing them again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from aigc_cli.commands.sample import Drawing, SampleConfig, drawing_of
from aigc_cli.config.words import asked_of
from aigc_cli.errors import EXIT_OK, AigcError, ConfigError, DataError, say_plainly
from aigc_cli.exported_run import ExportedRun, open_exported
from aigc_cli.files import checksum, path_of, read_json, write_atomically
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.credentials import Signature, read_signature, root_certificate
from aigc_cli.modalities.image_writers import GRID
from aigc_cli.modalities.labels import read_label
from aigc_cli.modalities.likeness import Likeness, compared
from aigc_cli.modalities.samples import LABEL, ORIGINAL, RECORD, ROLE, read_record, recorded_files
from aigc_cli.modalities.watermarks import score_of
from aigc_cli.nn.watermark import Key
from aigc_cli.run_index import known_runs
from aigc_cli.runs import OUTPUTS, Run, find_run
from aigc_cli.sampling.claims import NEEDED, is_complete, of_text, place_of

_KEYS = ("run", "outputs", "device", "data.root", "watermark", "trust")
#: What is found of a file, from the strongest to the weakest.
PROVEN, ALTERED, SIGNED, MARKED, CLAIMED, UNKNOWN = "proven", "altered", "signed", "marked", "claimed", "unknown"
_UNKNOWN = "it carries no label; that does not say that a person made it"
_MOST = 10_000  # samples that are drawn to prove one


@dataclass
class Found:
    """What is known of a file: a verdict, why, what its label says, and where that stands."""

    file: str
    verdict: str
    why: str
    claims: dict[str, Any]
    labels: list[str]
    watermark: dict[str, Any] | None = None
    signature: dict[str, Any] | None = None


def main(names: Sequence[str], words: Sequence[str], *, as_json: bool = False) -> int:
    """Says of each file that `names` names, or each in a folder, what it claims and what is proven.

    Raises:
        ConfigError: there is no such file or key.
    """
    asked = asked_of(words, _KEYS, "verify")
    paths = [path for name in names for path in _files(path_of(name))]
    if not paths:
        raise ConfigError("aigc verify needs a file", "name files, or a folder that aigc sample wrote")
    with TemporaryDirectory() as temporary:
        verifier = Verifier(asked, Path(temporary))
        # The last first: of the samples that are drawn for it, those before it are the first.
        found = [verifier.verify(path) for path in reversed(paths)][::-1]
    if as_json:
        say_plainly(json.dumps([asdict(each) for each in found], ensure_ascii=False))
    else:
        say_plainly("\n".join(_in_a_line(line) for each in found for line in _described(each)))
    return DataError.exit_code if any(each.verdict == ALTERED for each in found) else EXIT_OK


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        record = read_record(path)
        listed = recorded_files(record) if record else {entry.name for entry in path.iterdir() if entry.is_file()}
        return [path / name for name in sorted(listed - {RECORD})]
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", "name a file, or a folder that aigc sample wrote")
    return [path]


def _in_a_line(text: str) -> str:
    """A text of a stranger's, which else could move the cursor, or begin a line that looks like a verdict."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _described(found: Found) -> Iterator[str]:
    yield found.file
    claims = found.claims
    if claims.get(ROLE) == ORIGINAL:
        yield f"  claims:   an original of {claims.get('data')}, for comparison"
    elif claims.get("run"):
        which = f", sample {claims['index']}" if "index" in claims else ""
        made = f"{claims.get('model')} trained on {claims.get('data')}"
        at = f"run {claims['run']}, step {claims.get('step')}, seed {claims.get('seed')}{which}"
        yield f"  claims:   {LABEL} by {made}: {at}"
    if found.labels:
        yield f"  labels:   {', '.join(found.labels)}"
    if found.signature is not None:
        yield f"  signed:   {_signed(found.signature)}"
    if (mark := found.watermark) is not None:
        said = f"z {mark['z']:.1f}, which chance gives once in {1 / max(mark['p'], 1e-300):,.3g} times"
        yield f"  mark:     {'found' if mark['found'] else 'not found'}: {said}"
    yield f"  {f'{found.verdict}:':<9} {found.why}"


def _signed(signature: Mapping[str, Any]) -> str:
    """What a signature is worth."""
    if "by" not in signature:
        return str(signature["why"])
    by = f"by {signature['by']}"
    if not signature["valid"]:
        return f"{by}, and changed since: {', '.join(signature['problems'])}"
    known = (
        "a root that you trust" if signature["trusted"] else "a name that anybody could write: no root that is known"
    )
    return f"{by}, and not changed since; {known}"


class Drawn(NamedTuple):
    """Samples that were drawn again, `n` of them, and the names of their files in order."""

    n: int
    folder: Path
    files: list[str]

    def name(self, index: int) -> str:
        """The name of a sample's file; "" where samples share one."""
        return self.files[index] if index < len(self.files) else ""


class Verifier:
    """Reads claims and draws again what they say, each set of samples once."""

    def __init__(self, asked: Mapping[str, str], temporary: Path) -> None:
        self.asked, self.temporary = asked, temporary
        self.root = path_of(asked.get("outputs") or OUTPUTS)
        self.key = Key(asked["watermark"]) if "watermark" in asked else None
        self.trusted = path_of(asked["trust"]) if "trust" in asked else None
        if self.trusted is not None:
            root_certificate(self.trusted)  # whatever the files turn out to be
        self._drawn: dict[str, list[Drawn]] = {}
        self._runs: dict[tuple[str, int], Run | None] = {}
        self._record = cache(read_record)

    def verify(self, path: Path) -> Found:
        """What is known of one file."""
        if not path.is_file():
            return Found(str(path), UNKNOWN, f"{RECORD} beside it names it, and it is not there", {}, [])
        label = read_label(path)
        claims, record = dict(label.get("provenance", {})), self._record(path.parent) or {}
        labels = [name for name, key in (("DigitalSourceType", "digital_source_type"), ("GB 45438", "gb45438"),
                                         ("provenance", "provenance")) if key in label]  # fmt: skip
        if path.suffix == ".jsonl" and not claims:
            claims = of_text(path)
            labels += ["provenance beside each text"] if claims else []
        source = claims.get("source")
        if (not claims or (isinstance(source, dict) and "lines" in source)) and path.name in recorded_files(record):
            claims, labels = {**record, **place_of(record, path.name)}, [*labels, f"{RECORD} beside it"]
        signature = read_signature(path, self.trusted)
        if isinstance(signature, Signature):
            claims = claims or dict(signature.claims)
        found = Found(str(path), UNKNOWN, _UNKNOWN, claims, labels)
        self._look_for_mark(path, found)
        if signature is not None:
            found.signature = {"why": signature} if isinstance(signature, str) else asdict(signature)
        if claims or labels:
            self._judge(path, found, record)
        if isinstance(signature, Signature) and not signature.valid:
            found.verdict, found.why = ALTERED, "it was changed since it was signed"
        elif isinstance(signature, Signature) and found.verdict in (CLAIMED, MARKED, UNKNOWN):
            found.verdict, found.why = SIGNED, f"it was not changed since it was signed; {found.why}"
        return found

    def _judge(self, path: Path, found: Found, record: Mapping[str, Any]) -> None:
        """Says whether what a file claims is true."""
        claims = found.claims
        if found.verdict == UNKNOWN:
            found.verdict = CLAIMED
        if claims.get(ROLE) == ORIGINAL:
            found.why = "an item of the data, which stands beside what a model made"
        elif not is_complete(claims):
            found.why = "the label names no run of ours that could draw it again"
        else:
            try:
                found.verdict, found.why = self._prove(path, claims, record)
            except AigcError as error:
                found.why = f"it could not be drawn again: {error.message}"

    def _look_for_mark(self, path: Path, found: Found) -> None:
        """Says how much the mark of the key stands out, where one is given and the file may have one."""
        if self.key is None:
            return
        run = self._asked()
        if run is None and is_complete(found.claims):
            run = self._run(found.claims)
        codec = None if run is None else modality(run.spec.modality).codec(run.spec, run.path)
        try:
            score = score_of(path, self.key, found.claims, codec)
        except DataError as error:  # the other files are looked at all the same
            score, found.why = None, error.message
        if score is None:
            return
        found.watermark = {**score._asdict(), "found": score.found}
        if score.found:
            found.verdict, found.why = MARKED, "it has the mark of this key, and says nothing of itself"

    def _prove(self, path: Path, claims: dict[str, Any], record: Mapping[str, Any]) -> tuple[str, str]:
        run = self._run(claims)
        if run is None:
            where = f"in {self.root}/" if "run" not in self.asked else f"in {self.asked['run']}"
            which = f"{str(claims['model_checksum'])[:12]} of step {claims['step']}"
            return CLAIMED, f"the checkpoint {which} is not {where}"
        if claims.get("watermark") and (self.key is None or self.key.name != claims["watermark"]):
            return (
                CLAIMED,
                f"it was marked with the key called {claims['watermark']}, and is drawn again with watermark=KEY",
            )
        whole = "index" not in claims
        if whole and claims.get("filters"):
            return CLAIMED, "a filter chose what is in it; where each sample has a file, these are drawn again"
        n = claims.get("n", record.get("n", len(claims.get("indices") or ()))) if whole else claims["index"] + 1
        if type(n) is not int or not 0 < n <= _MOST:
            return CLAIMED, f"{n} samples would have to be drawn to prove it, and {_MOST:,} are the most"
        beside = record if path.name in recorded_files(record) else {}
        size, all_of_them = (_number(beside.get(key)) for key in ("batch_size", "n"))
        drawn = self._redrawn(run, claims, n, size, exactly=whole)
        found = _held_against(path, claims, drawn)
        if found is not None and found.near and not whole:
            # Its batch did not end here, and what phases make of that is more: so the whole set, or a usual one.
            drawn = self._redrawn(run, claims, all_of_them, size, exactly=True)
            found = _held_against(path, claims, drawn) or found
        if found is None:
            return CLAIMED, f"the run draws no file called {path.name if whole else drawn.name(claims['index'])}"
        same, said, near = found
        if near and _finds_phases(run):
            why = "as phases do that are found in other batches or on another machine, or after a faint change"
            return CLAIMED, f"{run.name} draws nearly the same: {said}, {why}"
        by, here = (claims.get("source") or {}).get("exported"), run.weights if isinstance(run, ExportedRun) else None
        if not same and by != here:  # it may be just as it was drawn
            drew, name = (f"files of {by}", "their folder") if by else ("a run", "the run")
            return CLAIMED, f"it was drawn by {drew}, and {run.named} rounds in another way: name {name} with run="
        own = {key: run.config[key]["name"] for key in ("model", "data")}
        if same and any(claims.get(key, name) != name for key, name in own.items()):
            return ALTERED, f"its label is not true: {run.name} is {own['model']} trained on {own['data']}; {said}"
        return (PROVEN if same else ALTERED), f"drawn again from {run.name}, step {claims['step']}: {said}"

    def _run(self, claims: Mapping[str, Any]) -> Run | None:
        """The run with the very weights."""
        weights, step = claims["model_checksum"], claims["step"]
        if (weights, step) not in self._runs:  # the files of a set all name the same ones
            asked = self._asked()
            runs = known_runs(self.root) if asked is None else [asked]
            self._runs[weights, step] = next((run for run in runs if _weights(run, step) == weights), None)
        return self._runs[weights, step]

    def _asked(self) -> Run | None:
        """The run, or exported folder, that the user names."""
        return find_run(self.asked["run"], self.root, exported=open_exported) if "run" in self.asked else None

    def _redrawn(self, run: Run, claims: Mapping[str, Any], n: int | None, size: int | None, *, exactly: bool) -> Drawn:
        """A set with at least, or `exactly`, `n` samples of the set that `claims` says, in batches of `size`; None
        stands for as many as suit."""
        facts = (claims.get(key) for key in (*NEEDED, "source", "explicit", "watermark"))
        drawn = self._drawn.setdefault(json.dumps([str(run.path), size, n is None, *facts]), [])
        for one in drawn:
            if n is None or one.n == n or (one.n > n and not exactly):
                return one
        folder = self.temporary / str(sum(map(len, self._drawn.values())))
        folder.mkdir()
        drawing = self._drawing(run, claims, n)
        files, _, _ = drawing.write(folder, size)
        drawn.append(Drawn(n or drawing.plan.arrangement.n, folder, files))
        return drawn[-1]

    def _drawing(self, run: Run, claims: Mapping[str, Any], n: int | None) -> Drawing:
        controls = {key: value for key, value in dict(claims["controls"]).items() if value is not None}
        source = dict(claims.get("source") or {})
        file = source.get("prompt_file")
        if "lines" in source and "prompt" not in controls and "item" not in claims:  # they were those of a file
            file = str(self.temporary / f"lines-{len(self._drawn)}.txt")
            write_atomically(Path(file), "".join(f"{line}\n" for line in source["lines"]))
        elif file is not None and (not path_of(file).is_file() or checksum(path_of(file)) != source.get("sha256")):
            raise DataError(f"the prompts in {file} are gone, or have changed")
        root = self.asked.get("data.root")
        settings = SampleConfig(
            run=str(run.path), n=1, seed=claims["seed"], out=None, batch_size=None, step=claims["step"],
            format=claims["format"], device=self.asked.get("device") or "auto", overwrite=False,
            data={"root": root, "source": None, "target": None}, controls=controls, prompt_file=file,
            label=bool(claims.get("explicit")),
            watermark=self.asked.get("watermark") if claims.get("watermark") else None,
        )  # fmt: skip
        if n is None:
            return drawing_of(replace(settings, n=None), run)
        one = drawing_of(settings, run)  # of each prompt, or row, so many samples
        rows = -(-n // one.plan.arrangement.n)
        return one if rows == 1 else drawing_of(replace(settings, n=rows), run)


def _finds_phases(run: Run) -> bool:
    """Whether its sound comes from spectrograms; what is off by more than rounding elsewhere was changed."""
    from aigc_cli.modalities.audio_codecs import WaveformCodec

    return not isinstance(modality(run.spec.modality).codec(run.spec, run.path), WaveformCodec)


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= _MOST else None


def _held_against(path: Path, claims: Mapping[str, Any], drawn: Drawn) -> Likeness | None:
    """A file beside the one of its name, or its place, in a set that was drawn; None where there is none."""
    made = drawn.folder / (drawn.name(claims["index"]) if "index" in claims else path.name)
    if not made.is_file() and path.suffix == ".png":
        made = drawn.folder / GRID
    elif not made.is_file() and len(alike := [*drawn.folder.glob(f"*{path.suffix}")]) == 1:
        made = alike[0]  # it was renamed
    return compared(path, made) if made.is_file() else None


def _weights(run: Run, step: int) -> Any:
    """The sum of the weights that a checkpoint is sampled by; None where there is none."""
    if isinstance(run, ExportedRun):
        return run.record["model_checksum"] if run.step == step else None
    try:
        sums = read_json(run.checkpoints / f"step-{step}" / "manifest.json")
    except (OSError, ValueError, TypeError):
        return None
    return sums.get("ema.safetensors", sums.get("model.safetensors")) if isinstance(sums, dict) else None
