# `make` lists the commands. What they do is in scripts/; each first makes what it needs (scripts/setup).
.DEFAULT_GOAL := help
.PHONY: help demo up down status logs deadletters test check generate manifests breaking lock audit sbom clean setup
python := .venv/bin/python

help:
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: setup ## show a payment from sign-up to settlement, through the edge (starts what is needed)
	@$(python) -m scripts.demo

up: setup ## start the whole system on this machine: EDGE_PORT=8080 EDGE_TLS_PORT=8443 (0: any free port)
	@$(python) -m scripts.stack up

down: setup ## end it; the data stays
	@$(python) -m scripts.stack down

status: setup ## tell what runs
	@$(python) -m scripts.stack status

logs: setup ## print the logs, and follow them on a terminal
	@$(python) -m scripts.stack logs

deadletters: setup ## list the events that no consumer could handle; try them again: REPLAY=all, or ids
	@$(python) -m scripts.stack deadletters

test: setup ## run all tests, beside a running system; tests/compose where a Docker engine answers
	@scripts/test

check: setup ## lint, format, types, imports, contract, edge configuration, manifests, images, locks
	@scripts/check

generate: ## derive gen/ from the contract anew
	@scripts/setup --again

manifests: setup ## render the edge's configuration for Kubernetes anew, to be committed
	@$(python) -m scripts.edge_config

breaking: setup ## tell what breaks clients of another version: REF=main
	@scripts/breaking "$(or $(REF),main)"

lock: setup ## pin and hash what pyproject.toml asks for
	@scripts/lock

audit: setup ## tell which versions in the locks are known to be vulnerable (pip-audit; asks PyPI)
	@$(python) -m scripts.supply audit

sbom: setup ## write what the image runs on: build/sbom.cdx.json (CycloneDX)
	@$(python) -m scripts.supply sbom

clean: setup ## end the system and remove its data
	@$(python) -m scripts.stack clean

setup:
	@scripts/setup
