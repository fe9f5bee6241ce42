//! What a suite said: the cases that passed, those that failed, and those it did not run.
//!
//! Names in brackets are faults of the run itself. The verdict is judged against a floor, the fewest
//! cases that must have run, so that a suite which broke off or found nothing to do cannot pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::allow::Allow;
use crate::child::Ended;

/// The outcome of one suite.
#[derive(Debug)]
pub struct Verdict {
    suite: &'static str,
    passed: BTreeSet<String>,
    failed: BTreeMap<String, String>,
    skipped: Vec<String>,
}

impl Verdict {
    /// Nothing yet.
    pub fn new(suite: &'static str) -> Self {
        assert!(crate::allow::SUITES.contains(&suite), "{suite} is not in the list of suites");
        Self { suite, passed: BTreeSet::new(), failed: BTreeMap::new(), skipped: Vec::new() }
    }

    /// A case that passed, perhaps after it had been skipped.
    pub fn pass(&mut self, name: &str) {
        self.skipped.retain(|skip| !skip.starts_with(&format!("{name}: ")));
        assert!(self.passed.insert(name.into()), "{name} ran twice");
    }

    /// A case that failed, or in brackets a fault of the run.
    pub fn fail(&mut self, name: &str, why: impl Into<String>) {
        self.failed.insert(name.into(), why.into());
    }

    /// A case that the suite did not run, and why.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped.push(format!("{name}: {why}"));
    }

    /// A case that is a program: it passes if it ended well and `good` holds.
    pub fn program(&mut self, name: &str, ended: &Ended, good: bool, telling: &[&str]) {
        match ended.well() && good {
            true => self.pass(name),
            false => self.fail(name, ended.why(telling)),
        }
    }

    /// What failed so far.
    pub fn failed(&self) -> &BTreeMap<String, String> {
        &self.failed
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Self { suite, passed, failed, skipped } = self;
        let (passed, failed) = (passed.len(), failed.len());
        let skips: String = skipped.iter().map(|skip| format!("\n  skipped {skip}")).collect();
        format!("{suite}: {passed} passed, {failed} failed, {} skipped{skips}", skipped.len())
    }

    /// Everything that keeps this from being good; empty if nothing does.
    pub fn faults(&self, floor: usize, allow: &Allow) -> Vec<String> {
        let allowed = allow.names(self.suite);
        let borne = |name: &str| allowed.contains(name) && !name.starts_with('(');
        let mut faults: Vec<_> = (self.failed.iter())
            .filter(|(name, _)| !borne(name))
            .map(|(name, why)| format!("{} {name}: {why}", self.suite))
            .collect();
        let cases = self.failed.keys().filter(|name| !name.starts_with('(')).count();
        let ran = self.passed.len() + cases;
        if ran < floor {
            faults.push(format!("{} (ran too few): {ran} of at least {floor}", self.suite));
        }
        if self.passed.is_empty() {
            faults.push(format!("{} (none passed)", self.suite));
        }
        let stale = allowed.iter().filter(|name| !self.failed.contains_key(**name));
        let suite = self.suite;
        faults.extend(stale.map(|name| format!("{suite} {name}: stale, it is allowed to fail")));
        faults
    }

    /// Says the line.
    ///
    /// # Panics
    /// When there are faults.
    pub fn judge(&self, floor: usize) {
        println!("{}", self.line());
        let faults = self.faults(floor, &Allow::read());
        assert!(faults.is_empty(), "{}\n{}", self.line(), faults.join("\n"));
    }
}
