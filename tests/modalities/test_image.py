import pytest
import torch

from aigc_cli.modalities.base import DataSpec, modality
from aigc_cli.modalities.image import ImageCodec


def test_every_pixel_value_comes_back():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    encoded = ImageCodec().encode(values)
    assert encoded.dtype == torch.float32
    assert (encoded.min(), encoded.max()) == (-1, 1)
    assert torch.equal(ImageCodec().decode(encoded), values)


def test_values_out_of_range_are_clamped_and_low_precision_is_taken():
    encoded = torch.tensor([-7.0, -1.0, 0.0, 1.0, 9.0], dtype=torch.bfloat16).reshape(1, 1, 1, 5)
    assert ImageCodec().decode(encoded).flatten().tolist() == [0, 0, 128, 255, 255]
    assert encoded.flatten()[0] == -7  # the input is left alone


def test_images_need_no_files():
    assert modality("image").codec(DataSpec("image", (1, 8, 8))).files() == {}


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 96, 64), (3, 5, 9), (1, 1, 1)]
)
def test_the_network_takes_images_of_any_size(channels, height, width):
    network = modality("image").network(DataSpec("image", (channels, height, width), tuple("abcdefg"))).eval()
    layers = network(torch.zeros(2, channels, height, width))
    assert {name: values.shape for name, values in layers.items()} == {"features": (2, 128), "logits": (2, 7)}


def test_a_glance_is_at_most_32_pixels_wide():
    image = modality("image")
    assert image.glance(torch.full((2, 3, 64, 8), 9, dtype=torch.uint8)).shape == (2, 3, 32, 8)
    small = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    assert image.glance(small) is small
    quarters = torch.tensor([[0, 1], [2, 4]]).byte().repeat_interleave(32, 0).repeat_interleave(32, 1)
    assert image.glance(quarters[None, None]).sum() == 7 * 32 * 32 // 4
