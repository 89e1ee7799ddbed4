# Every target makes the environment that it needs from a bare Python, once:
# a stamp in .venv remembers it until pyproject.toml changes.
.POSIX:
.SUFFIXES:
.PHONY: help demo test check bench matrix backends docs format clean

VENV = .venv
PY = $(VENV)/bin/python
# make test ARGS="-k sampler -x"
ARGS =
# What is fetched and built before tests, unless it is there: of all such servers, the one that takes
# a minute. make test SERVERS= fetches none.
SERVERS = ferretdb
FETCH_SERVERS = [ -z "$(SERVERS)" ] || sh .ci/backends $(PY) $(SERVERS)

help:
	@echo "make demo      start five services, send requests, show where the time went"
	@echo "make test      run the tests                      (ARGS=\"-k word -x\" goes to pytest)"
	@echo "make check     lint, format, types, architecture"
	@echo "make bench     measure against opentelemetry-sdk  (ARGS goes to the benchmarks)"
	@echo "make matrix    test the oldest and the newest version of each library"
	@echo "make backends  fetch and run Jaeger, Zipkin, Datadog's test agent and a Collector"
	@echo "make docs      build the documentation into site/"
	@echo "make format    rewrite the sources in the house format"
	@echo "make clean     remove what the other targets made, $(VENV) too"

demo: $(VENV)/.installed-demo
	@$(PY) examples/slow_checkout/run.py $(ARGS)

test: $(VENV)/.installed-dev
	@sh .ci/system-packages
	@$(FETCH_SERVERS)
	@$(PY) -m pytest $(ARGS)

# The first finding stops nothing: every tool speaks, then the target fails.
check: $(VENV)/.installed-dev
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 sh .ci/check $(PY)

bench: $(VENV)/.installed-dev
	@$(FETCH_SERVERS)
	@$(PY) -m benchmarks $(ARGS)

# make matrix ARGS="redis grpc --side oldest"
matrix: $(VENV)/.installed-dev
	@sh .ci/system-packages
	@$(FETCH_SERVERS)
	@$(PY) tests/compat/matrix.py $(ARGS)

# make backends ARGS="zipkin jaeger"
backends: $(VENV)/.installed-dev
	@sh .ci/backends $(PY) $(ARGS)
	@PYTHONPATH=.:tests $(PY) -m backends.serve $(ARGS)

docs: $(VENV)/.installed-docs
	@$(PY) .ci/mkdocs_settings.py | $(PY) -m mkdocs build --quiet --strict --config-file -
	@echo "site/index.html"

format: $(VENV)/.installed-dev
	@$(PY) -m ruff check --quiet --fix . || true
	@$(PY) -m ruff format .

clean:
	rm -rf .venv .venv-* .backends build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-dev: pyproject.toml
	@sh .ci/bootstrap $(VENV) dev

$(VENV)/.installed-demo: pyproject.toml
	@sh .ci/bootstrap $(VENV) demo

$(VENV)/.installed-docs: pyproject.toml
	@sh .ci/bootstrap $(VENV) docs
