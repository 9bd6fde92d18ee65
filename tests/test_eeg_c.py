"""Filters, features and a logit as one C file, beside the same in Python."""

import ctypes

import numpy as np

from leancnn.eeg.decoders import fit_logit
from leancnn.eeg.filters import bank_for
from leancnn.eeg.to_c import pipeline_c
from leancnn.eeg.windows import images, windows
from leancnn.toolchain import FAST_FLAGS, compile_library
from tests.eeg_data import people


def test_one_c_file_decides_as_the_stream_in_python_does():
    epochs = people(count=2, trials=16)
    bank, targets = bank_for(epochs.targets), epochs.targets
    logit = fit_logit(
        images(epochs, bank, 2.0), epochs.labels, epochs.session, targets, bank, strength=0.03
    )
    source = pipeline_c(logit, 250.0, 8, 2.0)
    library = ctypes.CDLL(str(compile_library(source, name="eeg", flags=FAST_FLAGS)))
    state = np.zeros(4 << 20, np.uint8)  # more than struct eeg
    place, scores = ctypes.c_void_p(state.ctypes.data), np.empty(4, np.float32)
    stop = epochs.sample(3.0)
    found = []
    for trial in epochs.x[:12] + np.float32(2000):  # an amplifier's offset
        library.eeg_reset(place)
        for sample in np.ascontiguousarray(trial[:, :stop].T):
            library.eeg_push(place, ctypes.c_void_p(sample.ctypes.data))
        assert library.eeg_scores(place, ctypes.c_void_p(scores.ctypes.data)) == 1
        found.append(scores.copy())
    expected = [logit.scores(w, 250.0) for w in windows(epochs[np.arange(12)], bank, 2.0)]
    assert np.abs(np.array(found) - np.array(expected)).max() < 0.01
    assert (np.argmax(found, 1) == np.argmax(expected, 1)).all()
