"""Train a network. Read in the order of the data:

plan (the value) → batches → backend (which forward pass) → state (weights, optimiser, average) →
loop (steps, checkpoints, exact resume) → validation → history.
"""

from leancnn.train.loop import Trained, resume, train

__all__ = ["Trained", "resume", "train"]
