"""What a modality is to the rest of the house: the owner of content and files.

Nothing outside this folder asks *which* modality it has: it asks the object. So a new modality is one file here, one
dataset and some YAML. What a model sees of an item is described by a :class:`DataSpec`; a :class:`Codec` maps raw
content to that and back, so that sampling and evaluation know nothing of any one model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from aigc_cli.errors import ConfigError
from aigc_cli.registry import find

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from aigc_cli.modalities.samples import Arrangement, Provenance

#: How what a model sees is laid out: token ids of text in a row, those of a tokenizer that learnt to write other
#: content, (channels, time), (channels, height, width), or (channels, time, height, width). A model declares the
#: layouts that it takes.
Layout = Literal["tokens", "codes", "sequence", "map", "volume"]


@dataclass(frozen=True)
class DataSpec:
    """All that a model may know about the data."""

    modality: str  # of the raw content: "image", "text", "audio", or that of a plugin
    shape: tuple[int, ...]  # of one encoded item; (channels, height, width) for images, (tokens,) for text
    classes: tuple[str, ...] = ()  # () if unlabelled
    vocab_size: int | None = None  # of tokens, the special ones included
    specials: tuple[tuple[str, int], ...] = ()  # tokens that do not stand for text: "pad", "bos", "eos", "unk"
    fingerprint: str = ""  # of the content, so that a resumed run can tell when the data changed
    source: DataSpec | None = None  # of what each item is made from, such as the sentence that it translates
    untrained: tuple[str, ...] = ()  # those of the classes that no training item has
    content: tuple[int, ...] = ()  # the shape of one raw item, where encoding changes it
    rate: int | None = None  # of what lies along time, such as sound: raw values a second
    padding: float | None = None  # what encoded frames (the last axis) hold after an item's end, if it may end early
    level: str | None = None  # of sound: how loud its files are made, in the words of data.normalize=
    #: What classes are combinations of, such as ("speaker", ("theo", "lucas", ...)): its name, and the value in each.
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    grid: tuple[int, ...] = ()  # how codes, or latents, lie, such as (rows, columns), or (times, rows, columns)

    @property
    def layout(self) -> Layout:
        """How the items that a model sees are laid out."""
        if self.vocab_size is not None:
            return "codes" if self.content else "tokens"
        return {2: "sequence", 3: "map", 4: "volume"}[len(self.shape)]  # type: ignore[return-value]

    @property
    def latents(self) -> bool:
        """Whether a model sees the latents of an autoencoder, which may be any numbers."""
        return bool(self.grid) and self.vocab_size is None

    @property
    def in_bytes(self) -> bool:
        """Whether what a model sees are the 256 levels of bytes, and not, as of sound, what a codec made of others."""
        return self.level is None and not self.content

    @property
    def raw(self) -> tuple[int, ...]:
        """The shape of one raw item."""
        return self.content or self.shape

    @property
    def kind(self) -> str:
        """The content in words: its modality, and where it is made from a source the source's, as "text from text"."""
        return self.modality if self.source is None else f"{self.modality} from {self.source.modality}"

    def special(self, name: str) -> int | None:
        """The id of a special token; None where the vocabulary has none of that name."""
        return dict(self.specials).get(name)


@dataclass(frozen=True)
class Batch:
    """Some items, raw or encoded: (n, ...) content, (n,) int64 labels where there are any.

    Of pairs, `content` is the target and `source` what it is made from, each padded to its longest.
    """

    content: Tensor
    labels: Tensor | None = None
    source: Tensor | None = None

    def __len__(self) -> int:
        return self.content.shape[0]

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with each of its tensors changed."""
        others = (None if part is None else change(part) for part in (self.labels, self.source))
        return Batch(change(self.content), *others)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self.each(lambda part: part.to(device, non_blocking=True))

    def take(self, index: Tensor) -> Batch:
        """The rows at `index` (int64, on the batch's device)."""
        return self.each(lambda part: part.index_select(0, index))  # several times as fast as indexing

    def with_content(self, content: Tensor) -> Batch:
        """The same labels with other content."""
        return replace(self, content=content)


class Codec(ABC):
    """Maps raw content to what a model sees, and back."""

    #: What encoding does, as a stamp says it of a network that looks at encoded items.
    preprocessing: ClassVar[str] = "as the codec of its data encodes it"
    traceable: ClassVar[bool] = False  # whether decoding is a few steps of torch, which can leave with a model
    readable: ClassVar[bool] = False  # whether content is text, which can be told beside what a model makes of it
    source: Codec | None = None  # of what items are made from, where that is encoded by another

    @abstractmethod
    def encode(self, content: Tensor) -> Tensor:
        """Raw content (n, ...) to encoded (n, ...)."""

    @abstractmethod
    def decode(self, encoded: Tensor) -> Tensor:
        """Encoded (n, ...) to raw content (n, ...)."""

    def text(self, content: Tensor) -> list[str] | None:
        """Raw content (n, ...) as a person reads it, a text each; None where it can only be seen or heard."""
        return None

    def vectors(self) -> Tensor | None:
        """What each code stands for, (codes, d), where items are codes of one codebook; else None."""
        return None

    def extensions(self, token: int) -> list[int]:
        """The tokens whose content begins with that of a token, itself among them; none where it has no others. The
        last token of a prompt, which may end within it, is drawn again from these."""
        return []

    def files(self) -> Mapping[str, str]:
        """The text of each file, by its name, that a run must keep to make the same codec without the data."""
        return {}

    def portable(self, length: int, *, masks: bool = False) -> Mapping[str, str]:
        """The same in the formats of other programs, the text of each file by its name: a tokenizer in Hugging Face's,
        of a model that reads at most `length` tokens, and where it `masks` some with a token more."""
        return {}

    def keep(self, folder: Path) -> None:
        """Writes into the folder of a run what it needs beside :meth:`files`, and no checkpoint a copy of: weights."""
        return

    def transfer(self, other: Codec) -> list[tuple[int, int]] | None:
        """The tokens that stand for the same here and in `other`, as pairs of their ids here and there.

        A model that starts from the weights of another goes by these where its tensors have a row for each token. None
        where content is not encoded to tokens.
        """
        return None


class Items(ABC):
    """An ordered, stamped set of raw content of one modality: all that is measured, sampled or read.

    A dataset makes one, a run that is sampled, files that a person names, and a file of statistics, of which only the
    moments are known. Most are had as :meth:`batches`, and texts as :meth:`texts`.
    """

    spec: DataSpec  # the shape of one item, and the classes where items have labels
    facts: dict[str, Any]  # what it is, for the stamp on a score
    called: str = ""  # how many of what, in words
    key: str | None = None  # names the content, so that features of it may be kept on disk; None where they may not
    against: Items | None = None  # what each item was made of, or should have been; None where nothing says
    #: Other items in the place of these that say nothing, by what they are, to show what a score is worth.
    beside: Mapping[str, Items] = MappingProxyType({})
    notes: tuple[str, ...] = ()  # what a reader of scores must know of how these came about, a sentence each

    @property
    def modality(self) -> Modality:
        """Of the content."""
        return modality(self.spec.modality)

    @abstractmethod
    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]:
        """All items in order, raw, about `size` at a time, with labels and source where there are any."""
        raise NotImplementedError

    def texts(self, side: str = "content") -> list[str]:
        """All items in order as strings, or with "source" what each is held against; none where nothing is text."""
        return []

    def take(self, n: int) -> Items:
        """`n` of them that stand for all, in order; which ones depends on the content alone."""
        raise NotImplementedError

    def few(self, n: int) -> Tensor:
        """Which `n` stand for all, int64 (n,) in ascending order: the first, where their order says nothing."""
        import torch

        return torch.arange(n)

    def like(self, spec: DataSpec) -> Items:
        """The same brought to the form of other items where that loses nothing, such as grey images to colour."""
        return self

    def where(self) -> dict[str, Any]:
        """Of :attr:`facts`, those that a stamp says where other items were made of these."""
        return self.facts


class Writer(ABC):
    """Writes a set of samples into `folder`, in order, a batch at a time, in memory that hardly grows with the set.

    A subclass has :meth:`put`, :meth:`end` and :meth:`preview`, and enters the files that it keeps open in `open`.
    """

    usual: ClassVar[int] = 64  # how many samples a person looks at together
    preview_suffix: ClassVar[str]  # the ending of the file of a :meth:`preview` of them

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        self.folder, self.arrangement, self.provenance, self.codec = folder, arrangement, provenance, codec
        self.written = 0
        self.open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.open.close()

    def write(self, raw: Tensor) -> None:
        """Writes the next samples, raw content (b, ...) on the CPU, as the codec decodes them."""
        self.put(raw)
        self.written += len(raw)

    def finish(self) -> tuple[list[str], list[str]]:
        """Ends the files. The names of those that hold the samples, in order; and of those that show some of them."""
        if self.written != self.arrangement.n:
            raise RuntimeError(f"{self.written} samples were written, not {self.arrangement.n}")
        self.open.close()
        return self.end()

    @abstractmethod
    def put(self, raw: Tensor) -> None:
        """Writes samples (b, ...), of which the first has the number `written`."""

    @abstractmethod
    def end(self) -> tuple[list[str], list[str]]:
        """Writes what is left once all samples are there, and names the files as :meth:`finish` does."""

    def shown(self) -> str:
        """What a terminal can show of the samples, once they are written; "" where that is nothing."""
        return ""

    @classmethod
    @abstractmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes one file that shows all samples, with a title; `path` appears whole or not at all; raises OSError
        where it cannot be written; nothing is left behind."""


class Modality(ABC):
    """One kind of content: its shapes, its words for messages, its files. Registered under its name, built once.

    A module that registers one imports torch, Pillow and the like within functions alone: a command that only needs a
    name or a shape should not wait for them. Ten members and no more: what depends on a model belongs to the model,
    and what depends on a metric to the metric.
    """

    name: ClassVar[str]  # what :attr:`DataSpec.modality` says
    #: The axes of one raw item, such as ("channels", "height", "width"), unless a codec makes tokens of it.
    axes: ClassVar[tuple[str, ...]]
    noun: ClassVar[tuple[str, str]]  # one and several, as in every message and headline

    @abstractmethod
    def codec(self, spec: DataSpec, folder: Path | None = None) -> Codec:
        """The codec of a run, made anew from its spec and the files in its folder (:meth:`Codec.files`); raises
        DataError where a file of the codec is missing or cannot be trusted."""

    @cached_property
    def writers(self) -> dict[str, type[Writer]]:
        """How samples become files, by the format that users type; the usual one first. A plugin may add to it.

        Where there are none, samples are written as one array.
        """
        return {}

    def read(self, path: Path, like: DataSpec | None = None) -> Items:
        """The items in a file or folder that a person names, such as ``fake=``; `like` says what they are held against;
        raises ConfigError where what is there is not of this modality, and DataError where there is nothing there,
        or a file cannot be read or trusted."""
        raise ConfigError(f"{self.noun[1]} cannot be read from files here", "name a dataset or a run")

    def parse(self, word: str, codec: Codec) -> Batch:
        """What a person typed after ``prompt=``, as raw content: a text itself, or the name of a file; raises
        ConfigError where it cannot be read, or the modality takes no prompts."""
        raise ConfigError(f"{self.noun[1]} take no prompts", "leave prompt= out")

    def network(self, spec: DataSpec) -> nn.Module:
        """An untrained network that learns the classes: encoded items to {"features": (n, d), "logits": (n, k)}; raises
        ConfigError where the modality has none. Where it has an attribute `codec`, that encodes items for it in place
        of the data's, so that it sees what a person would, whatever a model sees."""
        raise ConfigError(f"there is no classifier of {self.noun[1]}", "choose another extractor=")

    def glance(self, content: Tensor) -> Tensor:
        """Raw items (n, ...) made small: a whole training set of them is to fit in memory where copies are sought."""
        return content

    @property
    def memory_format(self) -> torch.memory_format | None:
        """How batches lie in memory where a network convolves them, such as channels_last; None is as they come."""
        return None


@cache
def modality(name: str) -> Modality:
    """The modality of that name, of ours or of a plugin; always the same object; raises ConfigError where there is
    none."""
    made: Modality = find("modality", name).build()
    return made
