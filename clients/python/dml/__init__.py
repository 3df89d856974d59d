"""A client of DML, the machine-learning cluster with no head. See :class:`Cluster`."""

from ._cluster import Cluster, Dataset, Model, Prediction, Study, Training, TrainingFailed
from ._http import NoAnswer, Problem

__all__ = ["Cluster", "Dataset", "Model", "NoAnswer", "Prediction", "Problem", "Study", "Training", "TrainingFailed"]
__version__ = "0.1.0"
