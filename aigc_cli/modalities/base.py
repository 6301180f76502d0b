"""What a modality is to the rest of the house: the owner of content and files.

Nothing outside this folder asks *which* modality it has: it asks the object. So a new modality is one file here, one
dataset and some YAML. What a model sees of an item is described by a :class:`DataSpec`; a :class:`Codec` maps raw
content to that and back, so that sampling and evaluation know nothing of any one model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from aigc_cli.modalities.writers import Writer

#: How what a model sees is laid out: token ids in a row, (channels, time), (channels, height, width), or
#: (channels, time, height, width). A model declares the layouts that it takes.
Layout = Literal["tokens", "sequence", "map", "volume"]


@dataclass(frozen=True)
class DataSpec:
    """All that a model may know about the data."""

    modality: str  # "image" | "text" | "pairs" | "audio" | "video"
    shape: tuple[int, ...]  # of one encoded item; (channels, height, width) for images, (tokens,) for text
    classes: tuple[str, ...] = ()  # () if unlabelled
    vocab_size: int | None = None  # of tokens, the special ones included
    specials: tuple[tuple[str, int], ...] = ()  # tokens that are no text: "pad", "bos", "eos", "unk"
    fingerprint: str = ""  # of the content, so that a resumed run can tell when the data changed

    @property
    def layout(self) -> Layout:
        """How the items that a model sees are laid out."""
        if self.vocab_size is not None:
            return "tokens"
        return {2: "sequence", 3: "map", 4: "volume"}[len(self.shape)]  # type: ignore[return-value]

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

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        moved = [None if part is None else part.to(device, non_blocking=True) for part in (self.labels, self.source)]
        return Batch(self.content.to(device, non_blocking=True), *moved)

    def take(self, index: Tensor) -> Batch:
        """The rows at `index` (int64, on the batch's device)."""
        taken = [None if part is None else part[index] for part in (self.labels, self.source)]
        return Batch(self.content[index], *taken)

    def with_content(self, content: Tensor) -> Batch:
        """The same labels with other content."""
        return replace(self, content=content)


class Codec(ABC):
    """Maps raw content to what a model sees, and back."""

    @abstractmethod
    def encode(self, content: Tensor) -> Tensor:
        """Raw content (n, ...) to encoded (n, ...)."""

    @abstractmethod
    def decode(self, encoded: Tensor) -> Tensor:
        """Encoded (n, ...) to raw content (n, ...)."""

    def files(self) -> Mapping[str, str]:
        """What a run must keep to make the same codec without the data: the text of each file by its name."""
        return {}


class Items(ABC):
    """An ordered, stamped set of raw content of one modality: all that is measured, sampled or read.

    There are four makers: a dataset, a run that is sampled, files that a person names, and a file of statistics, of
    which only the moments are known.
    """

    modality: Modality
    #: The shape of one item, and the classes where there are any.
    spec: DataSpec
    #: What it is, for the stamp on a score.
    facts: dict[str, Any]
    #: Names the content, so that features of it may be kept on disk; None where they may not.
    key: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """All items in order, raw, `size` at a time, with labels and source where there are any."""

    def take(self, n: int) -> Items:
        """`n` of them that stand for all, in order; which ones depends on the content alone."""
        raise NotImplementedError


class Modality(ABC):
    """One kind of content: its shapes, its words for messages, its files. Registered under its name.

    Ten members and no more: what depends on a model belongs to the model, and what depends on a metric to the metric.
    """

    #: What :attr:`DataSpec.modality` says.
    name: ClassVar[str]
    #: The axes of one raw item, such as ("channels", "height", "width"): checks shapes and names them in messages.
    axes: ClassVar[tuple[str, ...]]
    #: One and several, as in every message and headline.
    noun: ClassVar[tuple[str, str]]

    @abstractmethod
    def codec(self, spec: DataSpec, folder: Path | None = None) -> Codec:
        """The codec of a run, made anew from its spec and the files in its folder (:meth:`Codec.files`).

        Raises:
            DataError: a file of the codec is missing or cannot be trusted.
        """

    @property
    @abstractmethod
    def writers(self) -> Mapping[str, type[Writer]]:
        """How samples become files, by the format that users type; the usual one first."""

    @abstractmethod
    def read(self, path: Path, like: DataSpec | None = None) -> Items:
        """The items in a file or folder that a person names, such as ``fake=``; `like` says what they are held against.

        Raises:
            ConfigError: there is nothing of this modality there.
            DataError: a file cannot be read or trusted.
        """

    def parse(self, word: str, codec: Codec) -> Batch:
        """What a person typed after ``prompt=``, as raw content: a text itself, or the name of a file.

        Raises:
            ConfigError: it cannot be read, or the modality takes no prompts.
        """
        raise NotImplementedError

    def network(self, spec: DataSpec) -> nn.Module:
        """An untrained network of the domain's classifier: encoded items to {"features": (n, d), "logits": (n, k)}."""
        raise NotImplementedError

    def glance(self, content: Tensor) -> Tensor:
        """Raw items (n, ...) made small: a whole training set of them must fit in memory where copies are sought."""
        return content

    #: How batches lie in memory where a network convolves them, such as channels_last; None is as they come.
    memory_format: ClassVar[torch.memory_format | None] = None


def modality(name: str) -> Modality:
    """The modality of that name, of ours or of a plugin.

    Raises:
        ConfigError: there is none.
    """
    from aigc_cli.registry import find

    made: Modality = find("modality", name).build()
    return made
