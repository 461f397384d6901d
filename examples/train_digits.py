"""Train a small classifier of handwritten digits, with a progress bar and checkpoints.

The data are the 1,797 scanned digits (8 x 8 pixels) that come with scikit-learn;
a fifth of them is held out for the test. Training takes a few seconds on one CPU
core: scikit-learn does not use the GPU, which stands for the one a model of your
own would use.

The script shows what makes a good background job, and runs as well without ERA Hub:

- progress goes to standard error through tqdm, where the service reads it;
- on SIGTERM, which comes shortly before the reservation ends, it saves what it has
  and exits; ``--resume`` continues from there with the very same result;
- results are files in the job's directory: the model, ``metrics.json``, and
  ``checkpoint.joblib`` as long as the training is unfinished.

Run it with ``python train_digits.py --epochs 30 --output model.joblib``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from tqdm import tqdm

EPOCHS = 30
CLASSES = range(10)
EPOCHS_PER_CHECKPOINT = 10
STOPPED = 128 + signal.SIGTERM  # the exit code of a process ended by SIGTERM


def load_data() -> list[Any]:
    """The digits, split: training images, test images, training labels, test labels.

    An image is a row of 64 brightnesses between 0 and 1.
    """
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)


def new_model() -> MLPClassifier:
    """A network with one hidden layer, small enough to be trained in seconds."""
    return MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.005, random_state=0)


def train_epoch(model: MLPClassifier, images: Any, labels: Any) -> None:
    """Train for one more epoch."""
    model.partial_fit(images, labels, classes=CLASSES)


def save(content: Any, path: Path) -> None:
    """Write a file whole or not at all, however the process ends."""
    unfinished = path.with_name(path.name + ".part")
    joblib.dump(content, unfinished)
    unfinished.replace(path)


def describe_reservation() -> str:
    """The GPUs and the time that this process was given, in words."""
    gpus = os.environ.get("ERA_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
    end = os.environ.get("ERA_END")
    if not end:
        return f"GPUs: {gpus}"
    return f"GPUs: {gpus}, until {datetime.fromisoformat(end):%Y-%m-%d %H:%M:%S %Z}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a classifier of handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default: {EPOCHS}")
    parser.add_argument(
        "--output", type=Path, default=Path("model.joblib"), help="the model file to write"
    )
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="continue from this file")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    stop_requested = False

    def request_stop(*_: object) -> None:
        nonlocal stop_requested
        stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)

    print(describe_reservation(), flush=True)
    train_images, test_images, train_labels, test_labels = load_data()
    state = {"model": new_model(), "epoch": 0}
    if arguments.resume:
        state = joblib.load(arguments.resume)
    model = state["model"]
    checkpoint = arguments.output.with_name("checkpoint.joblib")

    with tqdm(total=arguments.epochs, initial=state["epoch"], unit="epoch") as progress:
        while state["epoch"] < arguments.epochs:
            train_epoch(model, train_images, train_labels)
            state["epoch"] += 1
            progress.update()
            if state["epoch"] % EPOCHS_PER_CHECKPOINT == 0:
                save(state, checkpoint)
            if stop_requested:
                break

    metrics = {
        "accuracy": round(model.score(test_images, test_labels), 4),
        "epochs": state["epoch"],
        "finished": state["epoch"] >= arguments.epochs,
    }
    print(f"accuracy on the test images: {metrics['accuracy']:.1%} after {state['epoch']} epochs")
    save(model, arguments.output)
    arguments.output.with_name("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if metrics["finished"]:
        checkpoint.unlink(missing_ok=True)
        return 0
    save(state, checkpoint)
    print(f"stopped early; continue with --resume {checkpoint}")
    return STOPPED


if __name__ == "__main__":
    sys.exit(main())
