from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import LATENT, Toy, ToyConfig

from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.images import ImageDataset
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.samples import Arrangement
from aigc_cli.models.base import Model
from aigc_cli.randomness import Noise
from aigc_cli.sampling import generate
from aigc_cli.sampling.controls import usual_controls
from aigc_cli.sampling.generate import Plan, Request, prepare
from aigc_cli.sampling.modes import balanced, plan

CLASSES = ("cat", "dog", "owl")
SPEC = DataSpec("image", (1, 8, 8), CLASSES)


def toy(*, conditional: bool = False, spec: DataSpec = SPEC) -> Toy:
    return Toy(ToyConfig(name="toy", conditional=conditional), spec).eval()


@pytest.fixture
def held_out() -> ImageDataset:
    """Twenty images whose quarters differ most in the second, then in the first."""
    random = torch.Generator().manual_seed(0)
    quarters = torch.rand(20, 4, generator=random) * torch.tensor([90.0, 230.0, 5.0, 20.0])
    pixels = quarters.view(20, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return ImageDataset(pixels.to(torch.uint8), torch.arange(20) % 3, CLASSES)


def request(
    model: Model, held_out: Dataset | None = None, *, n: int | None = None, seed: int = 5, **controls: Any
) -> Request:
    def items() -> tuple[Split, Dataset]:
        assert held_out is not None, "this mode reads no data"
        return "test", held_out

    values = replace(usual_controls(model), **controls)
    return Request(
        model=model,
        codec=ImageCodec(),
        controls=values,
        n=n,
        seed=seed,
        device=torch.device("cpu"),
        train=lambda: items()[1],
        held_out=items,
        usual=64,
    )


def drawn(planned: Plan, batch_size: int | None = None) -> Tensor:
    raw = torch.cat(list(planned.batches(batch_size)))
    assert len(raw) == planned.arrangement.n
    return raw


def first(planned: Arrangement, n: int) -> list[tuple[str, dict[str, Any]]]:
    return [(planned.name(index), planned.about(index)) for index in range(n)]


Make = Callable[..., Request]
#: A request of each mode, that takes n.
REQUESTS: Mapping[str, Make] = {
    "sample": lambda data, n: request(toy(), n=n),
    "classes": lambda data, n: request(toy(conditional=True), n=n),
    "reconstruct": lambda data, n: request(toy(), data, n=n, mode="reconstruct"),
    "interpolate": lambda data, n: request(toy(), n=n, mode="interpolate"),
    "interpolate classes": lambda data, n: request(toy(conditional=True), n=n, mode="interpolate", class_="owl,cat"),
    "traverse": lambda data, n: request(toy(), data, n=n, mode="traverse"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_sample_i_depends_on_the_seed_and_i_alone(name: str, held_out: ImageDataset) -> None:
    few, more = (plan(REQUESTS[name](held_out, n)) for n in (2, 4))
    raw = drawn(more)
    n = few.arrangement.n
    assert 0 < n < more.arrangement.n
    assert (drawn(few).int() - raw[:n].int()).abs().max() <= 1
    assert first(few.arrangement, n) == first(more.arrangement, n)
    for batch_size in (1, 3, 5):
        assert (drawn(more, batch_size).int() - raw.int()).abs().max() <= 1
    assert len({more.arrangement.name(index) for index in range(more.arrangement.n)}) == more.arrangement.n


@pytest.mark.parametrize("name", REQUESTS)
def test_another_seed_gives_others(name: str, held_out: ImageDataset) -> None:
    made = REQUESTS[name](held_out, 3)
    assert not torch.equal(drawn(plan(made)), drawn(plan(replace(made, seed=6))))


def test_classes_stand_below_their_names() -> None:
    planned = plan(request(toy(conditional=True), n=8))
    arrangement = planned.arrangement
    assert arrangement.facts["class"] == ["cat", "dog", "owl", "cat", "dog", "owl", "cat", "dog"]
    assert list(arrangement.labels or ()) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert arrangement.turns == CLASSES
    raw = drawn(planned).float().mean(dim=(1, 2, 3))
    assert raw[0::3].max() < raw[1::3].min() < raw[2::3].min()  # the toy's classes differ in brightness


def test_the_classes_that_are_asked_for() -> None:
    planned = plan(request(toy(conditional=True), n=4, class_="owl, cat"))
    assert planned.arrangement.facts["class"] == ["owl", "cat", "owl", "cat"]
    raw = drawn(planned).float().mean(dim=(1, 2, 3))
    assert raw[0] > raw[1]
    one = plan(request(toy(conditional=True), n=4, class_="dog")).arrangement
    assert (one.turns, one.name(3)) == (("dog",), "000003-dog")


def test_a_class_whose_name_has_a_comma() -> None:
    model = toy(conditional=True, spec=DataSpec("image", (1, 8, 8), ("a, b", "a", "c")))
    assert plan(request(model, n=2, class_="a, b")).arrangement.facts["class"] == ["a, b", "a, b"]


def test_the_usual_number_is_as_many_of_each_class() -> None:
    assert plan(request(toy())).arrangement.n == 64
    assert plan(request(toy(conditional=True))).arrangement.n == 63
    assert plan(request(toy(conditional=True), class_="cat,owl")).arrangement.n == 64
    assert balanced(2, 3) == 2
    many = toy(conditional=True, spec=DataSpec("image", (1, 8, 8), tuple(map(str, range(100)))))
    assert plan(request(many)).arrangement.n == 64


@pytest.mark.parametrize(
    ("conditional", "controls", "message", "hint"),
    [
        (True, {"class_": "cta"}, "class=cta: the data has no such class", "cat"),
        (True, {"class_": "cat,"}, "class=: the data has no such class", "cat, dog, owl"),
        (False, {"class_": "cat"}, "trained without classes", "model.conditional=true"),
        (False, {"class_": "cat", "mode": "interpolate"}, "trained without classes", "model.conditional=true"),
        (False, {"mode": "traverse", "n": 5}, "n=5: there are 4 latent dimensions", "n=4"),
        (False, {"mode": "reconstruct", "n": 21}, "n=21: there are 20 items in the test split", "n=20"),
    ],
)
def test_what_there_is_not(
    conditional: bool, controls: dict[str, Any], message: str, hint: str, held_out: ImageDataset
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan(request(toy(conditional=conditional), held_out, **controls))
    assert hint in caught.value.hint


def test_reconstructions_stand_below_their_originals(held_out: ImageDataset) -> None:
    planned = plan(request(toy(), held_out, n=3, mode="reconstruct"))
    raw, arrangement = drawn(planned), planned.arrangement
    items = arrangement.facts["item"]
    originals = held_out._data.content[items[0::2]]
    assert torch.equal(raw[0::2], originals)
    assert (raw[1::2].int() - originals.int()).abs().max() <= 1  # flat quarters are all that the toy can say
    assert items[0::2] == items[1::2]
    assert arrangement.facts["role"] == ["original", "reconstruction"] * 3
    assert [arrangement.generated(index) for index in range(2)] == [False, True]
    labels = held_out._data.labels
    assert labels is not None
    assert list(arrangement.labels or ())[0::2] == labels[items[0::2]].tolist()
    assert arrangement.name(2).startswith(f"000001-{CLASSES[labels[items[2]]]}-original")
    assert (arrangement.group, arrangement.row) == (2, False)
    assert planned.source == {"split": "test", "fingerprint": held_out.spec.fingerprint}
    assert arrangement.summary == "3 items of the test split and their reconstructions"


def test_a_conditional_model_is_told_the_items_own_classes(held_out: ImageDataset) -> None:
    planned = plan(request(toy(conditional=True), held_out, n=9, mode="reconstruct"))
    made = drawn(planned)[1::2].float().mean(dim=(1, 2, 3))
    labels = torch.tensor(list(planned.arrangement.labels or ())[1::2])
    assert made[labels == 0].max() < made[labels == 2].min()


def test_data_of_another_kind_cannot_be_reconstructed() -> None:
    pixels = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    larger = ImageDataset(pixels, torch.arange(4) % 3, CLASSES)
    with pytest.raises(ConfigError, match="items are 1x16x16, and the model is made for 1x8x8"):
        drawn(plan(request(toy(), larger, n=2, mode="reconstruct")))
    others = ImageDataset(pixels[:, :, :8, :8].contiguous(), None)
    assert len(drawn(plan(request(toy(), others, n=2, mode="reconstruct")))) == 4
    with pytest.raises(ConfigError, match="classes of the data"):
        drawn(plan(request(toy(conditional=True), others, n=2, mode="reconstruct")))


@pytest.mark.parametrize("controls", [{}, {"class_": "owl,cat"}, {"class_": "dog"}], ids=str)
def test_a_walk_goes_from_one_sample_to_another_of_its_class(controls: dict[str, Any]) -> None:
    model = toy(conditional=bool(controls))
    planned = plan(request(model, n=3, mode="interpolate", frames=5, **controls))
    rows = drawn(planned).view(3, 5, 1, 8, 8)
    samples = plan(request(model, n=8, **controls))
    each = drawn(samples)
    turns = len(str(controls.get("class_", "x")).split(","))
    for row in range(3):
        start = 2 * (row // turns) * turns + row % turns
        assert (rows[row, 0].int() - each[start].int()).abs().max() <= 1
        assert (rows[row, -1].int() - each[start + turns].int()).abs().max() <= 1
        if controls:
            own = planned.arrangement.facts["class"][5 * row : 5 * row + 5]
            assert set(own) == {samples.arrangement.facts["class"][start]}
            assert planned.arrangement.row_titles[row] == own[0]
    assert (planned.arrangement.group, planned.arrangement.row) == (5, True)


def test_a_walk_is_on_the_sphere() -> None:
    model = toy()
    latents: list[Tensor] = []
    model.decode = lambda z, labels=None: latents.append(z) or torch.zeros(len(z), 1, 8, 8)  # type: ignore
    drawn(plan(request(model, n=1, mode="interpolate", frames=9)))
    walk = torch.cat(latents)
    start, middle, end = walk[0], walk[4], walk[8]
    angle = torch.nn.functional.cosine_similarity(start, end, dim=0).acos()
    torch.testing.assert_close(middle, (start + end) / (2 * torch.cos(angle / 2)))


def test_one_latent_moves_along_a_row_the_most_active_first(held_out: ImageDataset) -> None:
    model = toy()
    latents: list[Tensor] = []
    decode = model.decode
    model.decode = lambda z, labels=None: latents.append(z) or decode(z, labels)  # type: ignore
    planned = plan(request(model, held_out, mode="traverse"))
    drawn(planned)
    rows = torch.cat(latents).view(LATENT, 9, LATENT)
    base = model.latents(Noise(5, [0]), usual_controls(model))[0]
    order = planned.arrangement.facts["dimension"][::9]
    encoded = model.encode(type("B", (), {"content": ImageCodec().encode(held_out._data.content)}))  # type: ignore
    assert order == encoded.var(dim=0).argsort(descending=True).tolist()
    for row, dimension in enumerate(order):
        torch.testing.assert_close(rows[row, :, dimension], torch.linspace(-3, 3, 9))
        others = [other for other in range(LATENT) if other != dimension]
        assert torch.equal(rows[row][:, others], base[others].expand(9, 3))
    arrangement = planned.arrangement
    assert (arrangement.column_titles[::4], arrangement.row_titles[0]) == (("-3", "0", "3"), f"z{order[0]}")
    assert planned.arrangement.about(10)["value"] == -2.25


def test_a_model_that_does_not_encode_is_traversed_as_it_is() -> None:
    class Generator(Toy):
        can = frozenset({"sample", "latents", "decode"})

    planned = plan(request(Generator(ToyConfig(name="toy"), SPEC), n=2, mode="traverse"))
    assert planned.arrangement.facts["dimension"][::9] == [0, 1]
    assert planned.source == {}


def test_a_mode_that_the_model_does_not_have() -> None:
    class Generator(Toy):
        can = frozenset({"sample", "latents", "decode"})

    with pytest.raises(ConfigError, match="mode=reconstruct") as caught:
        plan(request(Generator(ToyConfig(name="toy"), SPEC), mode="reconstruct"))
    assert caught.value.hint == "choose from: sample, interpolate, traverse"


def test_what_changes_nothing_is_said(held_out: ImageDataset, capsys: pytest.CaptureFixture[str]) -> None:
    plan(request(toy(conditional=True), held_out, mode="reconstruct", class_="cat", temperature=0.5))
    assert capsys.readouterr().err.splitlines() == [
        "aigc: warning: class= has no effect with mode=reconstruct",
        "aigc: warning: temperature= has no effect with mode=reconstruct",
    ]
    plan(request(toy(), frames=4))
    assert "frames= has no effect with mode=sample" in capsys.readouterr().err
    plan(request(toy(), held_out, mode="traverse", frames=4, temperature=0.5))
    assert capsys.readouterr().err == ""


def test_of_a_large_training_set_a_model_is_shown_items_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "SHOWN", 20)
    pixels = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 1, 8, 8)
    in_order = ImageDataset(pixels, torch.arange(100) // 50, ["first half", "second half"])
    shown: list[Batch] = []
    model = toy()
    model.prepare = lambda items, controls: shown.extend(items)  # type: ignore[method-assign]
    prepare(model, lambda: in_order, model.controls(), device="cpu")
    labels = torch.cat([batch.labels for batch in shown if batch.labels is not None])
    assert len(labels) == 20
    assert labels.unique().tolist() == [0, 1]


def test_a_model_is_shown_the_training_set_where_it_asks(held_out: ImageDataset) -> None:
    model = toy()
    plan(request(model, n=3))  # which reads no data
    plan(request(model, held_out, n=3, mode="reconstruct", prior="fitted"))
    assert model.read == 0
    planned = plan(request(model, held_out, n=3, prior="fitted"))
    assert model.read == 20
    assert model.fitted is not None
    assert not model.fitted.is_inference()
    assert drawn(planned).float().mean(dim=0).std() > 5
