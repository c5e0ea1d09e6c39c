"""A Torch network behind one decorator: tensors in, tensors out, the class probabilities as its scores.

Not run by the project's CI, for Torch is large:

    pip install otel-ml scikit-learn torch

Run it:

    python examples/torch_model.py

It prints a line for each call and, at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set,
all that goes to the endpoint instead.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import otel_ml

data = load_digits()
X_train, X_serve, y_train, _ = train_test_split(
    torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target), test_size=0.1, random_state=0
)

torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(200):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(X_train), y_train).backward()
    optimizer.step()
network.eval()


def probabilities(X: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(X).softmax(dim=1)  # the logits are no probabilities yet


baseline = otel_ml.Baseline.fit(
    X_train.numpy(), model="digits", version="1", features=data.feature_names,
    scores=probabilities(X_train).amax(dim=1).numpy(),
)  # fmt: skip


@otel_ml.observe(model="digits", version="1", baseline=baseline)
def predict(X: torch.Tensor) -> torch.Tensor:
    return probabilities(X)


def main() -> None:
    otel_ml.configure(service_name="digits-api")
    predict(X_serve[:1])
    predict(X_serve[1:])


if __name__ == "__main__":
    main()
