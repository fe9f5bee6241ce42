//! Who imports whom: modules of a package as a graph of files.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::{Sources, is_test};

/// Imports of top-level modules that point upward, against the order of `lib.rs` or `main.rs`.
pub fn upward_imports(sources: &Sources) -> Vec<String> {
    let order = listed_modules(sources);
    let rank = |module: &str| order.iter().position(|m| m == module);
    let mut wrong = Vec::new();
    for (file, targets) in imports(sources) {
        let from = top(&module_path(&file));
        for target in targets {
            let to = top(&module_path(&target));
            if let (Some(a), Some(b)) = (rank(&from), rank(&to)) {
                if b < a {
                    wrong.push(format!("{file} imports {target}, which stands above it"));
                }
            }
        }
    }
    wrong
}

/// Files that import each other, as rings; a house without knots has none.
pub fn cycles(sources: &Sources) -> Vec<String> {
    let mut edges = imports(sources);
    // A root lists everything and re-exports; whoever imports from it is caught as upward.
    for root in ["lib.rs", "main.rs"] {
        edges.remove(root);
    }
    let mut knots = BTreeSet::new();
    for start in edges.keys() {
        if let Some(ring) = ring_through(start, &edges) {
            let mut members: Vec<_> = ring.iter().cloned().collect();
            members.sort();
            knots.insert(members);
        }
    }
    knots.into_iter().map(|ring| format!("files import each other: {}", ring.join(", "))).collect()
}

/// The shortest way from `start` back to itself.
fn ring_through(start: &str, edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().expect("a way has a start");
            for next in edges.get(last).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

fn listed_modules(sources: &Sources) -> Vec<String> {
    let root = sources.get("lib.rs").or_else(|| sources.get("main.rs"));
    let root = syn::parse_file(root.expect("a package has a root")).expect("sources parse");
    let modules = root.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// For each file the other files of the package it imports, outside its tests.
fn imports(sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for (file, text) in sources {
        if file.ends_with("tests.rs") {
            continue;
        }
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{file} parses: {e}"));
        let mut paths = Paths { here: module_path(file), found: Vec::new() };
        paths.visit_file(&parsed);
        let files = paths.found.iter().filter_map(|path| file_of(path, sources));
        let others: BTreeSet<_> = files.filter(|other| other != file).collect();
        all.insert(file.clone(), others);
    }
    all
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(stem, "lib" | "main") {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

fn top(path: &[String]) -> String {
    path.first().cloned().unwrap_or_default()
}

/// The file that defines the longest module prefix of a path.
fn file_of(path: &[String], sources: &Sources) -> Option<String> {
    (1..=path.len()).rev().find_map(|n| {
        let stem = path[..n].join("/");
        let names = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
        names.into_iter().find(|name| sources.contains_key(name))
    })
}

/// Collects paths that begin with `crate` or `super`, made absolute.
struct Paths {
    here: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Paths {
    fn add(&mut self, segments: &[String]) {
        let mut base = match segments.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super" | "self") => self.here.clone(),
            _ => return,
        };
        for segment in segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                name => base.push(name.to_owned()),
            }
        }
        self.found.push(base);
    }

    fn walk(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.walk(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.walk(prefix, item));
            }
            syn::UseTree::Name(name) => self.leaf(prefix, &name.ident.to_string()),
            syn::UseTree::Rename(rename) => self.leaf(prefix, &rename.ident.to_string()),
            _ => self.add(prefix),
        }
    }

    fn leaf(&mut self, prefix: &mut Vec<String>, name: &str) {
        prefix.push(name.to_owned());
        self.add(prefix);
        prefix.pop();
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // What a module re-exports from its own children is its roof, not an import.
        self.walk(&mut Vec::new(), &item.tree);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // Who may see an item is no import.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.first().is_some_and(|first| matches!(first.as_str(), "crate" | "super")) {
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }
}
