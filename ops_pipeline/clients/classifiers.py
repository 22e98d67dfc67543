"""The one model that the settings name; nothing stands in for it."""

from ops_pipeline.clients.finbert import TorchClassifier
from ops_pipeline.clients.finbert_folder import (
    MANIFEST,
    TO_EXPORT,
    onnx_folder,
    read_json,
    sha256_of,
    source_of,
    source_weights,
)
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.clients.lexicon import LexiconClassifier
from ops_pipeline.clients.protocols import Classifier
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import SentimentBackend, Settings


def classifier_of(settings: Settings) -> Classifier:
    """The configured model, known by name and hash; its weights are loaded by the first text.

    Raises:
        BadConfiguration: it is not there, or not usable; the message says what to do.
    """
    if settings.sentiment is SentimentBackend.FINBERT_ONNX:
        return _exported(settings)
    if settings.sentiment is SentimentBackend.FINBERT:
        return TorchClassifier(source_of(settings))
    return LexiconClassifier()


def _exported(settings: Settings) -> OnnxClassifier:
    folder = onnx_folder(settings)
    made = OnnxClassifier(folder)
    if settings.finbert_path:
        # Else the folder that is named would be scored with another model's export.
        weights = sha256_of(source_weights(source_of(settings)))
        if read_json(folder / MANIFEST).get("source_weights") != weights:
            raise BadConfiguration("OPS_FINBERT_PATH is not what was exported", TO_EXPORT)
    return made
