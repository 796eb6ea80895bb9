"""scikit-learn's ``fit`` and ``predict`` over kshot's learners: a few examples in, answers out."""

from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.onnx import export_onnx
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.regressor import FewShotRegressor
from kshot.estimators.tuning import tune

__all__ = ["FewShotClassifier", "FewShotRegressor", "PictureFormat", "export_onnx", "tune"]
