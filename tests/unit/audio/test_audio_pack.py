"""Every file of the pack's ``formats/`` and ``adversarial/``: decoded, or refused as its manifest says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.pack import Entry, listed
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio

#: The pack proposes a limit of one hour.
LIMITS: Final = Limits(max_duration_s=3600.0)
RATES: Final = {"8k": 8_000, "16k": 16_000, "44k": 44_100, "48k": 48_000}

#: Block codecs pad: AAC and MP3 by a frame at either end, ADPCM by up to a block of a quarter second.
PADDING_S: Final = 0.25


def decoded(pack: Path, path: str, decoder: Decoder = Decoder.NATIVE) -> Audio:
    return decode((pack / path).read_bytes(), LIMITS, decoder)


def loudness(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float64]:
    """Root mean square of the first channel in blocks of 20 ms: what stays equal through any codec."""
    block = rate_hz // 50
    whole = samples[0, : samples.shape[1] // block * block].astype(np.float64)
    return np.asarray(np.sqrt((whole.reshape(-1, block) ** 2).mean(axis=1)))


def likeness(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Best correlation of two loudness curves, either shifted by up to 200 ms: codecs delay."""
    length = min(len(one), len(other)) - 10
    return max(
        float(np.corrcoef(early[:length], late[shift : shift + length])[0, 1])
        for early, late in ((one, other), (other, one))
        for shift in range(11)
    )


@pytest.mark.parametrize("entry", listed("formats/"))
def test_every_format_gives_the_cough(pack: Path, entry: Entry) -> None:
    audio = decoded(pack, entry.path)

    assert audio.samples.dtype == np.float32
    assert audio.samples.flags.c_contiguous
    assert audio.samples.shape[0] == audio.channels
    assert audio.duration_s == audio.samples.shape[1] / audio.rate_hz
    assert entry.duration_s is not None
    assert entry.duration_s - 0.05 <= audio.duration_s <= entry.duration_s + PADDING_S
    stated = re.search(r"(?:^|_)(8k|16k|44k|48k)(?:_|\.)", entry.name)
    if stated:
        assert audio.rate_hz == RATES[stated[1]]
    if "mono" in entry.name or "stereo" in entry.name:
        assert audio.channels == (2 if "stereo" in entry.name else 1)
    if not entry.name.startswith("variant_"):
        cough = decoded(pack, "formats/wav_s16le_mono_48k.wav")
        # Speex at 8 kHz is the farthest from the original, at 0.956.
        assert likeness(loudness(cough.samples, cough.rate_hz), loudness(audio.samples, audio.rate_hz)) > 0.95


#: Where the manifest allows two outcomes and expects the other one.
OUTCOMES: Final[dict[str, str | None]] = {"adversarial/wav_data_size_zero.wav": None}


@pytest.mark.parametrize("entry", listed("adversarial/"))
def test_every_adversarial_file_has_its_outcome(pack: Path, entry: Entry) -> None:
    """Where the manifest's note allows two outcomes, this is the one chosen:

    * ``mp3_id3_lies``: corrupt. A tag as long as this covers the audio, if there is any, and what looks like frames
      inside it may be a picture.
    * ``wav_data_size_zero``: the second of sound that is there.
    * ``flac_corrupt_middle``: decoded without the damaged frame, see below.
    """
    if OUTCOMES.get(entry.path, entry.error_class) is None:
        audio = decoded(pack, entry.path)
        assert audio.samples.size > 0
        assert np.isfinite(audio.samples).all()
        if entry.duration_s is not None:
            assert audio.duration_s == pytest.approx(entry.duration_s, abs=0.05)
    else:
        with pytest.raises(AudioError) as refusal:
            decoded(pack, entry.path)
        assert refusal.value.error_class == entry.error_class
        assert "\n" not in str(refusal.value)


def test_a_damaged_flac_frame_is_left_out_and_the_rest_is_exact(pack: Path) -> None:
    whole = decoded(pack, "formats/flac_s16_mono_16k.flac").samples
    damaged = decoded(pack, "adversarial/flac_corrupt_middle.flac").samples

    lost = whole.shape[1] - damaged.shape[1]
    assert 0 < lost <= 2 * 1_152
    first = int(np.argmax(whole[:, : damaged.shape[1]] != damaged))
    assert np.array_equal(whole[:, :first], damaged[:, :first])
    assert np.array_equal(whole[:, -1_000:], damaged[:, -1_000:])
    assert np.abs(damaged).max() == np.abs(whole).max()


def test_a_chained_ogg_file_gives_all_its_links(pack: Path) -> None:
    audio = decoded(pack, "adversarial/ogg_chained.ogg")

    once, again = np.array_split(audio.samples, 2, axis=1)
    assert likeness(loudness(once, audio.rate_hz), loudness(again, audio.rate_hz)) > 0.99


def test_a_stream_that_changes_its_rate_is_converted_to_what_it_began_with(pack: Path) -> None:
    """``mp3_rate_change.mp3``: the cough in 8 kHz stereo frames, then again in 48 kHz mono frames."""
    audio = decoded(pack, "adversarial/mp3_rate_change.mp3")
    cough = decoded(pack, "formats/mp3_cbr32_stereo_8k.mp3")

    assert (audio.rate_hz, audio.channels) == (8_000, 2)
    length = cough.samples.shape[1]
    assert np.array_equal(audio.samples[:, : length - 2_000], cough.samples[:, : length - 2_000])
    second = audio.samples[:, length:]
    assert second.shape[1] == pytest.approx(length, abs=0.3 * 8_000)
    assert likeness(loudness(second, 8_000), loudness(cough.samples, 8_000)) > 0.9


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("flac_truncated.flac", "flac_s16_mono_16k.flac"),
        ("mp3_truncated.mp3", "mp3_vbr_mono_44k.mp3"),
        ("ogg_truncated.ogg", "ogg_opus_mono_48k.ogg"),
        ("webm_truncated.webm", "webm_opus_mediarecorder.webm"),
    ],
)
def test_a_cut_file_gives_what_is_there(pack: Path, cut: str, whole: str) -> None:
    part = decoded(pack, f"adversarial/{cut}").samples
    all_of_it = decoded(pack, f"formats/{whole}").samples

    assert 0.3 * all_of_it.shape[1] < part.shape[1] < all_of_it.shape[1]
    assert np.array_equal(part[:, :-2_000], all_of_it[:, : part.shape[1] - 2_000])


def test_a_wav_that_ends_inside_a_sample_gives_the_whole_ones(pack: Path) -> None:
    stored = (pack / "adversarial/wav_truncated_data.wav").read_bytes()
    samples = stored[stored.index(b"data") + 8 :]
    assert len(samples) % 2 == 1

    audio = decoded(pack, "adversarial/wav_truncated_data.wav")

    assert np.array_equal(audio.samples[0], np.frombuffer(samples[:-1], "<i2") / np.float32(32_768))


def test_a_recorder_that_never_wrote_the_length_leaves_its_sound(pack: Path) -> None:
    stored = (pack / "adversarial/wav_data_size_zero.wav").read_bytes()

    audio = decoded(pack, "adversarial/wav_data_size_zero.wav")

    assert np.array_equal(audio.samples[0], np.frombuffer(stored[44:], "<i2") / np.float32(32_768))


def test_the_content_decides_and_not_the_name(pack: Path) -> None:
    for misnamed, container in (
        ("m4a_named.mp3", "mp4"),
        ("mp3_named.wav", "mp3"),
        ("ogg_vorbis_named.wav", "ogg"),
        ("wav_named.mp3", "wav"),
        ("webm_named.ogg", "matroska"),
    ):
        assert decoded(pack, f"adversarial/{misnamed}").container == container


#: Under ``legacy``, what pydub does not decode is refused: it divides samples into whole ones by itself, and knows no
#: 64-bit ones.
REFUSED_BY_PYDUB: Final = {
    "adversarial/wav_truncated_data.wav": "corrupt",
    "formats/wav_f64le_mono_16k.wav": "codec_unsupported",
}


@pytest.mark.parametrize("entry", listed("adversarial/") + listed("formats/"))
def test_the_legacy_decoder_refuses_the_same_and_what_pydub_cannot_read(pack: Path, entry: Entry) -> None:
    expected = REFUSED_BY_PYDUB.get(entry.path, OUTCOMES.get(entry.path, entry.error_class))
    if expected is None:
        audio = decoded(pack, entry.path, Decoder.PYDUB)
        assert audio.decoder == "pydub"
        assert audio.samples.shape[0] == 1
        assert audio.samples.shape[1] > 0
    else:
        with pytest.raises(AudioError) as refusal:
            decoded(pack, entry.path, Decoder.PYDUB)
        assert refusal.value.error_class == expected
