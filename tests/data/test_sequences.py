"""Documents as items of their own."""

from text_data import opened

from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD


def test_documents_as_items(tmp_path):
    texts = ["short", "a longer line of text", "x" * 500, "last"]
    (tmp_path / "a.txt").write_text("\n".join([texts[0], "", "  ", *texts[1:]]))
    dataset = opened(
        tmp_path, lines=True, items="documents", context=30, val_fraction=0.0, test_fraction=0.0, kind="byte"
    )
    assert len(dataset) == 4
    assert dataset.spec.modality == "text"
    assert dataset.spec.shape == (31,)
    (batch,) = batches_in_order(dataset, 10, "cpu")
    assert batch.content.shape == (4, 31)
    assert batch.content[0].tolist() == [BOS, *dataset.codec.tokens("short"), EOS, *[PAD] * 24]
    assert dataset.codec.text(batch.content) == [texts[0], texts[1], "x" * 30, texts[3]]
    assert batch.content[2, -1] != EOS, "what is cut has not ended"
    assert dataset.problems() == ["1 texts of the train split are cut: too long"]
    assert dataset.extent.targets == 5 + 1 + 21 + 1 + 30 + 4 + 1
    assert dataset.extent.bytes == 5 + 21 + 30 + 4
    assert dataset.codec.start == BOS
    loader = Loader(dataset, batch_size=2, seed=0, device="cpu")
    seen = [text for k in range(2) for text in dataset.codec.text(loader.batch(k).content)]
    assert sorted(seen) == sorted([texts[0], texts[1], "x" * 30, texts[3]])
    assert loader.epoch(2) == 1
