"""Meta-gradient IMPALA: an actor-critic that learns its own discount γ and bootstrapping λ.

An implementation of *Meta-Gradient Reinforcement Learning* (Xu, van Hasselt and Silver 2018,
arXiv 1805.09801) on IMPALA (Espeholt et al. 2018, arXiv 1802.01561).

Importing this package is cheap: TensorFlow is imported only by the modules that compute with it.
"""

__version__ = "0.1.0"
