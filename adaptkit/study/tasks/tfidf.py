"""The honest baseline of a labelled task: TF-IDF features and logistic regression, seconds to train, no
language model."""

from __future__ import annotations

from typing import Any

NAME = "TF-IDF + logistic regression"


def tfidf_rows(train: list[tuple[str, str]], test: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Predictions for `test`.

    Args:
        train: (text, label) pairs.
        test: (id, text, label) triples.
    Returns: item rows with `id`, `label`, `prediction`, `probabilities`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=100_000),
        LogisticRegression(C=10.0, max_iter=500),
    )
    pipeline.fit([text for text, _ in train], [label for _, label in train])
    probabilities = pipeline.predict_proba([text for _, text, _ in test])
    names = [str(name) for name in pipeline.classes_]
    return [
        {
            "id": row_id,
            "label": label,
            "prediction": names[int(row.argmax())],
            "probabilities": {name: round(float(p), 6) for name, p in zip(names, row, strict=True)},
        }
        for (row_id, _, label), row in zip(test, probabilities, strict=True)
    ]
