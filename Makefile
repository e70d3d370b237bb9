# Every target first runs scripts/setup.sh, which installs what is missing and is instant when nothing is.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
WRENN_DIR ?= /var/lib/wrenn
export WRENN_DIR

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench chaos soak image build build-cp build-agent build-envd dev dev-agent dev-envd migrate-up generate format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the Debian and npm packages that are missing
	@scripts/setup.sh

demo: setup ## Set everything up, run untrusted code in a microVM, pause, resume and fork it
	@node scripts/demo.ts

test: ## Type check, lint, and every test, those with real microVMs too
	@scripts/setup.sh --for-tests
	@node scripts/test.ts

check: setup ## Type check, lint, dead code and unit tests
	@node scripts/test.ts --fast

bench: setup ## Measure, print a table, write bench/results/latest.json
	@node bench/main.ts

chaos: setup ## Kill 110 processes of a working platform at random and look at what is lost (CHAOS_SEED, CHAOS_KILLS)
	@node tests/chaos/main.ts

soak: setup ## Create and destroy 1,000 capsules of the warm pool and look at what leaks (SOAK_ROUNDS)
	@node tests/chaos/soak-main.ts

image: setup ## Build the guest kernel, initramfs and the minimal template
	@node libs/guest-image/src/main.ts build

build: setup ## Build the executables wrenn-cp, wrenn-agent and envd into builds/
	@node scripts/build.ts wrenn-cp wrenn-agent envd

build-cp: setup ## Build builds/wrenn-cp
	@node scripts/build.ts wrenn-cp

build-agent: setup ## Build builds/wrenn-agent
	@node scripts/build.ts wrenn-agent

build-envd: setup ## Build builds/envd
	@node scripts/build.ts envd

dev: setup ## Run the platform on this machine until Ctrl-C
	@apps/cli/bin/wrenn up

dev-agent: setup ## Run the host agent alone
	@node apps/host-agent/src/main.ts

dev-envd: setup ## Run the guest agent alone, without a VM
	@node apps/envd/src/main.ts

migrate-up: setup ## Bring the database to the newest schema
	@node apps/control-plane/src/migrate.ts

generate: setup ## Generate code from the .proto files, docs/errors.md and docs/openapi.json
	@buf generate
	@node scripts/errors-document.ts
	@node scripts/openapi-document.ts

format: setup ## Format and fix what can be fixed
	@biome check --write .

clean: ## Remove what builds made in this folder
	rm -rf builds .cache
