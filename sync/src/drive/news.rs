//! What came from other devices, by path.

use std::collections::HashSet;
use std::time::Duration;

use crate::error::Result;
use crate::report::{Changed, DrivePath, NewsReport};

use super::parts::Drive;

impl Drive {
    /// What other devices changed since `from`, waiting a while for the first of it; without it, the
    /// moment to ask from.
    ///
    /// # Errors
    /// Of the index.
    pub fn news(&self, from: Option<u64>, wait: Duration) -> Result<NewsReport> {
        let tree = &self.parts.tree;
        let heard = tree.news(from, wait);
        let mut report = NewsReport { next: heard.next, missed: heard.missed, changed: Vec::new() };
        let mut said = HashSet::new();
        for change in &heard.changes {
            for path in tree.places(change)? {
                if said.insert(path.clone()) {
                    let path = DrivePath(path);
                    let gone = self.check_path(&path).is_err();
                    report.changed.push(Changed { path, gone });
                }
            }
        }
        Ok(report)
    }
}
