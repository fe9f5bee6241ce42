//! The house is tidy, and each rule of tidiness goes red when it is broken.

use std::path::{Path, PathBuf};

use rdrivefs_tests::tidy::{
    OWNERS, Sources, cycles, foreign_dependencies, oversized, sources, upward_imports,
};

const FLOORS: [&str; 3] = ["fs", "sync", "remote"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_owned()
}

fn source(files: &[(&str, &str)]) -> Sources {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn imports_go_down_and_no_files_are_knotted() {
    let mut wrong = Vec::new();
    for floor in FLOORS {
        let sources = sources(&top().join(floor).join("src"));
        assert!(sources.len() > 1, "{floor} has sources");
        let found = upward_imports(&sources).into_iter().chain(cycles(&sources));
        wrong.extend(found.map(|line| format!("{floor}: {line}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for floor in FLOORS.iter().chain(&["tests"]) {
        let sources = sources(&top().join(floor).join("src"));
        wrong.extend(oversized(&sources).into_iter().map(|line| format!("{floor}: {line}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn dangerous_dependencies_stay_on_their_floor() {
    for package in ["fs", "sync", "remote", "tests"] {
        let manifest = std::fs::read_to_string(top().join(package).join("Cargo.toml")).unwrap();
        assert_eq!(foreign_dependencies(&manifest, OWNERS), Vec::<String>::new());
    }
}

#[test]
fn an_upward_import_is_found() {
    let files = [
        ("lib.rs", "mod roof;\nmod ground;"),
        ("roof.rs", "use crate::ground::Stone;"),
        ("ground.rs", "fn f() -> crate::roof::Tile { todo!() }"),
    ];
    let wrong = upward_imports(&source(&files));
    assert_eq!(wrong, ["ground.rs imports roof.rs, which stands above it"]);
    assert_eq!(cycles(&source(&files)).len(), 1);
    let files = [files[0], files[1], ("ground.rs", "#[cfg(test)] mod t { use crate::roof::T; }")];
    assert!(upward_imports(&source(&files)).is_empty(), "tests may look up");
}

#[test]
fn a_child_that_imports_its_parent_is_found() {
    let files = [
        ("lib.rs", "mod wall;"),
        ("wall.rs", "mod brick;\nuse self::brick::Brick;"),
        ("wall/brick.rs", "use super::Height;"),
    ];
    let wrong = cycles(&source(&files));
    assert_eq!(wrong, ["files import each other: wall.rs, wall/brick.rs"]);
}

#[test]
fn long_files_and_functions_are_found() {
    let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69));
    let file = format!("{}#[cfg(test)]\nmod t {{\n{long}{long}}}\n", "fn g() {}\n".repeat(500));
    assert!(oversized(&source(&[("a.rs", &file)])).is_empty(), "tests do not count");
    let file = format!("{long}{}", "fn g() {}\n".repeat(500));
    let wrong = oversized(&source(&[("a.rs", &file)]));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn a_foreign_dependency_is_found() {
    let manifest = "[package]\nname = \"rdrivefs-remote\"\n[dependencies]\nzstd = \"1\"\n";
    let wrong = foreign_dependencies(manifest, OWNERS);
    assert_eq!(wrong, ["rdrivefs-remote may not depend on zstd"]);
    let manifest = "[package]\nname = \"rdrivefs\"\n[dependencies]\nrdrivefs-remote = \"1\"\n";
    assert_eq!(foreign_dependencies(manifest, OWNERS).len(), 1);
}
