# make demo    installs the smallest set and runs the main job on the sample town
# make test    the unit tests            make check   lint, types, import rules, tests
# make slow    everything else           make bench   the figures in bench/results
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HERE := MACHIKOBA_HOME=$(CURDIR)/.machikoba

.PHONY: demo test check slow bench bases install clean
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml constraints.txt tools/install.py
	$(PYTHON) tools/install.py $(VENV) e5
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python tools/install.py $(VENV) e5,gguf,dev
	@touch $@

$(VENV)/.bases: $(VENV)/.dev
	$(BIN)/python tools/install.py $(VENV) --bases
	@touch $@

install: $(VENV)/.installed
bases: $(VENV)/.bases

demo: $(VENV)/.installed
	@rm -rf .machikoba/demo.bundle
	@$(HERE) $(BIN)/machikoba tune "sample/問い合わせ.xlsx" --none-label その他 --never-automatic 苦情・ご意見 \
	  --out .machikoba/demo.bundle

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > .lint-imports.log || (cat .lint-imports.log; exit 1)
	@rm -f .lint-imports.log
	$(MAKE) --no-print-directory test

slow: $(VENV)/.bases
	$(BIN)/python -m pytest -m "slow or integration" -o addopts="-q --strict-markers"

.peers/.installed: tools/install.py constraints.txt
	$(PYTHON) tools/install.py .peers --peers
	@touch $@

PEERS := $(wildcard $(or $(MACHIKOBA_PEERS),../shared/peers))

bench: $(VENV)/.bases $(if $(PEERS),.peers/.installed)
	$(BIN)/python tools/install.py $(VENV) e5,gguf,dev,bench
	$(BIN)/python bench/classify.py $(if $(PEERS),--peers .peers/bin/python)
	$(if $(PEERS),$(BIN)/python bench/tuner.py --peers .peers/bin/python)
	$(BIN)/python bench/estimates.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/reading.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/bases.py
	$(BIN)/python bench/sorting.py
	$(BIN)/python bench/serving.py
	$(BIN)/python bench/monitor.py
	$(BIN)/python bench/desk.py
	$(BIN)/python bench/demo.py
	$(BIN)/python bench/plots.py
	$(BIN)/python tools/readme.py

clean:
	rm -rf $(VENV) .machikoba build *.egg-info
