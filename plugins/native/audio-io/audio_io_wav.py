"""WAV files: any rate, channels and width in; what the microphone would have heard out."""

from __future__ import annotations

import contextlib
import os
import struct
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_sdk.errors import ActionFailed

MIC_RATE = 16_000
MAX_FILE_BYTES = 512 * 1024**2
"""Files are read whole; this is 48 minutes of 44.1 kHz stereo 32-bit."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
"""Format tags of mmreg.h; in an EXTENSIBLE chunk the real tag begins the sub-format GUID."""
TRAILERS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"JUNK")
"""Chunks that may follow samples that are really none."""
CONVERT = "convert it, for example: ffmpeg -i IN -ar 16000 -ac 1 -c:a pcm_s16le OUT.wav"


@dataclass(frozen=True, slots=True)
class Format:
    """The `fmt ` chunk, checked."""

    tag: int
    channels: int
    rate: int
    width: int
    """Bytes per sample of one channel."""


def read_mic_pcm(path: str) -> bytes:
    """The file as pcm_s16le, 16 kHz, mono.

    Raises:
        ActionFailed: with code AUDIO_FILE_MISSING, AUDIO_FILE_EMPTY (no bytes, or no samples) or
            AUDIO_FILE_INVALID (not WAV, broken, or an encoding other than PCM and float).
    """
    try:
        import numpy as np
        import soxr
    except ImportError as error:
        raise ActionFailed(
            "playing a WAV file needs numpy and soxr: pip install 'loom-host[voice]'",
            code="AUDIO_MISSING",
        ) from error
    samples, rate = decode(_read(path), path)
    mono = samples.mean(axis=1)
    if rate != MIC_RATE:
        mono = soxr.resample(mono, rate, MIC_RATE)
    if not len(mono):
        raise _bad("EMPTY", path, "is shorter than one sample at 16 kHz: record something first")
    pcm: bytes = np.clip(np.rint(mono * 32768), -32768, 32767).astype("<i2").tobytes()
    return pcm


def decode(data: bytes, path: str) -> tuple[Any, int]:
    """Samples as float32, shape (frames, channels), full scale 1.0; and the rate in Hz.

    Raises ActionFailed as `read_mic_pcm` does.
    """
    if not data:
        raise _bad("EMPTY", path, "is empty (0 bytes): record or copy it again")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise _bad("INVALID", path, f"is not a WAV file (it begins {data[:12]!r}): {CONVERT}")
    layout, body = _chunks(data, path)
    frame = layout.width * layout.channels
    body = body[: len(body) // frame * frame]
    if not body:
        raise _bad("EMPTY", path, "has a WAV header but no samples: record or copy it again")
    return _samples(body, layout).reshape(-1, layout.channels), layout.rate


def _read(path: str) -> bytes:
    file = Path(path)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _bad("INVALID", path, f"is larger than {MAX_FILE_BYTES // 1024**2} MiB: cut it")
        return file.read_bytes()
    except FileNotFoundError:
        raise _bad("MISSING", path, "does not exist: check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _bad("INVALID", path, f"cannot be read: {reason}") from error


def _chunks(data: bytes, path: str) -> tuple[Format, memoryview]:
    layout, at, view = None, 12, memoryview(data)
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = view[at + 8 : at + 8 + size]
        if name == b"fmt ":
            layout = _format(body, path)
        elif name == b"data":
            if layout is None:
                raise _bad("INVALID", path, f"has samples before their format: {CONVERT}")
            # A size of 0, or past the end, is a recorder's that was killed, or a pipe's.
            rest = view[at + 8 :]
            unsized = size == 0 and bytes(rest[:4]) not in TRAILERS
            return layout, rest if unsized else body
        at += 8 + size + size % 2
    missing = "samples ('data' chunk)" if layout else "format ('fmt ' chunk)"
    raise _bad("INVALID", path, f"is cut off or broken: its {missing} is missing; copy it again")


def _format(body: memoryview, path: str) -> Format:
    if len(body) < 16:
        raise _bad("INVALID", path, "is cut off in the middle of its header: copy it again")
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", body)
    if tag == EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    width = (bits + 7) // 8
    widths = {PCM: (1, 2, 3, 4), FLOAT: (4, 8)}.get(tag, ())
    if width not in widths:
        raise _bad("INVALID", path, f"holds {bits}-bit samples with format tag {tag}: {CONVERT}")
    if not 1 <= channels <= 256 or not 1000 <= rate <= 768_000 or align != width * channels:
        what = f"{channels} channels at {rate} Hz in blocks of {align} bytes"
        raise _bad("INVALID", path, f"has a broken header ({what}): {CONVERT}")
    return Format(tag, channels, rate, width)


def _samples(body: memoryview, layout: Format) -> Any:
    import numpy as np

    if layout.tag == FLOAT:
        values = np.frombuffer(body, f"<f{layout.width}")
        clean = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0)
        return np.clip(clean, -1.0, 1.0).astype(np.float32)
    if layout.width == 1:
        return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    if layout.width == 3:
        # Into the upper three bytes of an int32, which keeps the sign.
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        values = wide.view("<i4").ravel()
        return values.astype(np.float32) / 2**31
    values = np.frombuffer(body, f"<i{layout.width}")
    return values.astype(np.float32) / 2 ** (8 * layout.width - 1)


def _bad(code: str, path: str, what: str) -> ActionFailed:
    return ActionFailed(f"audio file {path!r} {what}", code=f"AUDIO_FILE_{code}")


class WavWriter:
    """Mono 16-bit WAV that appears at `path` only when it is whole."""

    def __init__(self, path: str, rate: int) -> None:
        self.rate = rate
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._samples = 0
        self._file = self._part.open("wb")
        self._wave: wave.Wave_write = wave.open(self._file, "wb")  # noqa: SIM115  # see commit
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(rate)

    def write(self, pcm: bytes) -> None:
        self._wave.writeframesraw(pcm)
        self._samples += len(pcm) // 2

    def commit(self) -> float:
        """Put the file in place; returns its length in seconds."""
        self._wave.close()
        self._file.close()
        os.replace(self._part, self._path)
        return self._samples / self.rate

    def discard(self) -> None:
        """Leave whatever is at `path` as it was."""
        with contextlib.suppress(OSError):  # a full disk is why we are here
            self._wave.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)
