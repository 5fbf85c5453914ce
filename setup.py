"""Installation of meta_impala: Python 3.11 to 3.13, what TensorFlow 2.21 has wheels for."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.*)"$', (ROOT / "meta_impala/__init__.py").read_text("utf-8"), re.MULTILINE
).group(1)

COMPARISON = [
    "rliable>=1.2,<2",
    "scipy>=1.13,<2",
    "pandas>=2.2,<3",  # arch, which rliable imports, does not import with pandas 3
]
DISTRIBUTED = ["ray[tune]>=2.60,<3"]
MINATAR = ["minatar==1.0.15", "pandas>=2.2,<3"]  # minatar itself would take pandas 3
PLAY = ["pygame>=2.5,<3"]
WANDB = ["wandb>=0.19,<1"]
VIDEO = ["imageio-ffmpeg>=0.5,<1"]

setup(
    name="meta_impala",
    version=VERSION,
    description="Meta-gradient IMPALA: an actor-critic that learns its own discount and "
    "bootstrapping",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={
        "Meta-Gradient Reinforcement Learning": "https://arxiv.org/abs/1805.09801",
        "IMPALA": "https://arxiv.org/abs/1802.01561",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    keywords="reinforcement-learning meta-gradient impala atari tensorflow",
    packages=find_packages(include=["meta_impala", "meta_impala.*"]),
    package_data={
        "meta_impala.analysis.run_page": ["page.css"],
        "meta_impala": [
            "agents/*.npz",
            "presets/*.flags",
            "published/*.csv",
            "suites/*.toml",
            "py.typed",
        ],
    },
    entry_points={"console_scripts": ["meta-impala=meta_impala.__main__:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",  # Keras 2, which TensorFlow Probability and TRFL import
        "tensorflow-probability>=0.25,<0.26",
        "tensorboard>=2.20,<2.22",
        "dm-sonnet>=2.0.2,<2.1",
        "trfl>=1.2,<1.3",
        "gymnasium>=1.2,<1.5",
        "ale-py>=0.12,<0.13",
        "absl-py>=2.1,<3",
        "pillow>=10.1,<14",  # TensorBoard brings it too
        "matplotlib>=3.9,<4",
        "numpy>=2.0,<3",
        "psutil>=5.9,<8",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "tests": [
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.12,<1",
            "mypy>=1.15,<3",
            "nbclient>=0.10,<1",
            "ipykernel>=6.29,<8",
            *COMPARISON,
            *DISTRIBUTED,
            *MINATAR,
            *VIDEO,
        ],
        "all": [*COMPARISON, *DISTRIBUTED, *MINATAR, *PLAY, *VIDEO, *WANDB],
        "analysis": [],  # of 0.1: matplotlib, which every installation has now
        "comparison": COMPARISON,
        "video": VIDEO,
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "minatar": MINATAR,
        "play": PLAY,
        "wandb": WANDB,
        "distributed": DISTRIBUTED,
    },
)
