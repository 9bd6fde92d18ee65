"""Train a network. Read in the order of the data:

plan (the value) → batches → backend (which forward pass) → estimate (how long it will take) →
state (weights, optimiser, average) → loop (steps and their checkpoints) → validation → history;
run: one is begun, or resumed to the same bits.
"""

from leancnn.train.run import Trained, resume, train

__all__ = ["Trained", "resume", "train"]
