# The same few commands for people and for CI. Each does its own set-up, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := .venvs/floor
LIBRARIES := .venvs/libraries
LIBRARIES_FLOOR := .venvs/libraries-floor
STAMP := $(VENV)/.installed

.PHONY: setup demo test floor libraries libraries-floor check bench bench-peers calibration fuzz interop soak build clean

setup: $(STAMP) ## make .venv with everything that tests, checks and the demo need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "otel-ml needs Python 3.10 or newer; $$($(PYTHON) --version) was found. Try: make PYTHON=python3.12 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing otel-ml and its development tools into $(VENV) (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,prometheus,parquet]' --group test --group check --group build
	@touch $@

demo: $(STAMP) ## train a model, serve it, drift it, watch it: under a minute, nothing else needed
	@$(BIN)/otel-ml demo

test: $(STAMP) ## the whole test suite
	@$(BIN)/python -m pytest -n 2

floor: $(FLOOR)/.installed ## the oldest supported OpenTelemetry SDK and scikit-learn, with a distro, mlflow and logfire beside them
	@$(FLOOR)/bin/python -m pytest -n 2 tests/sdk tests/integration/test_zero_code.py tests/integration/test_end_to_end.py \
	  tests/integration/test_beside*.py tests/integration/test_processes.py tests/integration/test_gunicorn.py

$(FLOOR)/.installed: pyproject.toml
	@test -x $(FLOOR)/bin/python || $(PYTHON) -m venv $(FLOOR)
	@$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[demo,prometheus]' --group test \
	  'opentelemetry-sdk==1.39.*' 'opentelemetry-distro[otlp]' 'logfire>=5' \
	  'scikit-learn==1.5.*' 'numpy==2.1.*' 'scipy==1.14.*' 'pandas==2.2.*' 'joblib<1.5' 'mlflow-skinny==3.17.*'
	@touch $@

libraries: $(LIBRARIES)/.installed ## XGBoost, LightGBM, CatBoost, ONNX Runtime and MLflow, the newest of each
	@$(LIBRARIES)/bin/python -m pytest -n 2 tests/libraries

# xgboost-cpu is xgboost without 300 MB for GPUs
$(LIBRARIES)/.installed: pyproject.toml
	@test -x $(LIBRARIES)/bin/python || $(PYTHON) -m venv $(LIBRARIES)
	@$(LIBRARIES)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(LIBRARIES)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e '.[demo,prometheus]' \
	  --group test xgboost-cpu lightgbm catboost onnxruntime onnx skl2onnx mlflow-skinny
	@touch $@

libraries-floor: $(LIBRARIES_FLOOR)/.installed ## the oldest supported ones, with the oldest scikit-learn and NumPy
	@$(LIBRARIES_FLOOR)/bin/python -m pytest -n 2 -W 'ignore:numpy.ufunc size changed:RuntimeWarning' tests/libraries

$(LIBRARIES_FLOOR)/.installed: pyproject.toml
	@test -x $(LIBRARIES_FLOOR)/bin/python || $(PYTHON) -m venv $(LIBRARIES_FLOOR)
	@$(LIBRARIES_FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(LIBRARIES_FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[demo,prometheus]' --group test \
	  'opentelemetry-sdk==1.39.*' 'scikit-learn==1.5.*' 'numpy==1.26.*' 'scipy==1.14.*' 'pandas==2.2.*' 'joblib<1.5' \
	  'xgboost-cpu==2.1.1' 'lightgbm==4.3.*' 'catboost==1.2.5' 'onnxruntime==1.19.*' \
	  'onnx==1.17.*' 'skl2onnx==1.17.*' 'mlflow-skinny==2.16.*'
	@touch $@

check: $(STAMP) ## format, lint, types, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python dashboards/generate.py --check
	@$(BIN)/python docs/generate.py --check

bench: $(STAMP) ## what a call costs, and a point and a window in the collector, as ratios of one run; what a collector takes in
	@missed=0; for part in hot_path engine throughput; do $(BIN)/python -m benchmarks.$$part || missed=1; done; exit $$missed

bench-peers: $(STAMP) ## beside peers: the same rows through whylogs, import time and size, PSI and KS of the same features
	@$(BIN)/python -m benchmarks.peers

calibration: $(STAMP) ## false alarms, power and waiting times of the drift verdict; EFFORT=--quick for a glance
	@$(BIN)/python -m benchmarks.calibration $(EFFORT)

MINUTES ?= 3
fuzz: $(STAMP) ## every decoder under atheris for MINUTES=3 each; TARGETS="decode json" for some of them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	@cd tests && for target in $(or $(TARGETS),decode remembered checkpoint journal json items compressed baseline config); do \
	  ../$(BIN)/python -m fuzz $$target --minutes $(MINUTES) || exit 1; done

interop: $(STAMP) ## with programs we did not write, built from Go modules once (minutes); needs Go
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group interop
	@cd tests && ../$(BIN)/python -m interop.build core full && ../$(BIN)/python -m interop.programs
	@INTEROP=all $(BIN)/python -m pytest -s tests/interop

soak: $(STAMP) ## outages and kills of the collector, for as long as they last: half an hour
	@$(BIN)/python -m pytest -s tests/soak

build: $(STAMP) ## wheel and source distribution in dist/
	@rm -rf dist
	@$(BIN)/python -m build --quiet
	@ls dist

clean:
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
