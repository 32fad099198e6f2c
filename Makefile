# The daily work. `make help` lists it.

.PHONY: help run build test check stress bench fmt record golden clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: ## install what is missing, build, start everything in the foreground; Ctrl-C ends it
	@exec Scripts/run

build: ## release build
	swift build -c release

test: ## everything: check, then end to end through nginx with curl and the official SDKs
	@exec Scripts/test

check: ## the gate before a commit: format, module dependencies, warnings, unit tests
	swift format lint --strict --recursive Sources Tests Benchmarks Package.swift
	CLAUDE_FCGI_CHECK=1 swift test --explicit-target-dependency-import-check error

stress: ## the admission gate under random death, for minutes (ARGS="seconds seed")
	swift build -c release --product AdmissionStress
	.build/release/AdmissionStress $(or $(ARGS),180)

bench: ## the service against the CLI by hand and a peer: ratios (ARGS="--only peer --json FILE"); then what a delta and a place at the gate cost
	swift build -c release
	PYTHONPATH=Benchmarks CLAUDE_PATH=$$(Scripts/claude-cli) CLAUDE_FCGI_BIN=$$PWD/.build/release .venv/bin/python -m bench $(ARGS)
	.build/release/HotPathBenchmark
	.build/release/AdmissionBenchmark

fmt: ## format the Swift sources in place
	swift format --in-place --recursive Sources Tests Benchmarks Package.swift

record: ## record a transcript from the real CLI (ARGS="case …")
	@exec Scripts/record $(ARGS)

clean: ## what was built and run; keeps .env, the venv and the CLI
	rm -rf .build .run

golden: ## write the expected replies of the transcripts anew; read the diff before committing it
	GOLDEN=1 swift test --filter TranscriptTests
