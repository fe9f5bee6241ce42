//! The failures that are known and borne: `tests/conformance/allow.txt`.
//!
//! A line is `suite name  # why`; the reason must be given. What stands in brackets is no case of a
//! suite but something about the run - that it ended early, that the mount died - and can never be
//! allowed. A line whose case did not fail is stale, which is a failure too.

use std::collections::BTreeSet;
use std::path::Path;

/// Every suite that there is, by the name that the list uses.
pub const SUITES: &[&str] = &[
    "pjdfstest",
    "pjdfstest-nobody",
    "fsx",
    "fsx-long",
    "fsx-million",
    "fsx-million-all",
    "fsx-million-punch",
    "stress-ng",
    "stress-ng-long",
    "fio",
    "fio-long",
    "dbench",
    "dbench-long",
    "fs_mark",
    "fs_mark-long",
    "sqlite",
];

/// The list.
#[derive(Debug, Default)]
pub struct Allow(BTreeSet<(String, String)>);

impl Allow {
    /// The list of this source tree.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/allow.txt");
        let text = std::fs::read_to_string(&path).unwrap();
        Self::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    /// A list from its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = BTreeSet::new();
        for line in text.lines() {
            let (rule, why) = line.split_once('#').unwrap_or((line, ""));
            let words: Vec<_> = rule.split_whitespace().collect();
            match words[..] {
                [] => continue,
                [suite, _] if !SUITES.contains(&suite) => return Err(format!("no suite {suite}")),
                [_, name] if name.starts_with('(') => {
                    return Err(format!("{name} is never allowed"));
                }
                [_, _] if why.trim().is_empty() => return Err(format!("no reason: {line}")),
                [suite, name] => lines.insert((suite.into(), name.into())),
                _ => return Err(format!("not `suite name  # why`: {line}")),
            };
        }
        Ok(Self(lines))
    }

    /// The names that may fail in `suite`.
    pub fn names(&self, suite: &str) -> BTreeSet<&str> {
        self.0.iter().filter(|(of, _)| of == suite).map(|(_, name)| name.as_str()).collect()
    }
}

#[test]
fn the_list_of_this_tree_can_be_read() {
    Allow::read();
}

#[test]
fn a_line_without_suite_name_or_reason_is_refused() {
    let good = "# all of it is known\n\nfsx punch.1  # not there yet\n";
    assert_eq!(Allow::parse(good).unwrap().names("fsx"), BTreeSet::from(["punch.1"]));
    let bad =
        ["fsy punch.1 # why", "fsx (missing) # why", "fsx punch.1", "fsx # why", "fsx a b # c"];
    for line in bad {
        assert!(Allow::parse(line).is_err(), "{line}");
    }
}
