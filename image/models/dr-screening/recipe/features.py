"""Computes once what the frozen blocks say of each photograph and each of its random views.

In: the data folder. Out, in the work folder: `early.npy` (photographs x (1 + VIEWS) x 80 x 28 x 28, f16),
`statistics.npy` (the gate's columns of the same views), `maps.npy` (share of lesion in each field; NaN without a mask).
Promise: seeded by photograph, so that a stop loses nothing and changes nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from tqdm import tqdm

import fundus
import retina
from common import backbone, export
from network import MAP_SIDE, SIDE_PX, STATISTICS, EarlyCache

SEED = 20260411
VIEWS = 8
"""Random views of each photograph; view 0 is the photograph itself."""


def tensors(pictures: list[np.ndarray]) -> np.ndarray:
    """SIDE_PX pictures -> N x 3 x SIDE_PX x SIDE_PX, normalised."""
    return np.stack([export.tensor(picture, backbone.MEAN, backbone.STD) for picture in pictures])


class Frozen:
    """The frozen blocks in FP32 on one thread, `batch` pictures at a time."""

    def __init__(self, batch: int) -> None:
        """Compiles for one batch size."""
        shape = [batch, 3, SIDE_PX, SIDE_PX]
        model = ov.convert_model(EarlyCache(), example_input=torch.zeros(shape), input=[shape])
        self.request = ov.Core().compile_model(model, "CPU", export.EXACT).create_infer_request()

    def __call__(self, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(features, statistics) of as many pictures as the batch has."""
        answer = self.request.infer([tensors(pictures)])
        return np.array(answer[0]), np.array(answer[1])


class Store:
    """The three arrays on disk."""

    def __init__(self, work: Path, mode: str, count: int = 0) -> None:
        """`mode`: "w+" makes them, "r+" goes on, "r" reads."""
        views = 1 + VIEWS
        shapes = {
            "early": (np.float16, (count, views, 80, MAP_SIDE, MAP_SIDE)),
            "statistics": (np.float32, (count, views, STATISTICS)),
            "maps": (np.float32, (count, views, MAP_SIDE, MAP_SIDE)),
        }
        for name, (kind, shape) in shapes.items():
            if mode == "w+":
                array = np.lib.format.open_memmap(work / f"{name}.npy", mode, kind, shape)
            else:
                array = np.load(work / f"{name}.npy", mmap_mode=mode)
            setattr(self, name, array)


def compute(data: Path, work: Path) -> None:
    """Fills the store from where the last run stopped."""
    pictures, _ = fundus.load(data)
    masks = fundus.lesion_masks(data, pictures)
    marker = work / "features.done"
    started = time.process_time()
    finished = int(marker.read_text()) if marker.exists() else 0
    store = Store(work, "r+" if finished else "w+", len(pictures))
    frozen = Frozen(1 + VIEWS)
    for index in tqdm(range(finished, len(pictures)), desc="frozen blocks", unit="photo", mininterval=10):
        rng = np.random.default_rng([SEED, index])
        disc = retina.find(pictures[index])
        if disc is None:
            raise SystemExit(f"photograph {index} has no disc")
        square = retina.cut(pictures[index], disc)
        mask = retina.cut(masks[index], disc) if index in masks else None
        seen = [fundus.plain(square, mask)] + [fundus.view(square, mask, rng) for _ in range(VIEWS)]
        store.early[index], store.statistics[index] = frozen([v.picture for v in seen])
        store.maps[index] = [np.full((MAP_SIDE, MAP_SIDE), np.nan) if v.lesions is None else v.lesions for v in seen]
        if index % 20 == 19 or index + 1 == len(pictures):
            for array in (store.early, store.statistics, store.maps):
                array.flush()
            marker.write_text(str(index + 1))
    if finished < len(pictures):
        (work / "features.seconds").write_text(f"{time.process_time() - started:.0f}\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv, images.zip and lesions.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    compute(options.data, options.work)


if __name__ == "__main__":
    main()
