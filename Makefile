# Thin targets; everything is a cargo, Python or QEMU command that can be typed by hand.
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
CARGO ?= cargo
PYTHON ?= python3
APT ?= $(shell [ "$$(id -u)" = 0 ] && echo apt-get || echo sudo apt-get)

.PHONY: help demo build check test test-all msrv lint venv tools package oci firmware firmware-classify firmware-images firmware-test aarch64 aarch64-tried models method-runs method-table method-seeds bench bench-train bench-attack bench-engine bench-firmware bench-serve bench-camera bench-scale page-tools cuda mpi check-cuda clean

help: ## What there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

# MPI, which `train` shares its work by, is built in where Debian's Open MPI and libclang are, so that one build serves all tests.
MPI_PACKAGES = libopenmpi-dev openmpi-bin libclang-dev
has_mpi = command -v mpicc >/dev/null && command -v mpirun >/dev/null && ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1
with_mpi = case ",$$PARADISE_SKIP," in *,mpi,*) ;; *) $(has_mpi) && echo --features paradise-train/mpi;; esac
FEATURES = $(shell $(with_mpi))

demo: ## The main job: train, attack, quantise, export, self-test, classify, draw
	$(CARGO) run --release --bin train -- demo

build: ## Everything for this machine, tests included
	$(CARGO) build --release --workspace --all-targets $(FEATURES)

lint: ## Formatting, clippy and documentation without warnings, Raspberry Pi pins included (`build` compiles without them)
	$(CARGO) fmt --all --check
	cd firmware && $(CARGO) fmt --check
	$(CARGO) clippy --release --workspace --all-targets $(FEATURES) --features paradise-runtime/gpio-rppal -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --release --workspace --no-deps $(FEATURES)

venv: .venv/.ready .venv-clients/.ready ## Python with onnx and onnxruntime, the outside referee; clients of the service

.venv/.ready: tests/golden/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --requirement tests/golden/requirements.txt
	touch $@

.venv-clients/.ready: tests/clients/requirements.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --requirement $<
	touch $@

# Installs packages; Debian's compiler and its standard library's source, where rustup has not the target.
install = echo "installing as root, by $(APT): $(1)" && $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -y -qq $(1)
rust_for = if ! rustup target list --installed 2>/dev/null | grep -x '$(1)' >/dev/null && ! [ -x /usr/bin/rustc -a -x /usr/bin/cargo -a -d /usr/lib/rustlib/src ]; then \
		$(call install,rustc-web cargo-web rust-web-src); fi

tools: ## QEMU, a bare-metal Rust where rustup has none, defmt-print
	@if ! command -v qemu-system-arm >/dev/null; then \
		$(call install,qemu-system-arm); fi
	@$(call rust_for,thumbv7em-none-eabihf)
	@if ! [ -x target/tools/bin/defmt-print ]; then \
		CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --debug --quiet --locked defmt-print --version 1.2.0 --root target/tools --target-dir target/tools-build; fi

MODEL ?= models/cifar10-resnet8-pm
BOARD ?= mps2-an386

firmware: tools ## An image of one bundle for one board: MODEL=models/NAME BOARD=mps2-an386 (firmware/build.sh lists the boards)
	BOARD=$(BOARD) firmware/build.sh $(MODEL)

firmware-classify: tools ## From a bundle to a chip's answer in one command, in QEMU: MODEL=models/NAME BOARD=mps2-an386 PICTURE=photo.jpg
	@[ -n "$(PICTURE)" ] || { echo "firmware-classify: which picture? PICTURE=photo.jpg (JPEG, PNG, PPM)" >&2; exit 2; }
	$(CARGO) build --release --workspace $(FEATURES) --bin paradised
	BOARD=$(BOARD) firmware/qemu.sh $(MODEL) classify $(PICTURE)

page-tools: ## Chromium, and what drives it and looks at the page in it, from npm
	@command -v chromium >/dev/null || { $(call install,chromium); }
	@[ -e tests/page/node_modules/.package-lock.json ] || ( cd tests/page && npm ci --silent --no-audit --no-fund )

package: ## A Debian package of paradised for this machine, without tract: target/debian/paradised_*.deb
	@[ -x target/tools/bin/cargo-deb ] || $(CARGO) install --quiet --locked cargo-deb --version 3.8.0 --root target/tools --target-dir target/tools-build
	target/tools/bin/cargo-deb --package paradise-runtime --profile device --no-strip -- --no-default-features --features daemon --bin paradised

oci: ## paradised with `pull`, from OCI registries: target/oci/release/paradised; and Debian's docker-registry, which the tests pull from
	@command -v docker-registry >/dev/null || { $(call install,docker-registry); }
	$(CARGO) build --release --package paradise-runtime --no-default-features --features oci --bin paradised --target-dir target/oci

# What the tests run in QEMU: firmware whose checks can be made to fail, for one core of each layout, or for all; and one that another
# runner measures.
TEST_BOARDS = mps2-an386 mps3-an547 $(if $(PARADISE_DEEP),mps2-an500 mps2-an505 nucleo-l4r5zi rp2350)

firmware-images: tools
	@for board in $(TEST_BOARDS); do BOARD=$$board FEATURES=inject firmware/build.sh models/cifar10-resnet8-pm; done
	@FEATURES=mlperf firmware/build.sh models/cifar10-resnet8-pm

firmware-test: firmware-images ## The firmware's state machine on the host; its images in QEMU, asked over their serial ports
	cd firmware && $(CARGO) test --lib
	$(CARGO) test --release --workspace $(FEATURES) --test firmware -- --nocapture

aarch64: aarch64-tried ## paradised for a Raspberry Pi (64 bit): target/aarch64/*/device/paradised; the engine's examples, and QEMU to run them
	runtime/aarch64.sh daemon

# What is shipped takes seven minutes of optimising all crates together; `make test` tries the same without that, `make test-all` both.
aarch64-tried:
	@if ! command -v qemu-aarch64 >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then \
		$(call install,gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user); fi
	@$(call rust_for,aarch64-unknown-linux-gnu)
	runtime/aarch64.sh build

# PARADISE_SKIP=python,firmware,aarch64,minisign,systemd,faketime,strace,mosquitto,ffmpeg,chromium,mpi leaves out what needs those tools; the tests concerned then say `skipped`.
wants = case ",$$PARADISE_SKIP," in *,$(1),*) echo "skipped: $(1), on request";; *) $(2);; esac

check: lint ## Format, clippy, every unit test: under two minutes once built, installs nothing
	$(CARGO) test --release --workspace $(FEATURES) --exclude paradise-tests --exclude paradise-engine-fuzz --exclude paradise-picture-fuzz

# A test's own time needs the harness's unstable options, which it grants where this variable is set as it runs.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
timed = CARGO_TARGET_$(HOST)_RUNNER="env RUSTC_BOOTSTRAP=1" $(CARGO) test --release --workspace $(FEATURES) --no-fail-fast --lib --bins --tests -- --report-time -Zunstable-options

test: ## Every promise, one case of each; installs what is missing (PARADISE_SKIP=python,firmware,aarch64,minisign,systemd,faketime,strace,mosquitto,ffmpeg,chromium,mpi leaves those out)
	@echo "make test needs a Python environment (.venv), QEMU and cross compilers, and installs what is missing of them:"
	@echo "Debian packages as root, by \"$(APT)\", the rest into this folder. PARADISE_SKIP=python,firmware,aarch64,minisign,systemd,faketime,strace,mosquitto,ffmpeg,chromium,mpi leaves them out."
	@$(call wants,mpi,{ $(has_mpi); } || { $(call install,$(MPI_PACKAGES)); })
	$(MAKE) lint build
	@$(call wants,python,$(MAKE) venv)
	@command -v curl >/dev/null || { $(call install,curl); }
	@$(call wants,minisign,command -v minisign >/dev/null || { $(call install,minisign); })
	@$(call wants,faketime,[ -e /usr/lib/$$(uname -m)-linux-gnu/faketime/libfaketime.so.1 ] || { $(call install,faketime); })
	@$(call wants,strace,command -v strace >/dev/null || { $(call install,strace); })
	@$(call wants,mosquitto,command -v mosquitto >/dev/null || { $(call install,mosquitto mosquitto-clients); })
	@$(call wants,chromium,$(MAKE) page-tools)
	@$(call wants,ffmpeg,command -v ffmpeg >/dev/null || { $(call install,ffmpeg); })
	@$(call wants,systemd,command -v systemd-analyze >/dev/null || { $(call install,systemd); })
	@$(call wants,firmware,$(MAKE) firmware-images)
	@$(call wants,aarch64,$(MAKE) $(if $(PARADISE_DEEP),aarch64,aarch64-tried))
	( cd firmware && $(CARGO) test --lib ) 2>&1 | tee target/test.log
	@$(call wants,aarch64,runtime/aarch64.sh test) 2>&1 | tee -a target/test.log
	PARADISE_REQUIRE=python,firmware,aarch64,minisign,systemd,faketime,strace,mosquitto,ffmpeg,chromium,mpi $(timed) 2>&1 | tee -a target/test.log
	$(CARGO) test --release --workspace $(FEATURES) --doc 2>&1 | tee -a target/test.log
	@echo "the ten slowest:"
	@sed -nE 's/^test (.*) \.\.\. (ok|FAILED) <([0-9.]+)s>$$/\3 s  \1/p' target/test.log | sort -rn | sed -n 1,10p
	@awk '/^test result:/ { passed += $$4; failed += $$6; skipped += $$8 } /^skipped:/ { skipped++ } \
		END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit passed == 0 || failed > 0 }' target/test.log

test-all: ## Everything that `make test` tries, with long lists: every bundle in QEMU, every network, minutes of hostile files, a Slurm cluster of this machine
	$(MAKE) oci
	@$(call wants,slurm,command -v srun >/dev/null || { $(call install,slurm-wlm munge); })
	PARADISE_DEEP=1 PARADISE_FUZZ_SECONDS=$${PARADISE_FUZZ_SECONDS:-120} $(MAKE) test

# What Cargo.toml, and the crates of devices, promise.
oldest = $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' $(1))
with_oldest = rustup toolchain install --profile minimal "$(call oldest,$(1))" && cargo "+$(call oldest,$(1))" check --target-dir target/msrv $(2)

msrv: ## The oldest Rust that is promised compiles everything (rustup installs it)
	$(call with_oldest,Cargo.toml,--workspace --all-targets)
	$(call with_oldest,runtime/Cargo.toml,--package paradise-engine --package paradise-picture --package paradise-runtime)

models: ## Rebuild models/ from the embedded images
	$(CARGO) run --release --bin train -- fit --config train/configs/fashion-mnist-paradise-pm.toml --out runs/models/fashion-mnist-small --resume
	$(CARGO) run --release --bin train -- export --run runs/models/fashion-mnist-small --out models/fashion-mnist-small --quantise min-max

# Objective, and what a row changes; adversarial rows see 10,000 images for 8 epochs.
ROWS = standard dvib:alpha=1e-3 paradise paradise-pm:gamma=1 paradise-pm:gamma=10 paradise-pm:gamma=25 \
	paradise-am:gamma=1 paradise-am:gamma=3 paradise-am:gamma=10 pgd-at trades:gamma=6

TRAIN = $(CARGO) run --quiet --release --bin train --

method-runs: ## Train every row of the first experiments' table (needs the full Fashion-MNIST; some minutes)
	@for row in $(ROWS); do \
		kind=$${row%%:*}; set="--set objective.kind=$$kind"; \
		[ "$$row" = "$$kind" ] || { changes=$${row#*:}; set="$$set --set objective.$${changes//,/ --set objective.}"; }; \
		case $$kind in paradise-am|pgd-at|trades) set="$$set --set data.train_images=11000 --set fit.epochs=8";; esac; \
		$(TRAIN) fit --config train/configs/method-table.toml $$set --out runs/method-table/$${row//[:=,]/-} --resume; \
	done

method-table: method-runs ## Attack and check every row; its table is docs/method-table.md (about 40 minutes on two cores; resumable)
	@evaluations=; for row in $(ROWS); do \
		name=$${row//[:=,]/-}; run=runs/method-table/$$name; evaluations="$$evaluations $$name=$$run/evaluation"; \
		$(TRAIN) evaluate --run $$run --surrogate runs/method-table/standard --attacks light --eps 8/255,4/255,0.1 --n 1000 --out $$run/evaluation; \
	done; $(TRAIN) compare $$evaluations --out docs/method-table.md

SEEDS = 1 2 3 4

method-seeds: method-table ## How much the table's figures differ from seed to seed (APGD-CE; about 20 minutes more)
	@evaluations=; for row in $(ROWS); do \
		name=$${row//[:=,]/-}; base=runs/method-table/$$name; \
		for seed in 0 $(SEEDS); do \
			run=$$base; [ $$seed = 0 ] || { run=$$base-seed-$$seed; \
				$(TRAIN) fit --config $$base/config.toml --seed $$seed --out $$run --resume; }; \
			$(TRAIN) evaluate --run $$run --attacks apgd-ce --eps 8/255,4/255,0.1 --n 1000 --no-checks --no-confidence --out $$run/seeds; \
			evaluations="$$evaluations $$name=$$run/seeds"; \
		done; \
	done; $(TRAIN) compare $$evaluations --out docs/method-seeds.md

bench: build ## Latency of the shipped bundle: every set of kernels, and tract
	target/release/paradised bench --model models/fashion-mnist-small --every-kernel --versus tract

bench-train: .venv-bench/.ready ## One training step against PyTorch on the CPU, one and two threads
	$(CARGO) bench --workspace $(FEATURES) --bench step -- $(CURDIR)/.venv-bench/bin/python $(NETS)

bench-attack: .venv-bench/.ready ## AutoAttack against torchattacks' on the same weights, one and two threads
	$(MAKE) method-runs ROWS="standard paradise-pm:gamma=10 paradise-am:gamma=3"
	$(CARGO) bench --workspace $(FEATURES) --bench autoattack -- $(CURDIR)/.venv-bench/bin/python 8/255 $(addprefix $(CURDIR)/runs/method-table/,standard paradise-pm-gamma-10 paradise-am-gamma-3)

bench-engine: .venv-peers/.ready aarch64-tried ## The int8 engine against LiteRT, ONNX Runtime and OpenVINO, batch 1, one and two threads, on this CPU and held to smaller ones; instructions under valgrind and on aarch64
	@for tool in valgrind objdump llvm-mca; do command -v $$tool >/dev/null || { $(call install,valgrind binutils llvm); break; }; done
	gcc -O2 -fPIC -shared -o target/aarch64/count.so train/benches/instructions/count.c
	[ -e target/aarch64/peers/usr/bin/python3 ] || PIP=".venv-peers/bin/python -m pip" APT="$(APT)" train/benches/instructions/aarch64.sh target/aarch64/peers
	$(CARGO) build --release --workspace $(FEATURES) --example kernels
	$(CARGO) bench --workspace $(FEATURES) --bench engine -- $(CURDIR)/.venv-peers/bin/python $(NETS)

bench-firmware: build tools venv ## Instructions and modelled cycles of ResNet-8 on Cortex-M4, M33 and M55, beside CMSIS-NN's
	firmware/bench/run.sh $(CURDIR)/.venv/bin/python

bench-camera: build ## What one camera costs, beside ffmpeg
	@command -v ffmpeg >/dev/null || { $(call install,ffmpeg); }
	$(PYTHON) runtime/benches/camera/bench.py target/release/paradised models/cifar10-resnet8-pm

bench-serve: build $(addprefix .venv-serve-,$(addsuffix /.ready,fastapi mlserver litserve)) ## paradised under load beside FastAPI with ONNX Runtime, MLServer and LitServe
	@for tool in wrk h2load taskset; do command -v $$tool >/dev/null || { $(call install,wrk nghttp2-client util-linux); break; }; done
	$(PYTHON) runtime/benches/serve/serve.py

bench-scale: mpi .venv-bench/.ready ## A training step on 2 and 4 ranks beside one process and PyTorch's DDP, also over links of 1 and 10 Gbit/s (those need root)
	@command -v tc >/dev/null || { $(call install,iproute2); }
	.venv-bench/bin/python train/benches/scale/scale.py $(CURDIR)/target/mpi/train $(CURDIR)/.venv-bench/bin/python $(NETS)

.venv-serve-%/.ready: runtime/benches/serve/%.txt
	$(PYTHON) -m venv .venv-serve-$*
	.venv-serve-$*/bin/pip install --quiet --requirement $<
	touch $@

.venv-peers/.ready: train/benches/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --requirement $<
	touch $@

.venv-bench/.ready: train/benches/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --requirement $<
	touch $@

cuda: ## The trainer for NVIDIA GPUs, also on a machine without one; then train/benches/gpu.sh where there is one
	train/build-cuda.sh

mpi: ## The trainer for several processes, in target/mpi: mpirun -n 4 target/mpi/train fit ...
	@{ $(has_mpi); } || { $(call install,$(MPI_PACKAGES)); }
	$(CARGO) build --release --workspace --features paradise-train/mpi --bin train
	mkdir -p target/mpi && cp target/release/train target/mpi/train

check-cuda: ## The CUDA side compiles: Rust and the GPU's kernels
	train/build-cuda.sh check

clean: ## Remove what was built and installed here
	rm -rf target firmware/target .venv .venv-clients .venv-bench .venv-peers .venv-cuda
