# Everything sets itself up: a virtual environment, and in it kshot with what the target needs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(RUN)/$(PIP)
METAWORLD := .venv-metaworld

.PHONY: demo test test-metaworld check format clean

demo: $(VENV)/.demo ## learn to read new characters in about a minute, and write runs/demo/report.html
	$(RUN)/kshot demo

test: check ## lint, types, and every test
	$(RUN)/pytest -n auto

test-metaworld: $(METAWORLD)/.test ## Meta-World in an environment of its own, for the MuJoCo that it pins
	$(METAWORLD)/bin/pytest tests/rl/test_meta_world.py

check: $(VENV)/.test
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

format: $(VENV)/.test
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

clean:
	rm -rf $(VENV) $(METAWORLD)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its pinned version, so that pip takes the build without CUDA where there is one.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch -e '.[report]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch -e '.[dev]'
	touch $@

$(METAWORLD)/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(METAWORLD)
	$(METAWORLD)/bin/$(PIP) torch -e '.[metaworld]' 'pytest>=8' 'beartype>=0.18'
	touch $@
