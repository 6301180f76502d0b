"""Pairs of texts, such as sentences and their translations: a person's own, and Multi30k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import SPLITS, Dataset, Split
from aigc_cli.data.cache import Published, cache_dir, find_root
from aigc_cli.data.corpus import Corpora, FileSource, PairSource, Source, TextFilesConfig
from aigc_cli.data.splits import left_out, parts_named
from aigc_cli.data.text_dataset import SequencesConfig, open_sequences
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import path_of, some_of, walk_files
from aigc_cli.modalities.text_files import ROWS, Reading, kind_of, printable, text_files
from aigc_cli.registry import register

HOW = (
    "name two files with data.source= and data.target=; or with data.root= a folder of files such as train.en and "
    "train.de, or files with rows such as .jsonl and with data.source= and data.target= the endings of names, or fields"
)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PairsConfig(TextFilesConfig, SequencesConfig):
    """See ``configs/data/pairs.yaml``."""

    name: Literal["pairs"]
    source: str | None
    target: str | None


@register("data", "pairs", PairsConfig)
def pairs(config: PairsConfig, split: Split) -> Dataset:
    """Pairs of texts, in two files line by line, or in one with two fields; one tokenizer serves both sides.

    Where there are no files for a split, a hash of each pair decides. Raises ConfigError where nothing says where they
    are, or the fractions leave the split empty, and DataError where they are missing or broken, or the two files differ
    in their numbers of lines.
    """
    own, lines = pair_parts(config)
    corpora = Corpora(source=own.__getitem__, reading=config.reading, parts=own, cut=config.cut, left_out=lines)
    return open_sequences(split, corpora, config, sides=2, longest=config.max_length, batch_tokens=config.batch_tokens)


def pair_parts(config: PairsConfig) -> tuple[dict[Split, PairSource], list[str]]:
    """Where the pairs of each split are; "train" alone has them where no file is named after a split. And lines about
    what was passed over."""
    if config.source is None or config.target is None:
        raise ConfigError("data=pairs needs data.source= and data.target=", HOW)
    if config.root is None:
        files = [_file(key, name) for key, name in (("source", config.source), ("target", config.target))]
        return {"train": PairSource(" and ".join(map(printable, files)), [files], ())}, []
    folder, fields = find_root(config.root), (config.source, config.target)
    if folder.is_file():
        return {"train": PairSource(printable(folder), [[folder]], fields)}, []
    sides = [_with_suffix(folder, suffix) for suffix in fields]
    names = sorted(set(sides[0]) & set(sides[1]))
    parts = [[side[name] for side in sides] for name in names]
    lines = _alone(sides) if parts else []
    if not parts:
        found, lines = text_files(folder)
        rows = [(name, path) for name, path in found if kind_of(path) in ROWS]
        names, parts = [name for name, _ in rows], [[path] for _, path in rows]
    if not parts:
        what = f"there are no pairs in {printable(folder)}: no NAME.{config.source} beside NAME.{config.target}"
        raise DataError(what, HOW)
    own = parts_named(names)
    places_of = own or {"train": list(range(len(parts)))}
    return {
        split: PairSource(f"the {split} files of {printable(folder)}", [parts[place] for place in places], fields)
        for split, places in places_of.items()
    }, [*lines, *left_out(names, own)]


def _alone(sides: Sequence[Mapping[str, Path]]) -> list[str]:
    """A line about files of one side that have none beside them on the other."""
    alone = set(sides[0]) ^ set(sides[1])
    names = sorted(printable(side[name].name) for side in sides for name in alone & set(side))
    return [f"no other side beside {some_of(names)}"] if names else []


def _file(key: str, name: str) -> Path:
    path = path_of(name).absolute()
    if not path.is_file():
        raise DataError(f"data.{key}={name}: there is no file {printable(path)}", HOW)
    return path


def _with_suffix(folder: Path, suffix: str) -> dict[str, Path]:
    """The files NAME.suffix and NAME.suffix.gz at or below a folder, by NAME."""
    found = {}
    for name, path in sorted(walk_files(folder)):
        name = name.removesuffix(".gz")
        if name.endswith(f".{suffix}"):
            found[name.removesuffix(f".{suffix}")] = path
    return found


Language = Literal["en", "de", "fr", "cs"]
MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
#: The SHA-256 of each official file.
MULTI30K_SHA256 = {
    "test_2016_flickr.cs.gz": "200a4a74cc9560f051924abb9803be008d1908d77f747e9141aeb86dfd2797f1",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    "test_2017_flickr.de.gz": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.fr.gz": "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
    "test_2017_mscoco.de.gz": "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
    "test_2017_mscoco.en.gz": "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
    "test_2017_mscoco.fr.gz": "754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0",
    "test_2018_flickr.cs.gz": "7d0a9db904f94c554a8c58049a9f3a5357c27f46cc3d710d70cb0b4a2585b8c2",
    "test_2018_flickr.de.gz": "ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608",
    "test_2018_flickr.en.gz": "ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d",
    "test_2018_flickr.fr.gz": "fb2b83fcceb937a4f7e3e93c1c51c22aba92f1e342391e6b5ba392b16a920501",
    "train.cs.gz": "a65adb8b32e3bc664f21ecba7a6e7f6950fd1f405e135f7c312faabdb6255077",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.cs.gz": "b63226e05c4bd5dd6a42897d74b86a1b9d2c31498252c572b1ea7f7996927fcc",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Multi30kConfig(SequencesConfig):
    """See ``configs/data/multi30k.yaml``."""

    name: Literal["multi30k"]
    root: str | None
    source: Language
    target: Language
    only: Language | None
    test: Literal["test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr"]


@register("data", "multi30k", Multi30kConfig)
def multi30k(config: Multi30kConfig, split: Split) -> Dataset:
    """Multi30k task 1 (Elliott et al. 2016): 29,000 captions of photographs and their translations; or one language.

    Raises ConfigError where these languages have no such test part, and DataError where a file is missing or damaged,
    or cannot be downloaded.
    """
    languages = [config.source, config.target] if config.only is None else [config.only]

    def files_of(part: Split) -> list[Path]:
        names = [f"{config.test if part == 'test' else part}.{language}.gz" for language in languages]
        if unknown := [name for name in names if name not in MULTI30K_SHA256]:
            what = f"Multi30k has no {unknown[0].removesuffix('.gz')}"
            raise ConfigError(what, "choose another data.test=, or other languages")
        published = [Published(name, [MULTI30K_URL + name], {"sha256": MULTI30K_SHA256[name]}) for name in names]
        return [file.find(config.root, cache_dir() / "data" / "multi30k") for file in published]

    def source_of(part: Split) -> Source:
        where = f"the {config.test if part == 'test' else part} part of Multi30k"
        if config.only is None:
            return PairSource(where, [files_of(part)], ())
        return FileSource(where, [(path.name, path) for path in files_of(part)], field="text", lines=True)

    corpora = Corpora(source=source_of, reading=Reading(), parts=SPLITS)
    sequences = open_sequences(
        split, corpora, config, sides=len(languages), longest=config.max_length, batch_tokens=config.batch_tokens
    )
    sequences.original = all(path.suffix == ".gz" for path in files_of(split))  # whose sums were found right
    return sequences
