"""What the parts of a decision cost: filters, features and decoder, in numpy, torch and C."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from leancnn.eeg.decoders import Logit, fbcca, fit_logit
from leancnn.eeg.features import correlations
from leancnn.eeg.filters import bank_for
from leancnn.eeg.recording import Epochs
from leancnn.eeg.to_c import pipeline_c
from leancnn.eeg.windows import images, windows
from leancnn.toolchain import FAST_FLAGS, compile_library

ROUNDS = 5
SECONDS = 0.1  # of a round, of this process: others on the core do not count
STEP = 64  # new samples between two decisions


def median_us(call: Callable[[], Any]) -> float:
    """Microseconds of processor time of a call: the median of rounds of many calls."""
    call()
    found = []
    for _ in range(ROUNDS):
        began, calls = time.process_time(), 0
        while time.process_time() - began < SECONDS:
            call()
            calls += 1
        found.append(1e6 * (time.process_time() - began) / calls)
    return float(np.median(found))


def _whole_in_c(logit: Logit, some: Epochs) -> dict[tuple[str, str], Callable[[], Any]]:
    """Filters, features and the logit in one C file: 64 new samples, and a decision."""
    source = pipeline_c(logit, some.fs, len(some.channels), 2.0)
    library = ctypes.CDLL(str(compile_library(source, name="eeg", flags=FAST_FLAGS)))
    state, scores = np.zeros(4 << 20, np.uint8), np.empty(len(logit.frequencies), np.float32)
    place, answer = (ctypes.c_void_p(array.ctypes.data) for array in (state, scores))
    rows = np.ascontiguousarray(some.x[0].T)
    given = [ctypes.c_void_p(row.ctypes.data) for row in rows]
    library.eeg_reset(place)
    for sample in given:
        library.eeg_push(place, sample)

    def decide(keeps: tuple[Any, ...] = (state, scores, rows)) -> None:
        library.eeg_scores(place, answer)

    def whole() -> None:
        for sample in given[:STEP]:
            library.eeg_push(place, sample)
        decide()

    return {
        ("features and logit", "C"): decide,
        ("filters of 64 samples by ctypes, features and logit", "C"): whole,
    }


def cost_rows(epochs: Epochs) -> list[dict[str, Any]]:
    """Rows of part, how, and µs."""
    from leancnn.compiled import CompiledNetwork
    from leancnn.eeg.network import fit_network, in_torch
    from leancnn.targets._c_text import to_c

    some = epochs.looking()[np.arange(96)]
    bank, targets = bank_for(some.targets), some.targets
    features, labels = images(some, bank, 2.0), some.labels
    window = next(iter(windows(some, bank, 2.0)))
    filters = bank.filters(some.fs, len(some.channels))
    chunk = some.x[0][:, :STEP]
    logit = fit_logit(features, labels, some.session, targets, bank, strength=0.03)
    network = fit_network(features, labels, targets, seed=0, epochs=1)
    native = CompiledNetwork(
        compile_library(to_c(network).source, name="ssvepnet", flags=FAST_FLAGS)
    )
    fed = np.ascontiguousarray(features[:1].transpose(0, 2, 3, 1))
    torch_answer = in_torch(network)
    untrained = fbcca(targets)
    timed = {
        ("filters, 64 new samples", "scipy"): lambda: filters(chunk),
        ("features, 5 bands × 27 frequencies", "numpy"): lambda: correlations(
            window, targets, some.fs
        ),
        ("FBCCA, 3 frequencies", "numpy"): lambda: untrained.scores(window, some.fs),
        ("logit on features", "numpy"): lambda: logit.scores_from_features(features[0]),
        ("ssvepnet on features", "torch"): lambda: torch_answer(fed),
        ("ssvepnet on features", "C"): native.bare(fed),
        **_whole_in_c(logit, some),
    }
    return [
        {"part": part, "in": how, "µs": round(median_us(call), 2)}
        for (part, how), call in timed.items()
    ]
