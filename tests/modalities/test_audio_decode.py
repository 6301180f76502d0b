"""Sound files become waveforms of one rate, without images of what a rate cannot hold; what is odd is read or named."""

import io

import numpy as np
import pytest
import soundfile
from trouble_sound import sine

from aigc_cli.modalities.audio_config import FULL
from aigc_cli.modalities.audio_decode import PEAK, RMS, _resampled, decode_sound, leveled, mix, quiet
from aigc_cli.modalities.mp3 import _size, with_length
from aigc_cli.modalities.unreadable import Unreadable


def written(tmp_path, samples, rate, **how):
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, rate, **how)
    return path


def test_images_of_a_sweep_are_below_100_db(tmp_path):
    """44.1 kHz stereo to 16 kHz mono: what a sine above 8 kHz leaves below."""
    at = np.arange(2 * 44100) / 44100
    up = 0.9 * np.sin(2 * np.pi * (8800 * at + (21500 - 8800) / 4 * at**2))  # from 1.1 of the limit on
    up *= np.sin(np.pi / 2 * np.minimum(1, np.minimum(at, 2 - at) / 0.2)) ** 2  # a sudden start has all frequencies
    resampled = _resampled(iter([np.stack([up, up], axis=1).astype(np.float32)]), 44100, 16000, 1)
    assert 20 * np.log10(max(np.abs(block).max(initial=0) for block in resampled) / 0.9) < -100
    heard = 0.4 * np.sin(2 * np.pi * 1000 * at)
    clips = []
    for wave in (heard, heard + up / 2):
        path = written(tmp_path, np.stack([wave, wave], axis=1), 44100, subtype="DOUBLE")
        clips.append(decode_sound(path, 16000, 1, "none").samples.astype(int))
    assert np.abs(clips[0] - clips[1]).max() <= 1, "the last bit of 16"


def test_what_is_below_half_the_rate_stays_as_loud(tmp_path):
    path = written(tmp_path, sine(7000, 44100, 1.0), 44100, subtype="FLOAT")
    samples = decode_sound(path, 16000, 1, "none").samples[1000:-1000] / FULL
    assert samples.std() * np.sqrt(2) == pytest.approx(0.4, rel=0.01)


def test_a_clip_is_as_long_as_its_file_at_any_rate(tmp_path):
    for rate in (8000, 11025, 22050, 44100, 48000, 96000):
        found = decode_sound(written(tmp_path, sine(440, rate, 1.0), rate), 16000, 1, "peak")
        assert abs(len(found.samples) - 16000) <= 1
        assert found.seconds == 1.0


@pytest.mark.parametrize("name", ["clip.flac", "clip.ogg", "clip.opus", "clip.mp3"])
def test_bytes_are_read_as_a_file_is(tmp_path, name):
    path = tmp_path / name
    how = {"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}
    soundfile.write(path, sine(440, 48000, 1.0), 48000, **how)
    one, other = (decode_sound(source, 16000, 1, "peak").samples for source in (path, path.read_bytes()))
    assert np.array_equal(one, other)


def test_loudness_is_the_peak_the_mean_square_or_as_it_was():
    wave = 0.2 * np.sin(np.arange(8000) * 0.3)[:, None] + 0.1
    assert np.abs(leveled(wave, "peak")).max() == pytest.approx(PEAK * FULL, abs=1)
    assert (leveled(wave, "rms") / FULL).std() == pytest.approx(RMS, rel=0.01)
    assert np.abs(leveled(wave, "none")).max() == pytest.approx(0.2 * FULL, rel=0.01)
    click = np.zeros((8000, 1))
    click[100:103] = 0.5
    assert np.abs(leveled(click, "rms")).max() <= PEAK * FULL + 1, "never louder than full scale"
    assert all(abs(leveled(wave, how).mean()) < 1 for how in ("peak", "rms", "none")), "no constant part"


def test_channels_are_mixed_or_kept():
    block = np.array([[0.1, 0.3, 0.8], [0.2, 0.4, 0.6]], dtype=np.float32)
    assert mix(block, 1) == pytest.approx(np.array([[0.4], [0.4]]))
    assert np.array_equal(mix(block, 2), block[:, :2])
    assert np.array_equal(mix(block[:, :1], 2), np.repeat(block[:, :1], 2, axis=1))


@pytest.mark.parametrize(
    ("gain", "subtype", "clipped"), [(3, "PCM_16", True), (3, "FLOAT", False), (2.5, "PCM_16", False)]
)
def test_what_is_clipped_is_known(tmp_path, gain, subtype, clipped):
    path = written(tmp_path, gain * sine(440, 16000), 16000, subtype=subtype)
    assert decode_sound(path, 16000, 1, "peak").clipped == clipped
    assert decode_sound(path, 16000, 1, "none").clipped == (gain == 3), "nothing brings it below full scale"


@pytest.mark.parametrize("said", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_what_came_out_of_a_pipe_is_read_to_its_end(tmp_path, said):
    content = written(tmp_path, 0.5 * sine(440, 16000), 16000).read_bytes()
    at = content.index(b"data") + 4
    riff, data = (min(size, 2**32 - 1).to_bytes(4, "little") for size in (said + 36, said))
    piped = content[:4] + riff + content[8:at] + data + content[at + 4 :]
    one, other = (decode_sound(source, 16000, 1, "none").samples for source in (piped, content))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_is_cut_or_chained_is_named(tmp_path, subtype):
    content = written(tmp_path, 0.5 * sine(440, 48000, 2.0), 48000, format="OGG", subtype=subtype).read_bytes()
    whole = decode_sound(content, 16000, 1, "peak").samples
    assert np.array_equal(decode_sound(content + b"TAG" + bytes(125), 16000, 1, "peak").samples, whole)
    for n in (len(content) - 1, len(content) // 2):
        with pytest.raises(Unreadable, match="it is cut"):
            decode_sound(content[:n], 16000, 1, "peak")
    with pytest.raises(Unreadable, match="several streams"):
        decode_sound(content + content, 16000, 1, "peak")


@pytest.mark.parametrize(("name", "codec", "rate"), [("a.webm", "libopus", 48000), ("a.mka", "aac", 16000)])
def test_what_ffmpeg_reads_of_a_file_that_is_cut_is_named(tmp_path, name, codec, rate):
    av = pytest.importorskip("av")
    path = tmp_path / name
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, 2 * rate, 1024):
            wave = (0.3 * np.sin(np.arange(start, start + 1024) * 0.05)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    whole = path.read_bytes()
    assert decode_sound(whole, 16000, 1, "peak").seconds == pytest.approx(2, abs=0.1)
    with pytest.raises(Unreadable, match="it is cut"):
        decode_sound(whole[: len(whole) // 2], 16000, 1, "peak")


def test_channels_that_cancel_each_other_are_not_called_silent(tmp_path):
    wave = sine(440, 16000)
    path = written(tmp_path, np.stack([wave, -wave], axis=1), 16000)
    with pytest.raises(Unreadable, match=r"cancel each other \(data.channels=2"):
        decode_sound(path, 16000, 1, "peak")
    assert np.abs(decode_sound(path, 16000, 2, "peak").samples).max() > 20000


def test_a_long_file_lies_on_the_disk_and_is_the_same(tmp_path, monkeypatch):
    path = written(tmp_path, sine(440, 16000, 5.0), 16000)
    held = decode_sound(path, 8000, 2, "rms").samples
    monkeypatch.setattr("aigc_cli.modalities.audio_decode._HELD", 1000)
    mapped = decode_sound(path, 8000, 2, "rms").samples
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(held, mapped)


def test_what_a_library_says_on_stderr_is_dropped(tmp_path, capfd):
    path = tmp_path / "cut.mp3"
    soundfile.write(path, sine(440, 16000, 2.0), 16000)
    path.write_bytes(path.read_bytes()[:1500])
    with quiet() as stderr:
        with pytest.raises(Unreadable, match="cut"):
            decode_sound(path, 16000, 1, "peak")
        print("seen", file=stderr)
    assert capfd.readouterr().err == "seen\n"


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_that_does_not_say_how_long_it_is_is_read_to_its_end(rate, channels):
    """Of variable bitrate, and without the frame that counts the others."""
    at = np.arange(rate * 6) / rate
    noise = np.random.default_rng(0).standard_normal(len(at))
    wave = np.where(at % 2 < 1, 0.3 * noise, 0.01 * np.sin(at * 3000))[:, None].repeat(channels, 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    whole = buffer.getvalue()
    assert with_length(whole) == whole, "it says so itself"
    bare = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + whole[_size(whole, 0) :]
    lengths = [len(decode_sound(content, 8000, 1, "peak").samples) for content in (whole, bare)]
    assert lengths[0] == pytest.approx(48000, abs=10)
    assert lengths[1] == pytest.approx(48000, abs=3000), "but for what the encoder padded"


def test_what_needs_a_package_says_which(monkeypatch):
    monkeypatch.setattr("aigc_cli.modalities.audio_decode.find_spec", lambda name: None)
    with pytest.raises(Unreadable, match="video"):
        decode_sound(b"\0\0\0\x18ftypM4A " + bytes(100), 16000, 1, "peak")


@pytest.mark.parametrize(("name", "codec"), [("clip.m4a", "aac"), ("clip.webm", "libopus"), ("clip.aac", "aac")])
def test_what_ffmpeg_reads_is_read_where_it_is_there(tmp_path, name, codec):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        wave = np.stack([sine(440, 48000, 1.0)] * 2).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        for packet in [*av_frames(av, stream, frame), *stream.encode(None)]:
            container.mux(packet)
    found = decode_sound(tmp_path / name, 16000, 1, "peak")
    assert found.seconds == pytest.approx(1, abs=0.06)
    spectrum = np.abs(np.fft.rfft(found.samples[:15000, 0] * np.hanning(15000)))
    assert spectrum.argmax() / 15000 * 16000 == pytest.approx(440, abs=2)


def av_frames(av, stream, frame):
    resampler = av.AudioResampler(
        format=stream.format, layout="stereo", rate=48000, frame_size=stream.frame_size or 960
    )
    return [
        packet for part in [*resampler.resample(frame), *resampler.resample(None)] for packet in stream.encode(part)
    ]
