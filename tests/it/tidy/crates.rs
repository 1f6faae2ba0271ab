//! Who may import whom, one library one crate, one effect one crate (ARCHITECTURE.md).

use super::paths::paths;
use super::tree::{Finding, SourceFile, Tree};
use super::{Rule, WrongExample};

/// Each crate and the crates it may import.
const CRATES: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("compat", &["model"]),
    ("raft", &["model"]),
    ("actors", &["model", "raft", "history"]),
    ("gateway", &["model", "compat", "actors"]),
    ("node", &["model", "compat", "raft", "actors", "gateway"]),
    ("tests", &["model", "compat", "history", "node"]),
    ("chaos", &["model", "compat", "history", "node"]),
    ("history", &[]),
];

/// The fuzzers: no crate is built from them, and each calls one crate's function.
const FUZZERS: &str = "tests/fuzz/";

/// Each library that has a home, and the places that may name it.
const LIBRARIES: [(&str, &[&str]); 31] = [
    ("openraft", &["raft/"]),
    ("sled", &["raft/src/disk/"]),
    ("crc32fast", &["raft/"]),
    ("ractor", &["actors/"]),
    ("arc_swap", &["actors/"]),
    ("axum", &["gateway/"]),
    ("tower", &["gateway/"]),
    ("tower_http", &["gateway/"]),
    ("hyper", &["gateway/"]),
    ("hyper_util", &["gateway/"]),
    ("percent_encoding", &["gateway/"]),
    ("utoipa", &["gateway/"]),
    ("metrics_exporter_prometheus", &["gateway/", "node/"]),
    ("clap", &["node/", "chaos/"]),
    ("toml", &["node/"]),
    ("strsim", &["node/"]),
    ("comfy_table", &["node/"]),
    ("indicatif", &["node/", "chaos/"]),
    ("tracing_subscriber", &["node/"]),
    ("getrandom", &["node/"]),
    ("tikv_jemallocator", &["node/src/main.rs"]),
    ("tikv_jemalloc_ctl", &["node/src/memory.rs"]),
    ("reqwest", &["node/", "tests/", "chaos/"]),
    ("tokio_tungstenite", &["gateway/", "node/", "tests/", "chaos/"]),
    ("anyhow", &["node/", "tests/", "chaos/"]),
    ("postcard", &["model/src/codec.rs"]),
    ("icu_casemap", &["model/src/query/letters.rs"]),
    ("icu_normalizer", &["model/src/query/letters.rs"]),
    ("imbl", &["model/"]),
    ("jiff", &["model/"]),
    ("rust_decimal", &["model/"]),
];

/// Each touch of the outside world, the paths it is known by, and the places that may have it.
const EFFECTS: [(&str, &[&str], &[&str]); 6] = [
    (
        "disk",
        &["std::fs", "tokio::fs", "rustix::fs", "File::open", "File::create"],
        &["raft/src/disk", "node/src/"],
    ),
    (
        "sockets",
        &["TcpListener", "TcpStream", "TcpSocket", "UdpSocket", "UnixStream", "UnixListener"],
        &["node/src/", "gateway/src/"],
    ),
    (
        "environment and arguments",
        &["std::env", "env::var", "env::args"],
        &["node/src/", "actors/examples/"],
    ),
    (
        "other processes and signals",
        &["std::process", "tokio::process", "tokio::signal"],
        &["node/src/"],
    ),
    (
        "clock of the wall",
        &["SystemTime::now", "Timestamp::now", "Zoned::now"],
        &["actors/src/clock.rs", "node/src/", "gateway/src/"],
    ),
    (
        "chance",
        &[
            "rand::thread_rng",
            "getrandom::fill",
            "Uuid::new_v4",
            "Uuid::now_v7",
            "RandomState::new",
        ],
        &["raft/src/", "actors/src/", "gateway/src/", "node/src/"],
    ),
];

/// What the table of versions must say, and why (docs/decisions).
const PINS: [(&str, &str, &str); 5] = [
    ("openraft", "\"=", "an alpha moves under us"),
    ("sled", "\"=", "its files are read by this version only"),
    ("ractor", "default-features = false", "its `cluster` feature changes what a message is"),
    ("postcard", "default-features = false", "its defaults bring another allocator's types"),
    ("reqwest", "default-features = false", "its defaults bring a second cryptography provider"),
];
/// Features and files that must not be there.
const BANNED: [(&str, &str); 2] = [
    ("arbitrary_precision", "it changes what a number is for every crate in the tree"),
    ("openssl", "one cryptography provider for everything"),
];

/// The rules of this file.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "a crate's manifest names only crates below it",
        check: manifests_follow_the_arrows,
        wrong: &[WrongExample {
            files: &[(
                "raft/Cargo.toml",
                "[dependencies]\nmodel.workspace = true\nactors.workspace = true\n",
            )],
            at: ("raft/Cargo.toml", 3),
        }],
        fine: &[&[(
            "node/Cargo.toml",
            "[dependencies]\nraft.workspace = true\n\n[dev-dependencies]\nmodel.workspace = true\n",
        )]],
    },
    Rule {
        name: "a crate's code names only crates below it",
        check: code_follows_the_arrows,
        wrong: &[
            WrongExample {
                files: &[("gateway/src/a.rs", "//! A.\nuse raft::Groups;\n")],
                at: ("gateway/src/a.rs", 2),
            },
            WrongExample {
                files: &[("model/src/a.rs", "//! A.\n\nfn f() { node::start() }\n")],
                at: ("model/src/a.rs", 3),
            },
        ],
        fine: &[
            &[(
                "actors/src/a.rs",
                "//! Not gateway::x.\nuse raft::Groups;\nuse crate::node::Id;\n",
            )],
            &[("actors/src/lib.rs", "//! A.\nmod node;\npub use node::Id;\n")],
            &[("tests/fuzz/src/a.rs", "//! A.\nfn f() { raft::disk::fuzz::a() }\n")],
        ],
    },
    Rule {
        name: "one table of versions, one table of lints",
        check: manifests_share_the_tables,
        wrong: &[
            WrongExample {
                files: &[(
                    "raft/Cargo.toml",
                    "[lints]\nworkspace = true\n[dependencies]\nsled = \"0.34\"\n",
                )],
                at: ("raft/Cargo.toml", 4),
            },
            WrongExample {
                files: &[("raft/Cargo.toml", "[dependencies]\n")],
                at: ("raft/Cargo.toml", 1),
            },
        ],
        fine: &[&[(
            "raft/Cargo.toml",
            "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n",
        )]],
    },
    Rule {
        name: "the table of versions pins what must not move",
        check: versions_are_pinned,
        wrong: &[
            WrongExample { files: &[("Cargo.toml", "sled = \"0.34\"\n")], at: ("Cargo.toml", 1) },
            WrongExample {
                files: &[("Cargo.toml", "\nx = { features = [\"arbitrary_precision\"] }\n")],
                at: ("Cargo.toml", 2),
            },
            WrongExample {
                files: &[("Cargo.toml", ""), ("rust-toolchain.toml", "")],
                at: ("rust-toolchain.toml", 1),
            },
        ],
        fine: &[&[(
            "Cargo.toml",
            "# Never `arbitrary_precision`.\nsled = { version = \"=0.34.7\" }\n",
        )]],
    },
    Rule {
        name: "one library, one crate",
        check: libraries_stay_home,
        wrong: &[
            WrongExample {
                files: &[("node/src/a.rs", "//! A.\nuse {std::io, openraft::Raft};\n")],
                at: ("node/src/a.rs", 2),
            },
            WrongExample {
                files: &[("model/src/value.rs", "//! A.\nfn f() { postcard::to_vec() }\n")],
                at: ("model/src/value.rs", 2),
            },
            WrongExample {
                files: &[(
                    "actors/Cargo.toml",
                    "[dependencies]\nmetrics.workspace = true\naxum.workspace = true\n",
                )],
                at: ("actors/Cargo.toml", 3),
            },
        ],
        fine: &[
            &[("raft/src/a.rs", "//! A.\nuse openraft::Raft;\n")],
            &[("model/src/codec.rs", "//! A.\nuse postcard::to_vec;\n")],
            &[("tests/src/a.rs", "//! Not sled::Db.\nuse reqwest::Client;\n")],
        ],
    },
    Rule {
        name: "one effect, one crate",
        check: effects_stay_home,
        wrong: &[
            WrongExample {
                files: &[("actors/src/a.rs", "//! A.\nuse std::{fs::File, io};\n")],
                at: ("actors/src/a.rs", 2),
            },
            WrongExample {
                files: &[("raft/src/group.rs", "//! A.\n\nfn f() { SystemTime::now(); }\n")],
                at: ("raft/src/group.rs", 3),
            },
            WrongExample {
                files: &[("gateway/src/a.rs", "//! A.\nfn f() { std::env::var(\"X\") }\n")],
                at: ("gateway/src/a.rs", 2),
            },
            WrongExample {
                files: &[(
                    "raft/src/network.rs",
                    "//! A.\nuse tokio::net::{TcpListener, TcpStream};\n",
                )],
                at: ("raft/src/network.rs", 2),
            },
        ],
        fine: &[
            &[("raft/src/disk/wal.rs", "//! A.\nuse std::fs::File;\n")],
            &[("actors/src/a.rs", "//! A.\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n")],
        ],
    },
];

/// The dependencies of a manifest: name as code writes it, and line.
fn dependencies(file: &SourceFile) -> Vec<(String, usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (at, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.starts_with("[workspace");
        } else if inside && line.contains('=') && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push((name.trim_matches('"').replace('-', "_"), at + 1, line));
        }
    }
    found
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&SourceFile, &'static [&'static str])> {
    CRATES
        .iter()
        .filter_map(|(member, may)| Some((tree.get(&format!("{member}/Cargo.toml"))?, *may)))
}

fn is_crate(name: &str) -> bool {
    CRATES.iter().any(|(member, _)| *member == name)
}

fn manifests_follow_the_arrows(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, may) in manifests(tree) {
        for (name, line, _) in dependencies(file) {
            if is_crate(&name) && name != file.member() && !may.contains(&name.as_str()) {
                found.push(file.finding(
                    line,
                    format!("{} imports {name}", file.member()),
                    format!("{} may import only {may:?}; move what is shared down", file.member()),
                ));
            }
        }
    }
    found
}

fn code_follows_the_arrows(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (member, may) in CRATES {
        let ours = |file: &&SourceFile| file.member() == member && !file.path.starts_with(FUZZERS);
        let files: Vec<&SourceFile> = tree.rust().filter(ours).collect();
        let above = |name: &str| is_crate(name) && name != member && !may.contains(&name);
        for file in &files {
            for path in paths(file).iter().filter(|path| above(path.first())) {
                if !files.iter().any(|file| declares(file, path.first())) {
                    let right = format!("{member} may name only {may:?}");
                    found.push(file.finding(path.line, format!("names {}", path.shown()), right));
                }
            }
        }
    }
    found
}

/// Whether a file has a module of this name, which then hides the crate's.
fn declares(file: &SourceFile, module: &str) -> bool {
    let (closed, open) = (format!("mod {module};"), format!("mod {module} {{"));
    file.code.contains(&closed) || file.code.contains(&open)
}

fn manifests_share_the_tables(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, _) in manifests(tree) {
        if !file.text.contains("[lints]\nworkspace = true") {
            found.push(file.finding(
                1,
                "the shared lints are not taken",
                "`[lints]` with `workspace = true`",
            ));
        }
        for (name, line, text) in dependencies(file) {
            let shared = text.contains(".workspace = true") || text.contains("workspace = true,");
            // A crate may name itself, so that its own tests see a feature of it.
            let itself = name == file.member() && text.contains("path = \".\"");
            if !shared && !itself && !text.ends_with("{ workspace = true }") {
                found.push(file.finding(
                    line,
                    format!("{name} has a version of its own"),
                    "the version in the root Cargo.toml, `workspace = true` here",
                ));
            }
        }
    }
    found
}

fn versions_are_pinned(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(file) = tree.get("rust-toolchain.toml") {
        let right = "no such file: `rust-version` in Cargo.toml, and any toolchain from there on";
        found.push(file.finding(1, "one toolchain is demanded", right));
    }
    let Some(file) = tree.get("Cargo.toml") else { return found };
    let lines = file.text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    for (at, line) in lines {
        for (name, must, why) in PINS {
            if line.starts_with(&format!("{name} =")) && !line.contains(must) {
                found.push(file.finding(
                    at + 1,
                    format!("{name} is loose"),
                    format!("`{must}`: {why}"),
                ));
            }
        }
        for (word, why) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
            found.push(file.finding(at + 1, *word, format!("without it: {why}")));
        }
    }
    found
}

fn libraries_stay_home(tree: &Tree) -> Vec<Finding> {
    let right = |library, homes| {
        format!("{library} only in {homes:?}; use it through that crate's interface")
    };
    let mut found = Vec::new();
    for file in tree.rust() {
        for path in paths(file) {
            let home = LIBRARIES.iter().find(|(library, _)| path.first() == *library);
            if let Some((library, homes)) = home
                && !homes.iter().any(|home| file.path.starts_with(home))
            {
                let names = format!("names {}", path.shown());
                found.push(file.finding(path.line, names, right(library, homes)));
            }
        }
    }
    for (file, _) in manifests(tree) {
        for (name, line, _) in dependencies(file) {
            let home = LIBRARIES.iter().find(|(library, _)| name == *library);
            if let Some((library, homes)) = home
                && !homes.iter().any(|home| home.split('/').next() == Some(file.member()))
            {
                found.push(file.finding(line, format!("depends on {name}"), right(library, homes)));
            }
        }
    }
    found
}

fn effects_stay_home(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let named = paths(file);
        for (effect, names, homes) in EFFECTS {
            if homes.iter().any(|home| file.path.starts_with(home)) {
                continue;
            }
            for path in named.iter().filter(|path| !file.is_test_line(path.line)) {
                if names.iter().any(|name| path.holds(name)) {
                    found.push(file.finding(
                        path.line,
                        format!("touches the outside world ({effect}) by {}", path.shown()),
                        format!(
                            "{effect} only in {homes:?}; take it as an argument, or through a trait"
                        ),
                    ));
                }
            }
        }
    }
    found
}
