"""The way from spectrograms to sound with numpy alone, as the script beside an exported model goes it."""

from __future__ import annotations

#: As :mod:`aigc_cli.modalities.audio_codecs` goes it.
SOUND = '''

def heard(content, rounds=32):
    """Encoded spectrograms (n, channels, bins, frames) as int16 (n, channels, samples), by Griffin-Lim."""
    sound, wide = ABOUT["sound"], content.astype(np.float64)
    hop, bins, rate = sound["hop"], sound["bins"], sound["rate"]
    size = 4 * hop if sound["kind"] == "mel" else 2 * bins
    if sound["kind"] == "mel":
        high = np.log(size / 4)
        low = high - sound["depth"] * np.log(10) / 20 if "depth" in sound else np.log(1e-5)
        level = np.where(wide <= -0.99, 0, np.exp((wide.clip(-1, 1) + 1) / 2 * (high - low) + low))
        matrix = mel_matrix(rate, size // 2 + 1, bins)
        magnitudes = wanted = matrix.T @ level
        for _ in range(30):
            magnitudes = magnitudes * wanted / (matrix.T @ (matrix @ magnitudes)).clip(1e-20)
    else:
        mean, deviation = np.array(sound["mean"])[:, None], np.array(sound["deviation"])[:, None]
        level = np.exp(wide.clip(-1, 1) * 3 * deviation + mean)
        magnitudes = np.pad(np.where(wide <= -0.99, 0, level), ((0, 0), (0, 0), (0, 1), (0, 0)))
    window, frames = np.hanning(size + 1)[:-1], magnitudes.shape[-1]
    starts, total, edge = hop * np.arange(frames), size + hop * (frames - 1), (size - hop) // 2

    def added(pieces):
        whole = np.zeros((*pieces.shape[:2], total))
        for at, start in enumerate(starts):
            whole[..., start : start + size] += pieces[..., at]
        return whole

    weight = added(np.broadcast_to((window**2)[:, None], (1, 1, size, frames))).clip(1e-8)

    def waves(found):
        pieces = np.fft.irfft(found, size, axis=2) * window[:, None]
        return (added(pieces) / weight)[..., edge : edge + sound["samples"]]

    def spectra(sounds):
        after = total - edge - sounds.shape[-1]
        padded = np.pad(sounds, ((0, 0), (0, 0), (edge, after)))
        return np.fft.rfft(padded[..., starts + np.arange(size)[:, None]] * window[:, None], axis=2)

    found = magnitudes * np.exp(2j * np.pi * draws.random(magnitudes.shape[1:]))
    before = 0
    for _ in range(rounds):
        rebuilt = spectra(waves(found))
        ahead = rebuilt + 0.99 * (rebuilt - before)
        found, before = magnitudes * ahead / np.abs(ahead).clip(1e-12), rebuilt
    return (waves(found) * 32767).round().clip(-32767, 32767).astype(np.int16)


def mel_matrix(rate, bins, mels):
    """Triangles over the mel scale, each with a sum of 1."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), mels + 2) / 2595) - 1)
    at, low, centre, high = np.linspace(0, rate / 2, bins), edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((at - low) / (centre - low), (high - at) / (high - centre)).clip(0)
    nearest = np.eye(bins)[np.abs(at - centre).argmin(1)]
    triangles = np.where(triangles.sum(1, keepdims=True) > 0, triangles, nearest)
    return (triangles / triangles.sum(1, keepdims=True)).astype(np.float32)

'''
