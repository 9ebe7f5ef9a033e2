//! Imports point down only, and siblings do not import each other.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

/// Each crate's layer, as `docs/architecture.md` draws it.
const LAYERS: &[(&str, u8)] = &[
    ("aiproxy-core", 0),
    ("aiproxy-platform", 1),
    ("aiproxy-quic", 1),
    ("aiproxy-config", 2),
    ("aiproxy-taps", 2),
    ("aiproxy-telemetry", 2),
    ("aiproxy-registry", 3),
    ("aiproxy-store", 3),
    ("aiproxy-journal", 3),
    ("aiproxy-secrets", 3),
    ("aiproxy-routing", 4),
    ("aiproxy-upstream", 4),
    ("aiproxy-meter", 4),
    ("aiproxy-gateway", 5),
    ("aiproxy-signaling", 5),
    ("aiproxy-relay", 5),
    ("aiproxy-admin", 5),
    ("aiproxy", 6),
    // Beside the layers: a platform of its own, and the tests' tools.
    ("aiproxy-sandbox", 0),
    ("aiproxy-testkit", 6),
];

#[test]
fn imports_point_down() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let layers: HashMap<&str, u8> = LAYERS.iter().copied().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), layers.len(), "every crate has a layer");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let layer = layers.get(name).unwrap_or_else(|| panic!("{name} has no layer"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let imported = dependency["name"].as_str().expect("a name");
            let dev = dependency["kind"] == "dev";
            if let Some(below) = layers.get(imported).filter(|_| !dev) {
                assert!(below < layer, "{name} (layer {layer}) imports {imported} (layer {below})");
            }
        }
    }
}

#[test]
fn the_page_draws_the_same_layers() {
    let page = include_str!("../docs/architecture.md");
    for (name, layer) in
        LAYERS.iter().filter(|(name, _)| !matches!(*name, "aiproxy-sandbox" | "aiproxy-testkit"))
    {
        let folder = match *name {
            "aiproxy" => "src/".to_owned(),
            "aiproxy-config" => "config/".to_owned(),
            "aiproxy-signaling" => "signaling/".to_owned(),
            "aiproxy-relay" => "relay/".to_owned(),
            other => format!("crates/{}", other.trim_start_matches("aiproxy-")),
        };
        let row = format!("| {layer} | `{folder}`");
        assert!(page.contains(&row), "docs/architecture.md has no row `{row}`");
    }
}
