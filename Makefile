# `make run` and `make test` are all that most people need.

CARGO ?= cargo
FUZZ_SECONDS ?= 10
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test deps check lint unit doc deny fuzz bench soak docs clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: ## Build, and run the relay in front of the sandbox platform
	$(CARGO) run --quiet --bin aiproxy -- demo

test: deps check fuzz ## Install what the tests need, then run everything

check: lint unit doc deny

deps: ## Install what the tests need (apt, pip in .venv, npm)
	./scripts/test-deps.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	cd fuzz && $(CARGO) fmt --check
	cd fuzz && $(CARGO) clippy --release --locked --target-dir target -- -D warnings

unit:
	$(CARGO) nextest run --workspace --locked --no-fail-fast

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked --quiet

deny:
	cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	cargo-deny --manifest-path fuzz/Cargo.toml --config deny.toml --locked check --hide-inclusion-graph sources

fuzz: ## The parsers under libFuzzer, FUZZ_SECONDS (10) each; FUZZ='strip request' for some
	CARGO='$(CARGO)' FUZZ_SECONDS='$(FUZZ_SECONDS)' ./scripts/fuzz.sh $(FUZZ)

docs: ## Write the generated pages anew (docs/config.md)
	UPDATE_DOCS=1 $(CARGO) nextest run -p aiproxy-config reference

bench: ## Compare CPU per request within one run; needs an idle machine
	$(CARGO) bench -p aiproxy --bench relay --bench sockets --bench reload --bench quic --bench loss --bench control

soak: ## The long forms of tests that load the relay (minutes)
	AIPROXY_SOAK=1 $(CARGO) nextest run -p aiproxy --locked --success-output final reload::under_load doors::soak sockets::stopped sockets::many calls::many control::import::killed openapi::the_document

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf fuzz/target .venv tests/peers/node/node_modules
