"""EEG: from a flicker to a decision. Read in the order of the data:

recording (what was recorded) → read (files) → filters → ring → features → decoders → scoring
(people not seen) → training, evaluation → sources → live → page.
"""

from leancnn.eeg.doctor import check
from leancnn.eeg.evaluation import evaluate
from leancnn.eeg.live import Live
from leancnn.eeg.read import load, load_epochs
from leancnn.eeg.recording import Epochs, Event, Gap, Recording
from leancnn.eeg.sources import open_source
from leancnn.eeg.training import fit, train

__all__ = [
    "Epochs",
    "Event",
    "Gap",
    "Live",
    "Recording",
    "check",
    "evaluate",
    "fit",
    "load",
    "load_epochs",
    "open_source",
    "train",
]
