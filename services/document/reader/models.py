"""The two neural networks: one finds lines of text in a picture, the other reads a line."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# Its wheels tell their maker what they are used for, in a thread of their own, unless told not to before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Grey = npt.NDArray[np.uint8]
"""A picture: rows of pixels, 0 is black."""
Scores = npt.NDArray[np.float32]

ALPHABET = "<0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""All that a machine-readable zone may contain."""
_LIKE_FILLERS = "く≤〈❮"
"""What the network takes rows of < for, of the thousands of characters that it knows."""
LINE_HEIGHT = 48
"""Of the picture of a line, in pixels: the network has learnt with it."""
SIDES = 32
"""The sides of a picture in which lines are to be found are multiples of it."""
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Models:
    """Both networks, ready to run, on one core."""

    finder: Any
    scribe: Any
    columns: list[int]
    """Which of the scribe's classes are wanted: no character, then those of ALPHABET."""
    fillers: list[int]
    """Those that look like <."""

    def find(self, picture: Grey) -> Scores:
        """Returns how likely it is for each pixel that it belongs to the middle of a line of text."""
        layers = [(picture / np.float32(255) - mean) / spread for mean, spread in zip(_MEAN, _SPREAD, strict=True)]
        (found,) = self.finder.run(None, {"x": np.stack(layers)[None].astype(np.float32)})
        scores: Scores = found[0, 0]
        return scores

    def read(self, line: Grey) -> Scores:
        """Returns for each step from left to right how likely there is no character (column 0), or one of ALPHABET."""
        layer = line / np.float32(127.5) - np.float32(1)
        (read,) = self.scribe.run(None, {"x": np.repeat(layer[None, None], 3, 1)})
        scores: Scores = read[0][:, self.columns]
        scores[:, 1 + ALPHABET.index("<")] += read[0][:, self.fillers].sum(1)
        return scores


def load() -> Models:
    """Loads them: it takes some 0.5 s and 100 MiB."""
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    package = find_spec("rapidocr")
    if package is None or package.origin is None:
        raise ImportError(name="rapidocr")
    finder, scribe = (
        onnxruntime.InferenceSession(
            Path(package.origin).with_name("models") / name, options, providers=["CPUExecutionProvider"]
        )
        for name in ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")
    )
    classes = ["", *scribe.get_modelmeta().custom_metadata_map["character"].splitlines()]
    wanted, fillers = ([classes.index(one) for one in characters] for characters in (ALPHABET, _LIKE_FILLERS))
    return Models(finder, scribe, [0, *wanted], fillers)
