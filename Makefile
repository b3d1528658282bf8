# Needs Python 3.11.5 or newer, make and a package index; everything else is set up here.

# The Python that is set up, and where: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

KUBECTL ?= kubectl
# Which of manifests/overlays is deployed.
OVERLAY ?= daemonset

# The one place of the version.
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' $(dir $(lastword $(MAKEFILE_LIST)))kmproxy/__init__.py)
# The image that is built and deployed.
IMG     ?= kmproxy:$(if $(filter development,$(OVERLAY)),dev,$(VERSION))

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Before 3.11.5 Python's `re` reads possessive quantifiers wrongly: labels on the wrong samples.
define CHECK_PYTHON
again="Name another one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.13"; \
command -v $(PYTHON) >/dev/null || { \
  echo "There is no $(PYTHON), and kmproxy needs Python 3.11.5 or newer. $$again" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { \
  echo "$$(command -v $(PYTHON)) is $$($(PYTHON) --version 2>&1), and kmproxy needs 3.11.5 or newer:" >&2; \
  echo "older ones have a fault in re (cpython gh-106052) that puts labels on the wrong samples." >&2; \
  echo "$$again" >&2; exit 1; }
endef

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The locked packages, then the project itself; anew when a lock changes, as what is no longer
# locked is to go, and another Python may be wanted.
$(BIN)/kmproxy: requirements.lock requirements-demo.lock pyproject.toml
	@$(CHECK_PYTHON)
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): the packages of requirements.lock ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock -r requirements-demo.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/dev: $(BIN)/kmproxy requirements-dev.lock
	@echo "Adding to $(VENV) the packages of requirements-dev.lock ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: dev
dev: $(VENV)/dev ## set up the environment of tests and tools

.PHONY: run
run: $(BIN)/kmproxy ## start the demo: a simulated cluster with the daemon in front
	$(BIN)/kmproxy demo $(ARGS)

.PHONY: bench
bench: $(BIN)/kmproxy ## measure the engine, the daemon and nginx, side by side
	@command -v go >/dev/null && $(MAKE) --no-print-directory $(CLUSTER_TOOLS)/expfmt \
	  || echo "without Go, the way of kubelet-meta-proxy is not measured" >&2
	PATH=$(CLUSTER_TOOLS):$$PATH $(BIN)/kmproxy bench --daemon $(ARGS)

# Empty for the tests alone, which take two thirds of the time.
COVERAGE = --cov --cov-report=term
# How many test files run at once: as many as there are processors. Empty for one process.
JOBS     = $(if $(ARGS),,auto)

.PHONY: test
test: $(VENV)/dev ## run all tests, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/pytest $(if $(JOBS),--numprocesses=$(JOBS) --dist=loadfile) --durations=15 $(COVERAGE) $(ARGS)

.PHONY: e2e
e2e: $(VENV)/dev $(if $(shell command -v go),cluster-tools) ## the proof with the real API server, Prometheus and Alertmanager
	$(BIN)/pytest -m "e2e or cluster" $(ARGS)

# Where the programs of tests/cluster are kept: outside the work tree, as they take minutes to build.
CLUSTER_TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kmproxy/cluster-tools
CLUSTER_GO    := tests/cluster/go.mod tests/cluster/go.sum
K8S_VERSION   := $(shell awk '$$1 == "k8s.io/kubernetes" {print $$2; exit}' tests/cluster/go.mod)

.PHONY: cluster-tools
cluster-tools: engine-tools $(addprefix $(CLUSTER_TOOLS)/,etcd kube-apiserver promtool prometheus victoria-logs) ## build a real API server, etcd, Prometheus and VictoriaLogs for the tests (needs Go)

.PHONY: engine-tools
engine-tools: $(CLUSTER_TOOLS)/textparse $(CLUSTER_TOOLS)/expfmt ## build two programs with Prometheus' own parsers, for the tests and the bench (needs Go)

GO_BUILD = @echo "building $(@F): up to some minutes the first time" && mkdir -p $(CLUSTER_TOOLS) \
  && cd tests/cluster && go build -trimpath -buildvcs=false

$(CLUSTER_TOOLS)/etcd: $(CLUSTER_GO)
	$(GO_BUILD) -ldflags '-s -w' -o $@ go.etcd.io/etcd/server/v3

$(CLUSTER_TOOLS)/kube-apiserver: $(CLUSTER_GO)
	$(GO_BUILD) -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=$(K8S_VERSION)' \
	  -o $@ k8s.io/kubernetes/cmd/kube-apiserver

$(CLUSTER_TOOLS)/promtool $(CLUSTER_TOOLS)/prometheus: $(CLUSTER_GO)
	$(GO_BUILD) -ldflags '-s -w' -o $@ github.com/prometheus/prometheus/cmd/$(@F)

$(CLUSTER_TOOLS)/textparse $(CLUSTER_TOOLS)/expfmt: $(CLUSTER_TOOLS)/%: tests/cluster/%/main.go $(CLUSTER_GO)
	$(GO_BUILD) -ldflags '-s -w' -o $@ ./$(@F)

$(CLUSTER_TOOLS)/victoria-logs: tests/victorialogs/go.mod tests/victorialogs/go.sum
	@echo "building $(@F): a minute the first time" && mkdir -p $(CLUSTER_TOOLS) \
	  && cd tests/victorialogs && go build -trimpath -buildvcs=false -ldflags '-s -w' \
	  -o $@ github.com/VictoriaMetrics/VictoriaLogs/app/$(@F)

.PHONY: helm-tool
helm-tool: $(CLUSTER_TOOLS)/helm ## build the program of Helm 3 for the tests of the chart (needs Go)

$(CLUSTER_TOOLS)/helm: tests/helm/go.mod tests/helm/go.sum
	@echo "building $(@F): some minutes the first time" && mkdir -p $(CLUSTER_TOOLS) \
	  && cd tests/helm && go build -trimpath -buildvcs=false -ldflags '-s -w' \
	  -o $@ helm.sh/helm/v3/cmd/$(@F)

.PHONY: engine
engine: $(BIN)/kmproxy ## build the compiled engine, and install it into .venv (needs Rust)
	@command -v cargo >/dev/null || { \
	  echo "There is no cargo. The compiled engine needs Rust 1.88 or newer: https://rustup.rs" >&2; \
	  echo "Without it kmproxy uses the pure engine, which does the same more slowly." >&2; exit 1; }
	@$(INSTALL) --require-hashes -r requirements-engine.lock
	@rm -rf dist/engine
	$(BIN)/maturin build --quiet --release --locked --manifest-path engine/Cargo.toml \
	  --interpreter $(BIN)/python --out dist/engine
	@$(INSTALL) --no-deps --force-reinstall dist/engine/*.whl
	@$(BIN)/kmproxy --version

.PHONY: fuzz
fuzz: $(VENV)/fuzz ## search for what the engines read wrongly, for SECONDS; with TARGET=pipeline, with all options
	mkdir -p .fuzz/$(TARGET)
	$(BIN)/python -m tests.fuzz.fuzz_$(TARGET) -max_total_time=$(SECONDS) -print_final_stats=1 \
	  -dict=tests/fuzz/exposition.dict -artifact_prefix=tests/fuzz/corpus/ \
	  .fuzz/$(TARGET) tests/fuzz/corpus

TARGET ?= exposition

.PHONY: fuzz-engine
fuzz-engine: ## search for bytes at which the compiled engine fails, for SECONDS (needs cargo-fuzz and a nightly Rust)
	cd engine && cargo +nightly fuzz run --sanitizer none lines -- \
	  -max_total_time=$(SECONDS) -print_final_stats=1 -dict=../tests/fuzz/exposition.dict

SECONDS ?= 60

.PHONY: load
load: $(VENV)/dev ## scrape 500 simulated nodes, and change 10,000 namespaces
	$(BIN)/python -m tests.support.load $(ARGS)

.PHONY: pair
pair: $(VENV)/dev ## scrape simulated nodes by two scrapers, with --share-reads and without
	$(BIN)/python -m tests.support.pair $(ARGS)

.PHONY: status-cost
status-cost: $(VENV)/dev ## measure what the status page costs the event loop
	$(BIN)/python -m tests.support.status_cost $(ARGS)

.PHONY: screenshots
screenshots: $(VENV)/dev ## make the pictures of docs/images anew (needs Chromium)
	$(BIN)/python -m tests.support.screenshots

.PHONY: soak
soak: $(VENV)/dev ## break a simulated cluster at random for SECONDS, and check every answer; with MODE=logs every log line
	$(BIN)/python -m tests.support.soak$(if $(filter logs,$(MODE)),_logs) --seconds $(SECONDS) $(ARGS)

$(VENV)/fuzz: $(VENV)/dev requirements-fuzz.lock
	@echo "Adding to $(VENV) the packages of requirements-fuzz.lock ..."
	@$(INSTALL) --require-hashes -r requirements-fuzz.lock
	@touch $@

.PHONY: lint
lint: $(VENV)/dev ## check style, types and the Dockerfile
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# actionlint reads the scripts too where shellcheck is there.
.PHONY: lint-workflows
lint-workflows: $(VENV)/dev $(if $(shell command -v go),$(CLUSTER_TOOLS)/actionlint) ## check the workflows of .github (actionlint needs Go)
	$(BIN)/zizmor --offline --persona=pedantic --quiet .github
	$(if $(shell command -v go),$(CLUSTER_TOOLS)/actionlint,@echo "no Go: actionlint is left out")

$(CLUSTER_TOOLS)/actionlint: tests/workflows/go.mod tests/workflows/go.sum
	@mkdir -p $(CLUSTER_TOOLS) && cd tests/workflows && go build -trimpath -buildvcs=false \
	  -ldflags '-s -w' -o $@ github.com/rhysd/actionlint/cmd/actionlint

# What the tests use if it is there, and what is no Python package. kubectl and Go come from elsewhere.
.PHONY: test-programs
test-programs: ## install programs that tests use, on Debian and Ubuntu (as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	  curl fish groff-base nginx-light prometheus-alertmanager zsh

.PHONY: check-demo
check-demo: ## start the demo from a bare checkout, move a namespace, and look
	.ci/demo

.PHONY: format
format: $(VENV)/dev ## put the code in its form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: lock
lock: ## choose the newest packages anew and lock them (needs uv)
	$(COMPILE) --upgrade pyproject.toml --output-file requirements.lock
	$(COMPILE) --upgrade --constraint requirements.lock --group demo \
	  --output-file requirements-demo.lock
	$(COMPILE) --upgrade --constraint requirements.lock --group dev pyproject.toml \
	  --output-file requirements-dev.lock
	$(COMPILE) --upgrade --constraint requirements-dev.lock --group build \
	  --output-file requirements-build.lock
	$(COMPILE) --upgrade --group engine --output-file requirements-engine.lock
	$(COMPILE) --upgrade --group fuzz --output-file requirements-fuzz.lock

COMPILE = uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes \
  --no-strip-extras --no-emit-index-url --custom-compile-command "make lock"

# Debian 12's pip, the oldest that is supported. It does not run on Python 3.12 and newer: there
# the oldest is the one that Python itself brings.
OLDEST_PIP := 23.0.1

.PHONY: check-locks
check-locks: ## try to install each lock, with the oldest pip that is supported and with the newest
	@$(CHECK_PYTHON)
	@oldest=$$($(PYTHON) -c 'import sys; print("pip==$(OLDEST_PIP)" * (sys.version_info < (3, 12)))'); \
	for pip in "$$oldest" pip; do \
	  $(PYTHON) -m venv --clear .venv-locks || exit; \
	  pip() { .venv-locks/bin/python -m pip --disable-pip-version-check "$$@"; }; \
	  [ -z "$$pip" ] || pip install --quiet --upgrade "$$pip" || exit; \
	  for lock in requirements*.lock; do \
	    pip install --quiet --dry-run --require-hashes -r "$$lock" || exit; \
	    echo "$$lock can be installed with pip $$(pip --version | cut -d ' ' -f 2)"; \
	  done; \
	done
	@rm -rf .venv-locks

# What the image says that it was built from: the commit, and whether something is changed since.
REVISION ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
# The commit's time, not the build's: the same source has the same labels.
CREATED  ?= $(shell git log -1 --format=%cI 2>/dev/null)
BUILD_ARGS = --build-arg REVISION=$(REVISION) --build-arg VERSION=$(VERSION) --build-arg CREATED=$(CREATED)

.PHONY: wheels
wheels: $(VENV)/dev ## build the wheels of kmproxy and kmproxy-demo, and the source distribution, into dist/
	printf '%s\n' '$(REVISION)' >kmproxy/REVISION
	rm -f dist/kmproxy*.whl dist/kmproxy-*.tar.gz
	$(BIN)/python -m hatchling build -d $(CURDIR)/dist && \
	(cd demo && ../$(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/dist); \
	status=$$?; rm -f kmproxy/REVISION; exit $$status

.PHONY: docker-build
docker-build: ## build the image IMG
	docker build $(BUILD_ARGS) --tag $(IMG) .

.PHONY: image-base
image-base: ## pin the newest of the Dockerfile's base images by their digests (needs docker buildx)
	for name in BASE RUST; do \
	  base=$$(sed -n "s/^ARG $$name=\([^@]*\).*/\1/p" Dockerfile) && \
	  digest=$$(docker buildx imagetools inspect "$$base" --format '{{.Manifest.Digest}}') && \
	  expr "$$digest" : 'sha256:[0-9a-f]\{64\}$$' >/dev/null && \
	  sed -i "s/^ARG $$name=.*/ARG $$name=$$base@$$digest/" Dockerfile || exit; \
	done

.PHONY: docker-push
docker-push: ## push the image IMG
	docker push $(IMG)

.PHONY: image-push
image-push: ## build IMG for amd64 and arm64 with its SBOM and provenance, and push it (needs buildx)
	mkdir -p dist
	docker buildx build $(BUILD_ARGS) --platform linux/amd64,linux/arm64 --sbom=true \
	  --provenance=mode=max --metadata-file dist/image.json --push --tag $(IMG) .

.PHONY: image-digest
image-digest: ## print the digest of the image that was pushed
	@sed -n 's/^ *"containerimage.digest": *"\(sha256:[0-9a-f]*\)".*/\1/p' dist/image.json | grep .

.PHONY: image-sign
image-sign: ## sign the image that was pushed, by its digest and without a key (needs cosign)
	name='$(IMG)' && digest=$$($(MAKE) -s image-digest) && cosign sign --yes "$${name%:*}@$$digest"

.PHONY: man
man: $(VENV)/dev ## write the man page into dist/
	mkdir -p dist
	$(BIN)/python -m tests.support.man_page dist/kmproxy.1

# Where docs/runbooks.md can be read: what alerts lead to.
RUNBOOKS ?= https://kmproxy.example.com/docs/runbooks.md

.PHONY: manifests
manifests: ## write the PrometheusRules from the rules, whose runbooks are at RUNBOOKS
	for each in teams kmproxy kube-state-metrics workloads logs; do \
	  sed -i 's|runbook_url: [^#]*#|runbook_url: $(RUNBOOKS)#|' \
	    manifests/components/rules/$$each.rules.yaml; \
	  { echo "# Written by make manifests from the component rules: change it there."; \
	    echo "apiVersion: monitoring.coreos.com/v1"; \
	    echo "kind: PrometheusRule"; \
	    echo "metadata:"; \
	    echo "  name: kmproxy-$$each"; \
	    echo "  namespace: kmproxy-system"; \
	    echo "  labels:"; \
	    echo "    app.kubernetes.io/name: kmproxy"; \
	    echo "spec:"; \
	    sed -e '/^#/d' -e 's/^./  &/' manifests/components/rules/$$each.rules.yaml; \
	  } >manifests/components/prometheusrule/$$each.yaml; \
	done

.PHONY: chart-documents
chart-documents: $(VENV)/dev ## write the chart's README table and schema from its values and the settings
	$(BIN)/python -m tests.support.chart_documents

.PHONY: chart
chart: $(VENV)/dev ## package the Helm chart into dist/
	mkdir -p dist
	$(BIN)/python -c 'import helm_python; print(helm_python.package("manifests/chart", destination="dist"))'

# The registry, with the path, that the chart is pushed to.
CHARTS ?= registry.example.com/charts

.PHONY: chart-push
chart-push: ## push the packaged chart to CHARTS, and sign it without a key (needs helm and cosign)
	helm push dist/kmproxy-$(VERSION).tgz oci://$(CHARTS) 2>&1 | tee dist/chart-push.txt
	digest=$$(sed -n 's/^Digest: *\(sha256:[0-9a-f]*\)$$/\1/p' dist/chart-push.txt | grep .) && \
	cosign sign --yes $(CHARTS)/kmproxy@$$digest

# The version that `make version` writes: make version NEW=0.2.0
NEW ?=
# The tag that is released, if there is one.
TAG ?=

.PHONY: release-notes
release-notes: $(VENV)/dev ## write the changelog of this version to dist/notes.md
	mkdir -p dist
	$(BIN)/python -m tests.support.release notes >dist/notes.md

.PHONY: news
news: $(VENV)/dev ## print what the fragments of changelog.d will add to the changelog
	@$(BIN)/python -m tests.support.release news

.PHONY: version
version: $(VENV)/dev ## write the version NEW wherever it stands, and the fragments into the changelog
	$(BIN)/python -m tests.support.release write --version='$(NEW)'
	$(BIN)/python -m tests.support.chart_documents

.PHONY: release
release: $(VENV)/dev ## check that version, chart, image tags and changelog agree, before a tag is pushed
	@$(BIN)/python -m tests.support.release check --tag='$(TAG)'
	@[ -n '$(TAG)' ] || echo "Now: git tag -a v$(VERSION) -m 'kmproxy $(VERSION)' && git push origin v$(VERSION)"

.PHONY: build-installer
build-installer: ## write OVERLAY with the image IMG to dist/install.yaml
	mkdir -p dist
	$(KUBECTL) kustomize manifests/overlays/$(OVERLAY) >dist/overlay.yaml
	sed 's|image: kmproxy:[^ ]*$$|image: $(IMG)|' dist/overlay.yaml >dist/install.yaml
	rm dist/overlay.yaml

.PHONY: deploy
deploy: build-installer ## put OVERLAY with the image IMG into the cluster
	@there=$$($(KUBECTL) get clusterroles --selector=app.kubernetes.io/name=kmproxy --output=name) || exit; \
	mine=$$(sed -n 's/^  name: kmproxy-kubelets-//p' dist/install.yaml | head -n 1); \
	other=$$(echo "$$there" | sed -n 's|.*/kmproxy-kubelets-||p' | grep -vx "$$mine" | head -n 1); \
	[ -z "$$other" ] || { \
	  echo "The overlay $$other is in this cluster: both would run, with the rights of both." >&2; \
	  echo "Take it out first: make undeploy OVERLAY=$$other" >&2; exit 1; }
	$(KUBECTL) apply -f dist/install.yaml

.PHONY: undeploy
undeploy: build-installer ## take OVERLAY out of the cluster
	$(KUBECTL) delete --ignore-not-found -f dist/install.yaml

.PHONY: clean
clean: ## remove what was set up and built
	rm -rf $(VENV) .venv-* .fuzz dist build engine/target .pytest_cache .mypy_cache .ruff_cache .coverage*
