# The one list of developer commands. Everything is built with --release --workspace: one profile, one package
# selection, so that Burn is built once.

run := "cargo run --release --bin earthmapper --"
mini := "configs/earthmapper-mini"

# Shows this list.
default:
    @just --list

# Builds everything. FEATURES: cuda, vulkan or metal.
build FEATURES="":
    cargo build --release --workspace --all-targets --features "{{FEATURES}}"

# Runs all tests.
test:
    cargo test --release --workspace

# Formatting and lints, as CI asks for them.
lint:
    cargo fmt --all -- --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# Measures speed.
bench:
    cargo bench --workspace

# Compares reading and writing of GeoTIFFs with GDAL's, by a PYTHON that has rasterio and numpy; FLAGS such as --cores 0,1.
bench-geo-peer PYTHON="python3" *FLAGS:
    cargo build --release --workspace --example raster_speed
    {{PYTHON}} tools/geo_bench_peer.py --program target/release/examples/raster_speed {{FLAGS}}

# Measures the peak memory of reading and writing scenes of growing size.
bench-geo-memory:
    cargo build --release --workspace --example raster_speed
    for side in 1024 4096 8192; do target/release/examples/raster_speed stream $side target/scene.tif; done; rm -f target/scene.tif

# Times a translation beside PyTorch, taking turns; PYTHON has PyTorch installed; FLAGS such as --bf16.
bench-peer PYTHON="python3" *FLAGS:
    {{PYTHON}} tools/bench_peer.py "$(cargo bench --workspace --bench translation --no-run --message-format json | {{PYTHON}} -c 'import json, sys; print(next(m["executable"] for m in map(json.loads, sys.stdin) if m.get("target", {}).get("name") == "translation" and m.get("executable")))')" {{FLAGS}}

# All that CI runs.
ci:
    .ci/run

# Trains the tokenizer of earthmapper-mini; FLAGS such as --resume.
train-tokenizer *FLAGS:
    {{run}} train tokenizer -c {{mini}}/tokenizer.toml --run runs/earthmapper-mini-tokenizer {{FLAGS}}

# Trains its transformer.
train-transformer *FLAGS:
    {{run}} train transformer -c {{mini}}/transformer.toml --run runs/earthmapper-mini {{FLAGS}}

# Makes a new model folder OUT from the transformer's run; FLAGS such as --generation FILE.
export OUT *FLAGS:
    {{run}} model export {{OUT}} --from-run runs/earthmapper-mini {{FLAGS}}

# Measures a model on the validation pairs in the folder DATA; results go to the folder OUT.
evaluate DATA OUT *FLAGS:
    {{run}} evaluate --data {{DATA}} --pairs 1001..1096 --out {{OUT}} {{FLAGS}}

# Runs a sweep of configs/sweeps, such as key-points, into runs/sweeps; FLAGS such as --dry-run or --set evaluate.pairs.limit=24.
sweep NAME *FLAGS:
    {{run}} sweep -c configs/sweeps/{{NAME}}.toml --out runs/sweeps/{{NAME}} {{FLAGS}}

# Compares a device with the CPU, and cached steps with whole sequences.
doctor DEVICE="cpu":
    {{run}} doctor --device {{DEVICE}}

# Compares the model with the reference implementations' numbers in the folder DIR.
parity-model DIR:
    EARTHMAPPER_PARITY="{{absolute_path(DIR)}}" cargo test --release --workspace --test parity --test nets -- --nocapture

# Computes the metrics' reference numbers anew with the field's Python packages, in an environment in the folder VENV (needs
# a package index for some gigabytes, and ten minutes), and compares with them.
parity VENV="target/metrics-reference":
    test -x "{{VENV}}/bin/python" || python3 -m venv "{{VENV}}"
    "{{VENV}}/bin/pip" install --quiet torch torchvision pytorch-fid torch-fidelity prdc scikit-image lpips opencv-contrib-python-headless
    "{{VENV}}/bin/python" tools/metrics_reference.py "{{VENV}}/reference.json"
    EARTHMAPPER_METRICS_REFERENCE="{{absolute_path(VENV)}}/reference.json" cargo test --release --workspace --test metrics_agreement -- --nocapture

# The page in Debian's Chromium, against the program as built; screenshots go to the folder SHOTS.
browser SHOTS="target/shots":
    cd tools/browser && npm install --no-audit --no-fund && node page.mjs ../../target/release/earthmapper "{{absolute_path(SHOTS)}}"

# The interface against its description, at a server that runs with the demo (needs schemathesis).
contract URL="http://127.0.0.1:8000":
    schemathesis run {{URL}}/openapi.json --exclude-checks positive_data_acceptance --request-timeout 180

# TileJSON, WMTS and counts of a running server, by a PYTHON that has OWSLib, jsonschema and rasterio.
documents URL="http://127.0.0.1:8000" PYTHON="python3" *SCHEMA:
    {{PYTHON}} tools/contract/documents.py {{URL}} {{SCHEMA}}

# The server under load from another process.
load SECONDS="20":
    python3 tools/load/load.py target/release/earthmapper {{SECONDS}}

# Checks licences and advisories (needs cargo-deny).
deny:
    cargo deny check
