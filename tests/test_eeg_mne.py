"""Files that mne and its companions write, and a GDF by hand: read as they were recorded."""

import struct

import numpy as np
import pytest

from leancnn.eeg import Recording, check, load, load_epochs
from leancnn.errors import DataError, UsageError

mne = pytest.importorskip("mne", reason="needs the extra eeg-files")
pytestmark = pytest.mark.slow

FS = 250.0
CUES = [(2.0, "13"), (9.0, "17"), (15.5, "rest")]


def raw():
    """Two channels of EEG and one of a trigger, 24 s, with cues; in volts."""
    x = np.random.default_rng(0).standard_normal((3, 6000)) * 1e-5
    info = mne.create_info(["O1", "O2", "STI"], FS, ["eeg", "eeg", "stim"])
    x[2] = 0
    made = mne.io.RawArray(x, info, verbose="error")
    made.set_annotations(mne.Annotations(*zip(*[(at, 0, word) for at, word in CUES], strict=True)))
    return made


def written(folder, suffix):
    """What `raw` is when the tool of that format has written it."""
    made, path = raw(), folder / f"a{suffix}"
    if suffix == ".fif":
        made.save(path, verbose="error")
        return path
    pytest.importorskip({".vhdr": "pybv", ".set": "eeglabio"}[suffix])
    eeg = made.pick("eeg")
    mne.export.export_raw(path, eeg, verbose="error", overwrite=True)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".fif", ".vhdr", ".set"])
def test_what_mne_wrote_comes_back_with_rate_channels_and_cues(tmp_path, suffix):
    found = load(written(tmp_path, suffix))
    assert isinstance(found, Recording)
    assert (found.fs, found.channels, found.unit) == (FS, ("O1", "O2"), "V")
    assert np.allclose(found.x, raw().get_data()[:2], atol=2e-7)
    # pybv writes numbers as "Comment/13"; the words of others are those that were set.
    labels = [e.label if suffix != ".vhdr" else str(e.label).split("/")[-1] for e in found.events]
    expected = [13.0, 17.0, 0.0] if suffix != ".vhdr" else ["13", "17", "rest"]
    assert [event.sample for event in found.events] == [500, 2250, 3875]
    assert labels == expected


@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_out_of_a_longer_one_has_its_cues_where_they_were(tmp_path):
    made = raw()
    made.set_meas_date(1_600_000_000)
    made.set_annotations(mne.Annotations([2.0, 9.0], 0, ["13", "17"]))
    made.crop(tmin=5.0).save(tmp_path / "cut_raw.fif", verbose="error")
    found = load(tmp_path / "cut_raw.fif")
    assert [(event.sample, event.label) for event in found.events] == [(1000, 17.0)]


def gdf(path, codes, count=6000):
    """A minimal GDF 1.25: two channels of 16 bits, records of a second, a table of events."""
    x = np.random.default_rng(0).integers(-3000, 3000, (2, count)).astype("<i2")
    head = b"GDF 1.25" + b" " * 160 + b"2020010112000000" + struct.pack("<q", 256 * 3)
    head += bytes(24) + bytes(20)
    head += struct.pack("<qIII", count // 250, 1, 1, 2)
    assert len(head) == 256
    columns = [
        b"O1".ljust(16) + b"O2".ljust(16),
        b" " * 160,
        b"uV".ljust(8) * 2,
        struct.pack("<2d", -100, -100),
        struct.pack("<2d", 100, 100),
        struct.pack("<2q", -32768, -32768),
        struct.pack("<2q", 32767, 32767),
        b" " * 160,
        struct.pack("<2I", 250, 250),
        struct.pack("<2I", 3, 3),
        bytes(64),
    ]
    records = x.reshape(2, -1, 250).transpose(1, 0, 2).tobytes()
    at = struct.pack(f"<{len(codes)}I", *(place + 1 for place, _ in codes))
    kinds = struct.pack(f"<{len(codes)}H", *(code for _, code in codes))
    table = b"\x01" + (250).to_bytes(3, "little") + struct.pack("<I", len(codes)) + at + kinds
    path.write_bytes(head + b"".join(columns) + records + table)
    return path, x


@pytest.mark.filterwarnings("ignore")
def test_codes_of_a_gdf_are_names_until_it_is_said_what_they_mean(tmp_path):
    codes = [(500, 33025), (2250, 33026), (3875, 33024)]
    path, x = gdf(tmp_path / "a.gdf", codes)
    found = load(path)
    assert (found.fs, found.channels, found.unit) == (250.0, ("O1", "O2"), "V")
    assert np.allclose(found.x, x / 32767.5 * 1e-4, atol=1e-7)
    assert [e.label for e in found.events] == ["33025", "33026", "33024"]
    assert check(found).facts["events"] == {"33025": 1, "33026": 1, "33024": 1}
    with pytest.raises(DataError, match="--label CODE=HZ"):
        load_epochs([path])
    labels = {"33025": "13", "33026": "17", "33024": "rest"}
    trials = load_epochs([path], labels=labels)
    assert trials.hz.tolist() == [13.0, 17.0, 0.0]
    with pytest.raises(DataError, match="no event is called '7'; there are 33024"):
        load(path, labels={"7": "13"})


def test_trials_take_no_labels(tmp_path):
    from tests.eeg_data import people, save_trials

    with pytest.raises(UsageError, match="leave --label"):
        load(save_trials(tmp_path / "a.npz", people()), labels={"1": "13"})
