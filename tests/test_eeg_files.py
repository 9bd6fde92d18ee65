"""Reading, recording and the data doctor."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from leancnn.eeg import Epochs, Event, Gap, Recording, check, load, load_epochs
from leancnn.eeg.chunks import Chunk
from leancnn.eeg.doctor import best_assignment
from leancnn.eeg.foreign import edf_units, xdf_is_cut
from leancnn.eeg.record import Recorder
from leancnn.eeg.recording import gaps_of_stamps, label_of
from leancnn.errors import DataError, LeanCNNError, UsageError, WriteError
from tests.eeg_data import TARGETS, noise, people, save_trials


def test_trials_come_back_as_they_were(tmp_path):
    epochs = people()
    found = load(save_trials(tmp_path / "a.npz", epochs))
    assert isinstance(found, Epochs)
    assert np.array_equal(found.x, epochs.x)
    assert found.targets == TARGETS
    assert (found.fs, found.t0, found.channels, found.unit) == (250.0, -1.0, epochs.channels, "uV")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", b"PK\x03\x04 nothing", "not a readable .npz"),
        ("a.csv", b"1,2,3\n4,5,6\n7,8,9\n", "has a header"),
        ("a.csv", b"time,A\n0,1\n0.1\n0.2,3\n", "line 3 has 1 of 2"),
        ("a.csv", b"time,A\n0,x\n0.1,2\n0.2,3\n", "column 'A' holds what is no number"),
        ("a.csv", b"A,B\n0,1\n1,2\n2,2\n", "say the rate with --fs"),
        ("a.csv", b"time,A [uv]\n0,1\n0.1,2\n0.2,3\n", "'uv' is no unit that is known"),
        ("a.csv", b"1.0\t2.0\t3.0\n4.0\t5.0\t6.0\n", "--board"),
        ("a.edf", b"0       nothing of the sort", "not that of an EDF"),
        ("a.wav", b"", "signals are read from"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_name(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LeanCNNError, match=words) as caught:
        load(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    epochs = people()
    with pytest.raises(DataError, match="do not fit together"):
        load(save_trials(tmp_path / "a.npz", epochs, hz=epochs.hz[:-1]))
    np.savez(tmp_path / "b.npz", X=epochs.x)
    with pytest.raises(DataError, match="hz, subject, session, fs is not there"):
        load(tmp_path / "b.npz")


def test_a_table_gives_rate_units_events_and_gaps(tmp_path):
    lines = ["time,Oz [uV],O1 [uV],event"]
    for n in (*range(100), *range(150, 250)):
        word = {10: "13", 11: "13", 60: "rest", 200: "blink"}.get(n, "")
        lines.append(f"{n / 100},{n},{-n},{word}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n120,1")  # cut while it was written
    found = load(tmp_path / "a.csv")
    assert (found.fs, found.unit, found.channels) == (100.0, "uV", ("Oz", "O1"))
    assert found.events == (Event(10, 13.0), Event(60, 0.0), Event(150, "blink"))
    assert found.gaps == (Gap(100, 50),)


@pytest.mark.parametrize(
    ("word", "label"), [("13", 13.0), ("8.57 Hz", 8.57), ("REST", 0.0), ("left", "left")]
)
def test_labels_are_frequencies_rest_or_names(word, label):
    assert label_of(word) == label


def test_a_burst_is_no_gap_and_a_leap_is_one():
    stamps = np.arange(500) / 250
    burst = stamps.copy()
    burst[100:110] += 0.02  # late, and then in time again
    assert gaps_of_stamps(burst, 250.0) == ()
    stamps[300:] += 1.0
    assert gaps_of_stamps(stamps, 250.0) == (Gap(300, 250),)


def test_what_was_recorded_comes_back_bit_for_bit(tmp_path):
    x = (np.random.default_rng(0).standard_normal((3, 900)) * 1e-5).astype(np.float32)
    recorder = Recorder(tmp_path / "r.csv", 250.0, ("A", "B", "C"), "V")
    recorder(Chunk(x[:, :400], 0, None, (Event(10, 13.0), Event(300, 0.0)), True))
    recorder(Chunk(x[:, 420:600], 420))
    recorder(Chunk(x[:, 600:], 600, None, (Event(700, 60 / 7),), True))
    recorder.close()
    found = load(tmp_path / "r.csv")
    assert np.array_equal(found.x, np.delete(x, range(400, 420), 1))
    assert found.unit == "V"
    assert found.fs == 250.0
    assert found.gaps == (Gap(400, 20), Gap(580, 250))
    assert [event.sample for event in found.events] == [10, 300, 680]
    with pytest.raises(WriteError, match="exists"):
        Recorder(tmp_path / "r.csv", 250.0, ("A", "B", "C"), "V")


def test_a_recording_is_cut_round_its_events_but_not_across_gaps():
    events = tuple(Event(at, 10.0) for at in (10, 1000, 2000, 2400))
    epochs = noise(samples=2500, events=events, gaps=(Gap(2100, 5),)).epochs(1.0, 1.0)
    assert len(epochs) == 1  # one is too early, one has a gap in it, one is too late
    with pytest.raises(DataError, match="no event with a frequency"):
        noise(events=(Event(300, "start"),)).epochs(0.5, 0.5)


def test_recordings_are_sessions_and_their_folder_is_the_person(tmp_path):
    for person in ("ann", "bob"):
        for session in ("1", "2"):
            (tmp_path / person).mkdir(exist_ok=True)
            recorder = Recorder(tmp_path / person / f"{session}.csv", 250.0, ("A", "B"), "uV")
            x = np.random.default_rng(len(person)).standard_normal((2, 2000)).astype(np.float32)
            recorder(Chunk(x, 0, None, (Event(300, 10.0),), True))
            recorder.close()
    found = load_epochs(sorted(tmp_path.rglob("*.csv")))
    assert sorted(set(found.subject)) == ["ann", "bob"]
    assert list(found.session) == ["1", "2", "1", "2"]


# EDF and XDF by hand


def edf(path, units):
    """A minimal EDF of one record of a second at 100 Hz."""
    count = len(units)
    head = b"0".ljust(8) + b"X".ljust(80) + b"Y".ljust(80) + b"01.01.2001.01.01"
    head += str(256 * (count + 1)).encode().ljust(8) + b"".ljust(44)
    head += b"1".ljust(8) + b"1".ljust(8) + str(count).encode().ljust(4)
    columns = [
        [f"EEG {n}".encode().ljust(16) for n in range(count)],
        [b"".ljust(80)] * count,
        [unit.ljust(8) for unit in units],
        [b"-100".ljust(8)] * count,
        [b"100".ljust(8)] * count,
        [b"-32768".ljust(8)] * count,
        [b"32767".ljust(8)] * count,
        [b"".ljust(80)] * count,
        [b"100".ljust(8)] * count,
        [b"".ljust(32)] * count,
    ]
    samples = np.random.default_rng(0).integers(-3000, 3000, (count, 100)).astype("<i2")
    path.write_bytes(head + b"".join(map(b"".join, columns)) + samples.tobytes())
    return path


@pytest.mark.parametrize("unit", [b"", b"uv", b"microV", "µV".encode(), b"nV"])
def test_an_edf_whose_unit_would_be_read_as_volts_is_refused(tmp_path, unit):
    path = edf(tmp_path / "a.edf", [b"uV", unit])
    assert edf_units(path)[0] == "uV"
    with pytest.raises(DataError, match="would be read as volts; say --unit"):
        load(path)


def test_an_edf_is_read_in_volts(tmp_path):
    pytest.importorskip("mne", reason="needs the extra eeg-files")
    found = load(edf(tmp_path / "a.edf", [b"uV", b"uV"]))
    assert isinstance(found, Recording)
    assert (found.unit, found.fs) == ("V", 100.0)
    assert 1e-6 < np.abs(found.x).max() < 1e-4
    told = load(edf(tmp_path / "b.edf", [b"", b""]), unit="uV")
    assert np.allclose(told.x, 1e6 * found.x, rtol=1e-5)


def xdf(path, stamps, x):
    """A minimal XDF with one stream of EEG, each sample with its stamp."""

    def chunk(tag, content):
        body = struct.pack("<H", tag) + content
        return b"\x04" + struct.pack("<I", len(body)) + body

    info = (
        "<?xml version='1.0'?><info><name>E</name><type>EEG</type>"
        f"<channel_count>{len(x)}</channel_count><nominal_srate>256</nominal_srate>"
        "<channel_format>float32</channel_format><desc></desc></info>"
    )
    end = "<?xml version='1.0'?><info><footer></footer></info>"
    rows = [
        b"\x08" + struct.pack("<d", at) + column.astype("<f4").tobytes()
        for at, column in zip(stamps, x.T, strict=True)
    ]
    number, half = struct.pack("<I", 1), len(rows) // 2

    def samples(part):
        return chunk(3, number + b"\x04" + struct.pack("<I", len(part)) + b"".join(part))

    path.write_bytes(
        b"XDF:"
        + chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")
        + chunk(2, number + info.encode())
        + samples(rows[:half])
        + samples(rows[half:])
        + chunk(6, number + end.encode())
    )
    return path


def test_a_second_lost_in_an_xdf_stays_a_gap(tmp_path):
    pytest.importorskip("pyxdf", reason="needs the extra eeg-files")
    stamps = np.concatenate([np.arange(512), np.arange(768, 1280)]) / 256
    x = np.random.default_rng(0).standard_normal((2, 1024)).astype(np.float32)
    found = load(xdf(tmp_path / "a.xdf", stamps, x))
    assert np.array_equal(found.x, x)
    assert found.fs == 256.0
    assert found.gaps == (Gap(512, 256),)
    assert check(found).facts["lost"] == 256


def test_an_xdf_that_is_cut_off_is_read_and_said(tmp_path):
    pytest.importorskip("pyxdf", reason="needs the extra eeg-files")
    x = np.random.default_rng(0).standard_normal((2, 600)).astype(np.float32)
    whole = xdf(tmp_path / "a.xdf", np.arange(600) / 256, x)
    assert not xdf_is_cut(whole)
    cut = tmp_path / "b.xdf"
    for less in (1, 30, 200, 2000):
        cut.write_bytes(whole.read_bytes()[:-less])
        assert xdf_is_cut(cut)
    with pytest.warns(UserWarning, match="is cut off"):
        found = load(cut)
    assert 300 <= found.x.shape[1] < 600


# The doctor


def test_honest_trials_are_fit():
    report = check(people(rest=4))
    assert report.fit, report.problems
    assert report.facts["labels by spectrum, p"] <= 0.01


def test_swapped_labels_are_refused_and_the_assignment_that_fits_is_said():
    epochs = people()
    hz = epochs.hz.copy()
    hz[epochs.hz == 10.0], hz[epochs.hz == 12.0] = 12.0, 10.0
    report = check(replace(epochs, hz=hz, _keys=[]))
    assert not report.fit
    assert any("10 Hz is 12 Hz, 12 Hz is 10 Hz" in line for line in report.problems)


def test_labels_that_nothing_answers_to_are_refused():
    report = check(people(snr_db=-60.0))
    assert any("spectra do not peak" in line for line in report.problems)


def test_one_session_alone_is_refused_only_where_other_labels_fit():
    epochs = people(count=1, trials=32, snr_db=-4.0)
    alone = replace(epochs, session=np.array(["one"] * 32), _keys=[])
    few = alone[np.arange(4)]
    assert check(few).fit
    assert any("too few trials" in line for line in check(few).warnings)
    hz = np.roll(np.array(TARGETS), 1)[alone.labels]
    assert any("fits:" in line for line in check(replace(alone, hz=hz, _keys=[])).problems)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_the_assignment_that_fits_is_the_permutation_of_the_heights(order):
    means = np.full((3, 3), -1.0)
    means[np.arange(3), order] = 1.0
    assert best_assignment(means) == order


def test_trials_under_two_names_are_refused():
    epochs = people()
    x = epochs.x.copy()
    x[epochs.subject == "made-2"] = x[epochs.subject == "made-1"]
    report = check(replace(epochs, x=x, _keys=[]))
    assert any("made-1 and made-2" in line for line in report.problems)


def test_an_account_of_events_says_them_as_one_writes_them():
    events = (Event(1, 10.0), Event(2, 10.0), Event(3, 60 / 7), Event(4, "blink"))
    found = check(replace(noise(), events=events))
    assert found.facts["events"] == {"10 Hz": 2, f"{60 / 7:.15g} Hz": 1, "blink": 1}
    assert f"  events: 10 Hz 2, {60 / 7:.15g} Hz 1, blink 1\n" in found.text()


def test_a_rate_that_its_stamps_contradict_is_refused():
    stamps = np.arange(700) / 256
    report = check(noise(stamps=stamps, fs=250.0))
    assert any("its stamps say 256" in line for line in report.problems)
    drift = np.arange(700) / 250 * (1 + 200e-6)
    assert check(noise(stamps=drift)).fit


def test_nan_flat_channels_and_odd_units_are_said():
    x = 10 * noise(samples=3000).x
    x[0] = 1.0
    flat = Recording(x=x, fs=250.0, channels=("A", "B", "C"), unit="uV", source="s")
    assert any("channel A is flat" in line for line in check(flat).warnings)
    x[1, 5] = np.nan
    assert any("1 samples hold NaN" in line for line in check(flat).problems)
    volts = replace(flat, x=np.nan_to_num(x), unit="V")
    assert any("which no EEG has" in line for line in check(volts).problems)
    unsaid = replace(flat, x=np.nan_to_num(x), unit="")
    assert any("its unit is not said" in line for line in check(unsaid).warnings)


def test_a_unit_that_does_not_exist_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="'uv' is no unit"):
        load(save_trials(tmp_path / "a.npz", people()), unit="uv")
