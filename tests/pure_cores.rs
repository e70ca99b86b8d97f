//! The pure cores stay pure by their manifests: what is not listed cannot be called.

use std::path::Path;

/// Crates that compute and decide, without clock, entropy, runtime or I/O.
const PURE: [&str; 5] = ["types", "crush", "wire", "paxos", "pg"];

/// All they may list outside `[dev-dependencies]`; anything new is a decision to take here, in sight.
const ALLOWED: [&str; 8] =
    ["cairn-types", "cairn-wire", "thiserror", "smallvec", "bytes", "bincode", "serde", "crc32fast"];

fn dependencies(manifest: &str) -> Vec<String> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
            if let Some(name) = section.strip_prefix("dependencies.") {
                found.push(name.to_owned());
            }
        } else if section == "dependencies"
            || section == "build-dependencies"
            || section.starts_with("target.")
        {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push(name.trim_matches('"').to_owned());
        }
    }
    found
}

#[test]
fn the_manifest_of_a_pure_core_lists_no_runtime() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in PURE {
        let path = root.join("crates").join(name).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).unwrap();
        for dependency in dependencies(&manifest) {
            assert!(
                ALLOWED.contains(&dependency.as_str()),
                "{} lists {dependency}; a pure core may list only {ALLOWED:?}",
                path.display()
            );
        }
    }
}

#[test]
fn a_listed_runtime_is_seen() {
    let seen =
        dependencies("[dependencies]\ntokio = { version = \"1\" }\n[dependencies.rand]\nversion = \"0.9\"\n");
    assert_eq!(seen, ["tokio", "rand"]);
    let target = dependencies(
        "[target.'cfg(unix)'.dependencies]\nrustix = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n",
    );
    assert_eq!(target, ["rustix"]);
}
