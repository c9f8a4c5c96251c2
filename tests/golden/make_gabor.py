"""Make `gabor/expected.npz`: responses of pymoten's static Gabor pyramid to a few luminances.

Needs pymoten 0.1.3 (pip install pymoten==0.1.3), and is run as it is:

  python tests/golden/make_gabor.py

For images of two sizes S ("height x width") there are `luminance_S` [3 h w] (0 to 100, in float16:
noise, a ramp, and a photograph's kind of spectrum) and `expected_S` [3 filters], in float64; and
`versions`, a JSON text.
"""

import json
import pathlib
import platform

import moten
import numpy as np

SIZES = ((32, 32), (24, 40))


def luminances(rng, h, w):
    noise = rng.uniform(0, 100, (h, w))
    ramp = 100 * np.add.outer(np.arange(h) / h, np.arange(w) / w) / 2
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    natural = np.fft.ifft2(np.fft.fft2(noise) / np.maximum(frequency, 1 / max(h, w))).real
    natural = 100 * (natural - natural.min()) / np.ptp(natural)
    return np.stack([noise, ramp, natural]).astype(np.float16)


def main():
    rng = np.random.default_rng(0)
    versions = {"pymoten": "0.1.3", "numpy": np.__version__, "python": platform.python_version()}
    arrays = {"versions": json.dumps(versions)}
    for h, w in SIZES:
        frames = luminances(rng, h, w)
        pyramid = moten.pyramids.StimulusStaticGaborPyramid(frames.astype(np.float64))
        arrays[f"luminance_{h}x{w}"] = frames
        arrays[f"expected_{h}x{w}"] = pyramid.project(dtype="float64")
    folder = pathlib.Path(__file__).resolve().parent / "gabor"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
