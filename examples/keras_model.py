"""A Keras network behind one decorator: the score of every row, the features on the baseline's bounds.

Not run by the project's CI, for Keras and a backend are large. Any backend will do:

    pip install otel-ml scikit-learn keras jax

Run it:

    KERAS_BACKEND=jax python examples/keras_model.py

It prints a line for each call and, at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set,
all that goes to the endpoint instead.
"""

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import otel_ml

data = load_breast_cancer()
X_train, X_serve, y_train, _ = train_test_split(
    data.data.astype("float32"), data.target, test_size=0.1, random_state=0
)

scale = keras.layers.Normalization()
scale.adapt(X_train)
network = keras.Sequential(
    [scale, keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
)
network.compile(optimizer="adam", loss="binary_crossentropy")
network.fit(X_train, y_train, epochs=20, verbose=0)


def probabilities(X: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(network(X))  # a column (n, 1), which is read as (n,)


baseline = otel_ml.Baseline.fit(
    X_train,
    model="tumour",
    version="1",
    features=list(data.feature_names),
    scores=probabilities(X_train)[:, 0],
)


@otel_ml.observe(model="tumour", version="1", baseline=baseline)
def predict(X: np.ndarray) -> np.ndarray:
    return probabilities(X)


def main() -> None:
    otel_ml.configure(service_name="tumour-api")
    predict(X_serve[:1])
    predict(X_serve[1:])


if __name__ == "__main__":
    main()
