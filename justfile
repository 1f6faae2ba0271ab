# Commands for this repository. `just check` never edits; `just fix` does.

# What a change must pass.
check:
    .ci/run

# Puts into form what a machine can.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged

# Three nodes on this machine, with sample data.
run *args:
    cargo run --release -- demo {{args}}

# Dependencies: licences, duplicates, bans, sources. Needs cargo-deny.
deny:
    cargo deny check bans licenses sources

# Drills against real processes; they print what they measured. See tests/faults/README.md.
failover *args:
    cargo run --release -p tests --example failover -- {{args}}

idle *args:
    cargo run --release -p tests --example idle -- {{args}}

# Needs root: mounts a loop device for each node whose power is cut.
power-cut *args:
    cargo build --release -p tests --example power-cut
    sudo target/release/examples/power-cut {{args}}
