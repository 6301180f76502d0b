import torch

from aigc_cli.data.codecs import ImageCodec


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
