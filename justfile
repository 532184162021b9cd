# One-liners over cargo and scripts: everything also runs without `just`.

# List the recipes
default:
    @just --list

# Format all code
fmt:
    cargo fmt --all

# Formatting and lints, as CI wants them
lint:
    cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings

# Everything that needs no server
test:
    scripts/test --fast

# Everything, with real PostgreSQL and S3 servers
e2e:
    scripts/test

# Any bytes for the readers of what others wrote, for two minutes after the build
fuzz:
    scripts/fuzz --seconds 20

# The API documentation
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# Licences, banned crates and their fences
deny:
    cargo deny --log-level error check bans licenses sources

# Micro-benchmarks and the comparison with the stock tools
bench:
    scripts/bench

# A guided tour against throw-away servers
demo:
    scripts/demo

# What CI runs
ci:
    .ci/run
