"""What every modality has: it is found by name without what it does not need, and it writes in some format."""

import subprocess
import sys

import pytest
import torch

from aigc_cli import registry
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Codec, DataSpec, Modality, modality
from aigc_cli.modalities.image_writers import NPZWriter, PNGWriter
from aigc_cli.modalities.text_writers import TextWriter
from aigc_cli.modalities.writers import ArrayWriter, find_writer


class Smell(Modality):
    name, axes, noun = "smell", ("molecules",), ("smell", "smells")

    def codec(self, spec, folder=None):
        raise NotImplementedError


def test_a_name_and_a_shape_need_nothing_heavy():
    code = (
        "import sys\n"
        "from aigc_cli.modalities.base import modality\n"
        "assert [modality(name).axes[0] for name in ('image', 'text')] == ['channels', 'tokens']\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "PIL", "tokenizers", "hydra"}


def test_a_modality_is_one_object():
    assert modality("image") is modality("image")
    with pytest.raises(ConfigError, match="no modality named 'imaeg'") as caught:
        modality("imaeg")
    assert "did you mean image?; name the plugin that adds it with --plugin" in caught.value.hint


def test_the_first_format_is_the_usual_one():
    assert find_writer("image") == ("png", PNGWriter)
    assert find_writer("image", "npz") == ("npz", NPZWriter)
    assert find_writer("text") == find_writer("text", "txt") == ("txt", TextWriter)
    with pytest.raises(ConfigError, match="format=pgn") as caught:
        find_writer("image", "pgn")
    assert caught.value.hint == "did you mean png?"


def test_a_plugin_may_add_a_format(monkeypatch):
    monkeypatch.setitem(modality("image").writers, "webp", PNGWriter)
    assert find_writer("image", "webp") == ("webp", PNGWriter)
    assert find_writer("image")[0] == "png"


def test_a_modality_without_a_format_is_written_as_an_array(monkeypatch):
    component = registry.Component("modality", "smell", Smell, object)
    monkeypatch.setitem(registry._components, ("modality", "smell"), component)
    assert find_writer("smell") == ("npz", ArrayWriter)
    modality.cache_clear()


def test_what_a_modality_does_not_have_is_said():
    smell = Smell()
    with pytest.raises(ConfigError, match="no classifier of smells"):
        smell.network(DataSpec("smell", (9,)))
    with pytest.raises(ConfigError, match="smells take no prompts"):
        smell.parse("a rose", Codec)
    content = torch.arange(6).view(2, 3)
    assert smell.glance(content) is content
    assert smell.memory_format is None


@pytest.mark.parametrize(
    ("spec", "layout"),
    [
        (DataSpec("image", (3, 8, 8)), "map"),
        (DataSpec("smell", (2, 9)), "sequence"),
        (DataSpec("video", (3, 4, 8, 8)), "volume"),
        (DataSpec("image", (64,), vocab_size=512), "tokens"),
    ],
)
def test_the_layout_follows_from_the_shape(spec, layout):
    assert spec.layout == layout


def test_what_is_made_from_a_source_says_so():
    side = DataSpec("text", (9,), vocab_size=7)
    assert (side.kind, DataSpec("text", (9,), vocab_size=7, source=side).kind) == ("text", "text from text")
