"""Speech that is made of a text by espeak-ng: a corpus in which everything is known, for a first trial.

espeak-ng keeps state from call to call, also after it has been started anew: the same calls in the same order are alike
in a fresh process alone. So a corpus is made as a whole, once, in a process of its own, and kept under the sum of all
that it depends on. The library is under the GPL, and no part of this package: it comes with the extra `speech`.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.errors import ConfigError, DataError, ResourceError, tell
from aigc_cli.files import new_folder, resource_errors
from aigc_cli.modalities.spoken import normal
from aigc_cli.modalities.text_files import read_lines

PACKAGE, USUAL = "espeakng-loader", "en-us"
MOST = 100_000  # lines
_SYNCHRONOUS, _UTF8 = 2, 1  # of its enumerations: where sound goes, and how text is written
_VERSION = 1  # of how a corpus is made


def corpus_of(text: Path, voice: str) -> Path:
    """The folder of a corpus in which each line of a text is said, by the voices in turn that follow ``espeak:``.

    Raises:
        ConfigError: espeak-ng is not installed, or there is nothing to say.
        DataError: the text cannot be read.
        ResourceError: espeak-ng fails.
    """
    if find_spec("espeakng_loader") is None:
        what = "data.voice= speaks by espeak-ng, which is not installed"
        raise ConfigError(what, "pip install 'aigc-cli[speech]' (espeak-ng is under the GPL)")
    if text.is_dir():
        raise DataError(f"{text} is a folder", "with data.voice=, point data.root= at a file with a sentence a line")
    lines = [line for line in map(normal, read_lines(text)) if line][:MOST]
    if not lines:
        raise ConfigError(f"there is nothing to say in {text}", "write a sentence a line")
    names = [name.strip() for name in voice.partition(":")[2].split(",") if name.strip()] or [USUAL]
    folder = cache_dir() / "data" / "espeak" / digest_of([_VERSION, version(PACKAGE), names, lines])[:40]
    if not folder.is_dir():
        tell(f"espeak-ng says {len(lines):,} lines (once; they are kept)")
        with resource_errors(folder, "with AIGC_CACHE"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with new_folder(folder) as part:
                (part / "job.json").write_text(json.dumps({"lines": lines, "voices": names}))
                made = subprocess.run(
                    [sys.executable, "-m", "aigc_cli.data.espeak", str(part)], capture_output=True, text=True
                )
                if made.returncode:
                    reason = (made.stderr.strip().splitlines() or ["it ended"])[-1]
                    raise ResourceError(f"espeak-ng failed: {reason}", "check the names after data.voice=espeak:")
    return folder


def _make(folder: Path) -> None:
    """Writes the corpus that ``job.json`` in a folder describes; in a fresh process."""
    import espeakng_loader
    import numpy as np
    import soundfile

    job = json.loads((folder / "job.json").read_text())
    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise SystemExit("it does not start")
    library.espeak_ng_SetRandSeed(ctypes.c_long(0))
    heard: list[Any] = []

    def hear(wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            heard.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    called = kind(hear)  # held until all is said
    library.espeak_SetSynthCallback(called)
    (folder / "wavs").mkdir()
    rows = []
    for number, line in enumerate(job["lines"]):
        name = job["voices"][number % len(job["voices"])]
        if library.espeak_SetVoiceByName(name.encode()):
            raise SystemExit(f"there is no voice {name}")
        said = line.encode() + b"\0"
        heard.clear()
        library.espeak_Synth(said, ctypes.c_size_t(len(said)), 0, 0, 0, _UTF8, None, None)
        wave = np.concatenate(heard) if heard else np.zeros(0, np.int16)
        soundfile.write(folder / "wavs" / f"{number:06d}.wav", wave, rate)
        rows.append(f"{number:06d}|{name}|{line.replace('|', ' ')}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
