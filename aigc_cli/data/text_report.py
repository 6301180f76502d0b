"""The reports on text, and on pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from aigc_cli.data.alike import alike_texts
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.corpus import Corpora
from aigc_cli.data.open import open_dataset
from aigc_cli.data.report import (
    FILE,
    Finding,
    Look,
    Report,
    add_copies,
    add_counts,
    add_left_out,
    add_lines,
    counted,
    groups_of,
    spread,
)
from aigc_cli.data.text_facts import INVISIBLE, LONG_LINE, FileFacts, TextFacts, check_files, scripts
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.text_files import printable
from aigc_cli.registry import register

DOCUMENT, CHARACTER, LINE = ("document", "documents"), ("character", "characters"), ("line", "lines")
_OF_MANY = ("Han", "Kana")  # scripts of thousands of characters, each a word or syllable
_INSTEAD = {
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".rtf", ".epub"), "save documents of other kinds as .txt first"),
    **dict.fromkeys((".html", ".htm", ".xml"), "take the text out of pages first, and save it as .txt"),
    **dict.fromkeys((".zip", ".tar", ".7z", ".rar", ".bz2", ".xz"), "unpack archives first, or pack with gzip"),
    **dict.fromkeys((".json", ".parquet", ".arrow"), "read where there is no other text: move them to a folder apart"),
}


@register("report", "text")
def text_report(look: Look) -> Report:
    """Documents, characters, scripts, copies, and what is broken or odd; raises DataError where nothing can be read."""
    report = Report(DOCUMENT)
    corpora, files = readable(look)
    parts: dict[Split, TextFacts] = {}
    for split in look.splits:
        with suppress(ConfigError, DataError):  # what opening the split says of it is told below
            corpus = corpora[split]
            facts = parts[split] = TextFacts()
            for piece in corpus.pieces():
                facts.add(piece)
            facts.close()
    if not parts:
        raise DataError("no text can be read", "; ".join(str(error) for error in files.failed.values()))
    add_counts(report, {split: facts.documents for split, facts in parts.items()})
    if not (corpora.parts or corpora.by == "document" or corpora.whole):
        report.lines[-1][1] += ", of texts that are cut where held-out text begins"
    report.findings = [finding for finding in report.findings if finding.code != "few"]  # of one document, the words
    add_characters(report, parts, look)
    _add_lines(report, parts)
    add_tokens(report, look, corpora, files)
    add_files(report, look, files)
    add_oddities(report, list(parts.values()))
    of = np.repeat([SPLITS.index(split) for split in parts], [facts.documents for facts in parts.values()])
    _add_documents(report, parts, of, corpora)
    report.excerpts = [f"{split}: {facts.names[0]}" for split, facts in parts.items() if facts.names]
    return report


def readable(look: Look) -> tuple[Corpora, FileFacts]:
    """The same text without the files that cannot be read, and what is wrong with all of them."""
    corpora: Corpora = next(iter(look.splits.values())).content
    facts, sources = FileFacts(), {}
    own: Sequence[Split] = list(corpora.parts) or ["train"]
    for part in own:
        source: Any = copy(corpora.source(part))
        attribute = next((name for name in ("files", "parts") if hasattr(source, name)), None)
        if attribute is not None:
            found = check_files(source, corpora.reading)
            for name in ("failed", "broken"):
                getattr(facts, name).update(getattr(found, name))
            for name in ("empty", "mixed", "returns", "marks"):
                getattr(facts, name).extend(getattr(found, name))
            if len(found.good) < len(getattr(source, attribute)):
                setattr(source, attribute, found.good)
                source.identity += f" {[str(good) for good in found.good]}"
        sources[part] = source
    if facts.failed and not any(
        getattr(source, "files", getattr(source, "parts", True)) for source in sources.values()
    ):
        raise next(iter(facts.failed.values()))
    reading = replace(corpora.reading.again(), max_broken=1.0)
    return replace(corpora, source=lambda part: sources[part], reading=reading), facts


def add_characters(report: Report, parts: Mapping[Split, TextFacts], look: Look) -> None:
    """How many there are, of which scripts."""
    points = sum((facts.points for facts in parts.values()), np.zeros(1, dtype=np.int64))
    told = ", ".join(f"{facts.characters:,} {split}" for split, facts in parts.items())
    distinct, rare = int((points > 0).sum()), int((points == 1).sum())
    report.add(
        "characters", f"{points.sum():,}: {told}", characters={split: each.characters for split, each in parts.items()}
    )
    report.add("distinct", f"{distinct:,}, of which {rare:,} come once", distinct=distinct, rare=rare)
    shares = scripts(points)
    shown = ", ".join(f"{name} {share:.1%}" for name, share in list(shares.items())[:6])
    report.add("scripts", shown or "no letters", scripts={name: round(share, 6) for name, share in shares.items()})
    few = [f"{name} {share:.2%}" for name, share in shares.items() if share < 0.01]
    if few:
        report.find("scripts_rare", few, "scripts that are hardly there", noun=("script", "scripts"))
    many = distinct > 1000 and look.values.get("tokenizer", {}).get("kind") == "char"
    if many and sum(shares.get(name, 0) for name in _OF_MANY) < 0.5:
        hint = "data.tokenizer.kind=bpe or byte needs no token for each"
        report.find(
            "many_characters", distinct, "many distinct characters, for tokenizer.kind=char", hint, noun=CHARACTER
        )


def _add_lines(report: Report, parts: Mapping[Split, TextFacts]) -> None:
    lengths = np.concatenate([facts.lengths for facts in parts.values()]).astype(np.int64)
    if len(lengths) > 1:
        report.add("lengths", spread(lengths, " characters"))
    lines, longest = sum(facts.lines for facts in parts.values()), max(facts.longest for facts in parts.values())
    report.add("lines", f"{lines:,}, the longest of {counted(longest, CHARACTER)}", lines=lines, longest_line=longest)
    if longest > LONG_LINE:
        report.find("long_line", 1, f"a line of {longest:,} characters", "is it text, or data?", noun=LINE)
    digests = [np.array(facts.repeated, dtype=np.int64) for facts in parts.values()]
    every = np.concatenate(digests)
    twice = len(every) - len(np.unique(every))
    report.facts["repeated_lines"] = twice
    if every.size and twice > 0.02 * len(every):
        share = f"{twice / len(every):.1%} of the lines of 20 characters or more"
        report.find("repeated_lines", twice, f"lines that were there before, {share}", noun=LINE)
    held_out = [part for split, part in zip(parts, digests, strict=True) if split != "train"]
    if "train" in parts and held_out:
        both = np.concatenate(held_out)
        known = int(np.isin(both, digests[list(parts).index("train")]).sum())
        report.facts["held_out_lines_in_train"] = known
        if known > 0.01 * len(both):
            what = f"held-out lines that are trained on, {known / len(both):.1%} of those of 20 characters or more"
            report.find("split_lines", known, what, "scores say too much; hold out whole documents", noun=LINE)


def add_tokens(report: Report, look: Look, corpora: Corpora, files: FileFacts) -> None:
    """The tokens and items of each split, as training would have them, or the first reason for which it would stop."""
    counts: dict[str, dict[str, int]] = {}
    for split in look.splits:
        try:
            dataset: Any = open_dataset(look.values, split)
        except (ConfigError, DataError) as error:
            if not report.stops:
                report.stops = True
                what = f"training would stop: {error.message}"
                report.findings.append(Finding("refused", what, error.hint, prepared=bool(files.failed)))
            continue
        extent = dataset.extent
        counts[split] = {"tokens": extent.tokens, "items": len(dataset), "vocabulary": dataset.spec.vocab_size}
        for line in dataset.problems():
            if "it is empty" not in line and "broken bytes" not in line and line not in corpora.left_out:
                report.findings.append(Finding("problem", line))
    if counts:
        told = ", ".join(f"{each['tokens']:,} in {each['items']:,} items {split}" for split, each in counts.items())
        most = max(each["vocabulary"] for each in counts.values())
        report.add("tokens", f"{told}; vocabulary {most:,}", tokens=counts)


def add_files(report: Report, look: Look, files: FileFacts) -> None:
    """What is wrong with files, and which are not read."""
    kept = "`aigc data prepare` leaves them out"
    for name, error in files.failed.items():
        hint = f"{error.hint}; {kept}"
        what = f"cannot be read: {error.message}"
        report.find("broken_file", [name], what, hint, prepared=True, noun=FILE)
    broken = [f"{name} ({count})" for name, count in files.broken.items()]
    what = "bytes that are not text, which become U+FFFD"
    report.find("broken_bytes", broken, what, "data.encoding= names another encoding", noun=FILE)
    report.find("empty_file", files.empty, "nothing in it", kept, prepared=True, noun=FILE)
    ends = "`aigc data prepare` ends all lines alike"
    report.find("mixed_ends", files.mixed, "ends of lines of several kinds", ends, prepared=True, noun=FILE)
    report.find(
        "returns", files.returns, "lines that end as in Windows, with a carriage return", ends, prepared=True, noun=FILE
    )
    report.find("marks", files.marks, "the mark of an encoding (BOM) in the middle of the text",
                "`aigc data prepare` leaves it out", prepared=True, noun=FILE)  # fmt: skip
    add_lines(report, next(iter(look.splits.values())).content.left_out)
    root = look.values.get("root")
    if root is None or not find_root(root).is_dir():
        return
    corpora: Corpora = next(iter(look.splits.values())).content
    folder = find_root(root)
    used: list[str] = []
    own: Sequence[Split] = list(corpora.parts) or ["train"]
    for part in own:
        source: Any = corpora.source(part)
        paths = [path for _, path in getattr(source, "files", ())]
        paths += [path for some in getattr(source, "parts", ()) for path in some]
        used += [printable(path.relative_to(folder).as_posix()) for path in paths if path.is_relative_to(folder)]
    if used:
        add_left_out(report, folder, used, _INSTEAD)


def add_oddities(report: Report, parts: list[TextFacts]) -> None:
    """Characters that are not meant to be there."""

    def total(characters: str) -> int:
        return sum(facts.of(characters) for facts in parts)

    left_out = "`aigc data prepare` leaves them out"
    report.find("replacement", total("\ufffd"), "U+FFFD, the sign of what could not be read", "find the original",
                noun=CHARACTER)  # fmt: skip
    report.find("nul", total("\0"), "NUL in the text", left_out, prepared=True, noun=CHARACTER)
    controls = sum(facts.controls() for facts in parts)
    report.find("controls", controls, "control characters in the text", left_out, prepared=True, noun=CHARACTER)
    report.find("invisible", total(INVISIBLE), "invisible characters, such as soft hyphens and zero-width spaces",
                "some scripts need them: they are kept", noun=CHARACTER)  # fmt: skip
    odd = {name: sum(facts.odd[name] for facts in parts) for name in ("mojibake", "markup", "unnormalised")}
    report.find("mojibake", odd["mojibake"], "what looks like UTF-8 that was once read in another encoding",
                "save the text again from its source", noun=("place", "places"))  # fmt: skip
    report.find("tags", odd["markup"], "tags or entities of HTML, which a model learns to write",
                "take them out, unless they are wanted", noun=("tag", "tags"))  # fmt: skip
    report.find("unnormalised", odd["unnormalised"], "letters in parts (not NFC): a word may be spelt in two ways",
                "`aigc data prepare` joins them", prepared=True, noun=("piece", "pieces"))  # fmt: skip


def _add_documents(report: Report, parts: Mapping[Split, TextFacts], of: np.ndarray, corpora: Corpora) -> None:
    names = [name for facts in parts.values() for name in facts.names]
    blank = [place for place, name in enumerate(names) if name == "''"]
    report.find("blank", len(blank), "nothing but white space", "`aigc data prepare` leaves them out", prepared=True)
    if not corpora.whole and corpora.by == "position" and len(names) < 2 * len(parts):
        return  # documents that are cut in two at the ends of splits
    digests = np.concatenate([facts.digests for facts in parts.values()]).astype(np.int64)
    add_copies(report, groups_of(digests), names, of, None)
    sketches = [some for facts in parts.values() for some in facts.sketches]
    if len(sketches) < len(names):
        report.add("near copies", f"not sought among more than {len(sketches):,}")
    else:
        _, first = np.unique(digests, return_index=True)
        first = np.sort(first)
        near = alike_texts([sketches[place] for place in first])
        add_copies(report, near, [names[place] for place in first], of[first], None, "nearly the same")
