//! Evicting: dropping local copies of what remotes have proven to hold.
//!
//! Must: nothing is dropped unless as many remotes as the policy asks hold the layer, each with a
//! clean audit that is fresh, and each of them has just answered [`FRESH_CHALLENGES`] random
//! challenges on that very layer. Anything short of it is kept, with the reason.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rdrivefs_remote::env::Env;

use crate::cache::{Cache, LayerRef};
use crate::error::Result;
use crate::index::Index;
use crate::index::layers::{LayerNumber, RemoteNumber};
use crate::progress::Progress;
use crate::remotes::Remotes;
use crate::report::{KeptReason, Phase};
use crate::verify::{Verifier, samples_for};

/// Challenges each holder answers on a layer right before it is dropped.
pub const FRESH_CHALLENGES: u64 = 8;

/// Layers proven and dropped in one step, so that progress shows and little is asked in vain.
const STEP_LAYERS: usize = 64;

/// What a layer must have behind it before it may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Remotes that must hold it.
    pub copies: usize,
    /// How old a clean audit of each of them may be.
    pub audit_age_ms: u64,
    /// The confidence of such an audit.
    pub confidence: f64,
    /// The loss it must not have missed.
    pub loss: f64,
}

/// A layer somebody wants dropped, wholly or in part.
#[derive(Debug, Clone)]
pub struct Want {
    /// Which.
    pub number: LayerNumber,
    /// Its name and length.
    pub layer: LayerRef,
    /// Which bytes of it.
    pub ranges: Vec<Range<u64>>,
}

/// A layer that stays, and why.
#[derive(Debug, Clone)]
pub struct Stays {
    /// Which.
    pub number: LayerNumber,
    /// Its name and length.
    pub layer: LayerRef,
    /// The reason.
    pub reason: KeptReason,
    /// The reason with names.
    pub detail: String,
}

/// What an eviction did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Evicted {
    /// Disk bytes freed.
    pub bytes: u64,
    /// Layers of which something went.
    pub layers: u64,
    /// Challenges sent on the way.
    pub challenges: u64,
    /// What stays.
    pub stays: Vec<Stays>,
}

/// Drops local copies.
pub struct Evictor {
    env: Env,
    index: Arc<Index>,
    cache: Arc<Cache>,
    remotes: Arc<Remotes>,
    verifier: Arc<Verifier>,
    rule: Rule,
}

/// For each layer the remotes that hold it and whose audits suffice.
type Holders = BTreeMap<LayerNumber, Vec<RemoteNumber>>;

impl Rule {
    /// Challenges that make an audit.
    pub fn audit_samples(&self) -> u64 {
        samples_for(self.confidence, self.loss)
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self { copies: 1, audit_age_ms: 7 * 24 * 3_600_000, confidence: 0.999, loss: 0.01 }
    }
}

impl Evictor {
    /// An evictor over these parts, bound to `rule`.
    pub fn new(
        env: Env,
        index: Arc<Index>,
        cache: Arc<Cache>,
        remotes: Arc<Remotes>,
        verifier: Arc<Verifier>,
        rule: Rule,
    ) -> Self {
        Self { env, index, cache, remotes, verifier, rule }
    }

    /// Drops what may be dropped of `wants`; with `dry_run` only says what would be, after the same
    /// challenges.
    ///
    /// # Errors
    /// Of the index or the disk, or when cancelled.
    pub async fn evict(
        &self,
        wants: Vec<Want>,
        dry_run: bool,
        progress: &Progress,
    ) -> Result<Evicted> {
        let mut evicted = Evicted::default();
        let audited = self.audited()?;
        progress.expect(Phase::Evict, 0, wants.len() as u64);
        for step in wants.chunks(STEP_LAYERS) {
            progress.check()?;
            let (candidates, holders) = self.screen(step, &audited, &mut evicted)?;
            let unproven = self.challenge(&candidates, &holders, &mut evicted).await?;
            for want in candidates {
                self.settle(want, &holders, &unproven, dry_run, &mut evicted)?;
            }
            progress.advance(Phase::Evict, 0, step.len() as u64);
        }
        Ok(evicted)
    }

    /// Remotes that lack a fresh clean audit, without which nothing they hold may go.
    ///
    /// # Errors
    /// Of the index.
    pub fn unaudited(&self) -> Result<Vec<RemoteNumber>> {
        let lacking = |(remote, why): (_, Option<String>)| why.map(|_| remote);
        Ok(self.audited()?.into_iter().filter_map(lacking).collect())
    }

    /// For each remote, why its audits do not suffice, if they do not.
    fn audited(&self) -> Result<BTreeMap<RemoteNumber, Option<String>>> {
        let samples = self.rule.audit_samples();
        let now = self.env.wall_ms();
        let verdict = |name: &str, audit: Option<crate::index::ledger::Audit>| match audit {
            Some(audit) if audit.is_fresh(now, self.rule.audit_age_ms) => None,
            Some(audit) if audit.failures > 0 => Some(format!("{name} failed its last audit")),
            Some(_) => Some(format!("the last clean audit of {name} is too old")),
            None => Some(format!("{name} has no clean audit yet")),
        };
        let remotes = self.remotes.all();
        remotes
            .iter()
            .map(|remote| {
                let audit = self.index.newest_audit(remote.number, samples)?;
                Ok((remote.number, verdict(&remote.name, audit)))
            })
            .collect()
    }

    /// Sorts out what is not here or has too few audited holders.
    fn screen(
        &self,
        wants: &[Want],
        audited: &BTreeMap<RemoteNumber, Option<String>>,
        evicted: &mut Evicted,
    ) -> Result<(Vec<Want>, Holders)> {
        let mut candidates = Vec::new();
        let mut holders = BTreeMap::new();
        for want in wants {
            if self.cache.present(&want.layer)? == 0 {
                continue;
            }
            let held_by = self.index.holders(want.number)?;
            let mut good = held_by.clone();
            good.retain(|remote| matches!(audited.get(remote), Some(None)));
            if good.len() >= self.rule.copies {
                holders.insert(want.number, good);
                candidates.push(want.clone());
                continue;
            }
            let why = held_by.iter().find_map(|remote| audited.get(remote).cloned().flatten());
            let pushed = held_by.len() >= self.rule.copies;
            let reason = if pushed { KeptReason::NotProven } else { KeptReason::NotPushed };
            let count = format!("held by {} of {} remotes", held_by.len(), self.rule.copies);
            evicted.stay(want, reason, why.filter(|_| pushed).unwrap_or(count));
        }
        Ok((candidates, holders))
    }

    async fn challenge(
        &self,
        candidates: &[Want],
        holders: &Holders,
        evicted: &mut Evicted,
    ) -> Result<BTreeMap<(RemoteNumber, LayerNumber), String>> {
        let mut unproven = BTreeMap::new();
        for remote in self.remotes.all() {
            let asked: Vec<_> = candidates
                .iter()
                .filter(|want| holders[&want.number].contains(&remote.number))
                .map(|want| (want.number, want.layer))
                .collect();
            if asked.is_empty() {
                continue;
            }
            evicted.challenges += asked.len() as u64 * FRESH_CHALLENGES;
            let failed = self.verifier.prove(&remote, &asked, FRESH_CHALLENGES).await?;
            for (layer, why) in failed {
                unproven.insert((remote.number, layer), format!("{}: {why}", remote.name));
            }
        }
        Ok(unproven)
    }

    fn settle(
        &self,
        want: Want,
        holders: &Holders,
        unproven: &BTreeMap<(RemoteNumber, LayerNumber), String>,
        dry_run: bool,
        evicted: &mut Evicted,
    ) -> Result<()> {
        let mut proven = 0;
        let mut why = None;
        for remote in &holders[&want.number] {
            match unproven.get(&(*remote, want.number)) {
                None => proven += 1,
                Some(reason) => why = Some(reason.clone()),
            }
        }
        if proven < self.rule.copies {
            evicted.stay(&want, KeptReason::NotProven, why.unwrap_or_default());
            return Ok(());
        }
        let freed = match dry_run {
            true => self.cache.present(&want.layer)?.min(total(&want.ranges)),
            false => self.cache.evict(&want.layer, &want.ranges)?,
        };
        evicted.bytes += freed;
        evicted.layers += u64::from(freed > 0);
        Ok(())
    }
}

impl Evicted {
    fn stay(&mut self, want: &Want, reason: KeptReason, detail: String) {
        self.stays.push(Stays { number: want.number, layer: want.layer, reason, detail });
    }
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
