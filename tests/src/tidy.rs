//! Whether the sources keep to the shape of the house.
//!
//! Three floors, imports down: a package names only floors below it; in a package, `lib.rs` lists
//! the modules from roof to ground, a module imports only modules below it, and no two files import
//! each other, however indirectly. Files and functions stay short, and a dangerous dependency
//! belongs to one floor. Every rule takes sources as text, so that a test can break it on purpose.

mod graph;
mod size;

use std::collections::BTreeMap;
use std::path::Path;

pub use graph::{cycles, upward_imports};
pub use size::{FILE_LINES_MAX, FUNCTION_LINES_MAX, oversized};

/// The sources of one package: path below `src/`, with `/` between folders, to text.
pub type Sources = BTreeMap<String, String>;

/// A dependency and the packages that may name it.
pub type Owner<'a> = (&'a str, &'a [&'a str]);

/// Which package may use which dangerous dependency.
pub const OWNERS: &[Owner<'static>] = &[
    ("fuser", &["rdrivefs"]),
    ("indicatif", &["rdrivefs"]),
    ("rpassword", &["rdrivefs"]),
    ("clap", &["rdrivefs", "rdrivefs-remote"]),
    ("aes", &["rdrivefs-sync"]),
    ("argon2", &["rdrivefs-sync"]),
    ("aws-lc-rs", &["rdrivefs-sync"]),
    ("bip39", &["rdrivefs-sync"]),
    ("chacha20", &["rdrivefs-sync"]),
    ("ml-kem", &["rdrivefs-sync"]),
    ("x25519-dalek", &["rdrivefs-sync"]),
    ("zstd", &["rdrivefs-sync"]),
    ("rusqlite", &["rdrivefs-sync", "rdrivefs-tests"]),
    ("quinn", &["rdrivefs-remote"]),
    ("rustls", &["rdrivefs-remote"]),
    ("notify", &["rdrivefs-remote"]),
    ("axum", &["rdrivefs-remote"]),
    ("rdrivefs-remote", &["rdrivefs-sync", "rdrivefs-tests"]),
    ("rdrivefs-sync", &["rdrivefs", "rdrivefs-tests"]),
    ("rdrivefs", &["rdrivefs-tests"]),
    ("rdrivefs-tests", &[]),
];

/// Dependencies that a manifest names and its package may not have.
///
/// # Panics
/// When the manifest is not one.
pub fn foreign_dependencies(manifest: &str, owners: &[Owner<'_>]) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let package = manifest["package"]["name"].as_str().expect("a package has a name");
    let named = |table: &str| {
        let table = manifest.get(table).and_then(toml::Value::as_table);
        table.map(|t| t.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let allowed =
        |name: &String| owners.iter().all(|(owned, by)| owned != name || by.contains(&package));
    let mut foreign = named("dependencies");
    foreign.extend(named("build-dependencies"));
    foreign.retain(|name| !allowed(name));
    foreign.iter().map(|name| format!("{package} may not depend on {name}")).collect()
}

/// Reads the sources of a package.
///
/// # Panics
/// When they cannot be read.
pub fn sources(src: &Path) -> Sources {
    let mut sources = Sources::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(src).expect("it lies below").to_string_lossy();
                let text = std::fs::read_to_string(&path).expect("sources are text");
                sources.insert(name.into_owned(), text);
            }
        }
    }
    sources
}

/// Whether an item is there for tests alone.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let cfg_test = attr.path().is_ident("cfg")
            && attr.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test");
        cfg_test || attr.path().is_ident("test")
    })
}
