"""Trains and dies without a word in the given epoch: python killed_training.py CHECKPOINT EPOCH."""

import os
import runpy
import signal
import sys
from pathlib import Path

import torch

from amct_lite.learn.batches import ArrayBatches
from amct_lite.samples.digits.data import MODEL_FILE, load_split


def data(kill_at=None):
    part = load_split().train

    def augment(images, generator):
        # Draws from all generators that training has to bring back.
        noise = torch.rand(1).item() + generator.random()
        if kill_at is not None and batches._epoch == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return images + images.dtype.type(noise) / 100

    batches = ArrayBatches(part.images[:256], part.labels[:256], 64, augment=augment)
    return batches


if __name__ == "__main__":
    torch.set_num_threads(1)
    # By its path: packages of others may be called "tests".
    PlainLearner = runpy.run_path(str(Path(__file__).with_name("plain_learner.py")))["PlainLearner"]

    PlainLearner(MODEL_FILE).fit(data(int(sys.argv[2])), epochs=4, checkpoint=sys.argv[1], seed=3)
