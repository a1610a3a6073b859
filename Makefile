# Two commands do all the set-up: `make demo` and `make test`. Both build .venv from pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
# The benchmarks use the examples' toys and weights.
export PYTHONPATH = examples

.PHONY: demo test coverage oldest fuzz mutation package reliability check docs format bench comparison bench-pictures study figures clean

demo: $(VENV)/.demo
	$(RUN) examples/shortcut_demo.py $(DEMO_ARGS)

# In two processes, of one thread each, see tests/conftest.py.
test: $(VENV)/.test
	$(RUN) -m pytest -n 2 --dist worksteal $(TEST_ARGS)

# The properties of tests/test_properties.py on many more inputs, other ones each time; about 10 minutes.
fuzz: $(VENV)/.test
	$(RUN) -m pytest tests/test_properties.py --hypothesis-profile=fuzz --hypothesis-show-statistics $(TEST_ARGS)

# Whether the tests notice small changes of the pure modules; about an hour. MUTATION_ARGS="metrics" tries one of them.
mutation: $(VENV)/.mutation
	$(RUN) benchmarks/mutation.py $(if $(MUTATION_ARGS),$(MUTATION_ARGS),--write docs/mutation.md)

# The wheel and the source distribution, as they would be uploaded; the README's code runs on the wheel alone.
package: $(VENV)/.package
	rm -rf dist build/wheel
	$(RUN) -m build
	$(RUN) -m twine check --strict dist/*
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && PYTHONPATH= wheel/bin/python ../tests/readme.py

# The lines and branches that no test runs; about 15 minutes.
coverage: $(VENV)/.test
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest -n 2 --dist worksteal $(TEST_ARGS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

# The tests with the oldest versions that pyproject.toml admits, in an environment of their own; about 12 minutes. These
# warn of each other's newer versions.
oldest: $(VENV)/.test
	mkdir -p build
	$(RUN) tests/oldest.py > build/oldest.txt
	test -x build/oldest/bin/python || $(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c build/oldest.txt -e '.[test]'
	build/oldest/bin/python -m pytest -n 2 --dist worksteal -W ignore::DeprecationWarning -W ignore::FutureWarning $(TEST_ARGS)

# What is left by processes that are killed, and what a long training holds; about 15 minutes.
reliability: $(VENV)/.test
	$(RUN) benchmarks/reliability.py kill --tries 60 --write docs/reliability.md
	$(RUN) benchmarks/reliability.py leak --epochs 500 --write docs/reliability.md

# Style, types, the order of imports between the files, and the docs. What pre-commit runs, too.
check: $(VENV)/.test docs
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest --quiet --durations=0 --durations-min=60 tests/test_structure.py

# The site, into build/site; a link, an anchor or a name that leads nowhere is an error. The variable hushes an
# announcement of the theme's.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --clean

format: $(VENV)/.test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# The pictures of the README and of docs/, from the runs that `make demo` leaves and from photographs that come with scikit-image.
figures: $(VENV)/.demo
	$(RUN) examples/readme_figures.py

# The engine beside torch-cam, pytorch-grad-cam and captum; about 20 minutes. Nothing else should run meanwhile.
bench: $(VENV)/.bench
	$(RUN) benchmarks/engine.py

# What the peers do, found out by running them; about a minute.
comparison: $(VENV)/.bench
	$(RUN) benchmarks/comparison.py --write docs/comparison.md

# What the pictures cost, in time and in bytes; about two minutes.
bench-pictures: $(VENV)/.bench
	$(RUN) benchmarks/pictures.py

# How often the verdict is right, on 72 networks; about two hours, in parts that go on where they were stopped.
study: $(VENV)/.bench
	$(RUN) benchmarks/study.py all

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench $(VENV)/.docs $(VENV)/.mutation $(VENV)/.package: $(VENV)/.%: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs build/site
