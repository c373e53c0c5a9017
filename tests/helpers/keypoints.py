"""Keypoints of the same few photos, detected once a session."""

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.matching import keypoints

MOST = 1000  # pictures: a quarter of a gigabyte
Found = tuple[Any, Any]  # as OpenCV returns them: key points, and float32 (n, 128) or None


class RememberedSift:
    """Stands in for OpenCV's detector, which depends on nothing but the picture and takes most of a test's time."""

    known: ClassVar[OrderedDict[tuple[object, ...], Found]] = OrderedDict()
    lock = Lock()

    def __init__(self, contrast: float) -> None:
        self.contrast = contrast

    def detectAndCompute(self, grey: NDArray[np.uint8], mask: None) -> Found:  # noqa: N802 - OpenCV's name
        limits = keypoints.KEYPOINTS  # type: ignore[attr-defined]  # as a test may have set it
        key = (grey.shape, hashlib.sha256(grey.tobytes()).digest(), limits.count, self.contrast)
        with self.lock:
            if key in self.known:
                self.known.move_to_end(key)
                return self.known[key]
        detector = cv2.SIFT.create(nfeatures=limits.count, contrastThreshold=self.contrast)
        found: Found = detector.detectAndCompute(grey, mask)
        with self.lock:
            self.known[key] = found
            while len(self.known) > MOST:
                self.known.popitem(last=False)
        return found
