//! The verifier: random challenges that tell whether a remote still holds what it said stored.
//!
//! A sample is a 4 KiB group drawn uniformly over all bytes of the layers a remote should hold,
//! with fresh randomness. A wrong, missing or refused answer is a failure; an absent remote is not
//! measured at all. Every audit goes into the ledger. A layer found wanting loses its mark as held,
//! so that it is sent again, and is named by every audit until that has succeeded or an audit of
//! everything found it whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::{Env, WallMs};

use crate::cache::{Cache, LayerRef};
use crate::error::Result;
use crate::index::Index;
use crate::index::layers::LayerNumber;
use crate::index::ledger::{Audit, Damage};
use crate::progress::Progress;
use crate::remotes::{Answer, CHALLENGE_BYTES, Remote, Remotes};
use crate::report::{Phase, Samples};

/// Challenges sent in one request.
const BATCH: usize = 128;

/// Layers read from the index in one step.
const STEP_LAYERS: usize = 4_096;

/// A layer with challenges that were not answered rightly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The layer.
    pub layer: LayerNumber,
    /// Its name.
    pub id: BlobId,
    /// The first place in the layer, in bytes; none when the whole layer is gone.
    pub offset: Option<u64>,
    /// How many challenges.
    pub count: u64,
    /// Which check failed first.
    pub why: String,
}

/// What one audit of one place found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes the samples were drawn from.
    pub bytes: u64,
    /// Layers they were drawn from.
    pub layers: u64,
    /// Challenges answered, rightly or wrongly.
    pub samples: u64,
    /// Those that were not answered rightly, layer by layer.
    pub failures: BTreeMap<LayerNumber, Failure>,
    /// Why there were no further answers, if the remote fell silent.
    pub silent: Option<String>,
}

impl Found {
    /// Challenges that were not answered rightly.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    /// Adds a challenge that was not answered rightly.
    fn fail(&mut self, layer: LayerNumber, id: BlobId, offset: Option<u64>, why: String) {
        let known = self.failures.entry(layer);
        let first = Failure { layer, id, offset, count: 0, why };
        let failure = known.or_insert(first);
        failure.count += 1;
        failure.offset = failure.offset.zip(offset).map(|(known, offset)| known.min(offset));
    }
}

/// Challenges remotes and checks the cache.
pub struct Verifier {
    env: Env,
    index: Arc<Index>,
    cache: Arc<Cache>,
    remotes: Arc<Remotes>,
}

/// The layers an audit draws from, addressable by byte.
struct Field {
    layers: Vec<(LayerNumber, LayerRef)>,
    /// Where each layer begins in the row of all.
    starts: Vec<u64>,
    bytes: u64,
}

impl Verifier {
    /// A verifier over these parts.
    pub fn new(env: Env, index: Arc<Index>, cache: Arc<Cache>, remotes: Arc<Remotes>) -> Self {
        Self { env, index, cache, remotes }
    }

    /// Audits one remote over all layers it should hold, or those of them in `only`.
    ///
    /// # Errors
    /// Of the index; what the remote does wrong is in the result.
    pub async fn audit(
        &self,
        remote: &Remote,
        samples: Samples,
        only: Option<&HashSet<LayerNumber>>,
        progress: &Progress,
    ) -> Result<Found> {
        let began = self.env.wall_ms();
        let field = self.field(remote, only, matches!(samples, Samples::All))?;
        let mut found =
            Found { bytes: field.bytes, layers: field.layers.len() as u64, ..Found::default() };
        progress.expect(Phase::Verify, 0, field.count(samples));
        let mut draws = field.draws(samples, &self.env);
        loop {
            progress.check()?;
            let batch: Vec<_> = draws.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            self.challenge(remote, &batch, &mut found).await;
            progress.advance(Phase::Verify, 0, batch.len() as u64);
            if found.silent.is_some() {
                break;
            }
        }
        drop(draws);
        let whole = matches!(samples, Samples::All) && found.silent.is_none();
        // The ledger has what was answered now; what was lost before is barred by itself.
        if found.samples > 0 && (only.is_none() || !found.failures.is_empty()) {
            self.write(remote, &found, whole && only.is_none())?;
        }
        self.settle_damage(remote, only, whole.then_some(began), &mut found)?;
        Ok(found)
    }

    /// A few challenges over all that one remote should hold, towards an audit that the caller writes
    /// into the ledger when there are enough of them; a new failure goes there at once.
    ///
    /// # Errors
    /// As [`Verifier::audit`].
    pub async fn spot(&self, remote: &Remote, count: u64) -> Result<Found> {
        let field = self.field(remote, None, false)?;
        let mut found =
            Found { bytes: field.bytes, layers: field.layers.len() as u64, ..Found::default() };
        let asked: Vec<_> = field.draws(Samples::Count(count), &self.env).take(BATCH).collect();
        if !asked.is_empty() {
            self.challenge(remote, &asked, &mut found).await;
        }
        if !found.failures.is_empty() {
            self.write(remote, &found, false)?;
        }
        self.settle_damage(remote, None, None, &mut found)?;
        Ok(found)
    }

    /// Asks for `count` random groups of one layer; whether all answers were right, else why not.
    ///
    /// # Errors
    /// Of the index.
    pub async fn prove(
        &self,
        remote: &Remote,
        layers: &[(LayerNumber, LayerRef)],
        count: u64,
    ) -> Result<BTreeMap<LayerNumber, String>> {
        let mut unproven = BTreeMap::new();
        let draw = |layer: &LayerRef| {
            self.env.random_below(layer.len.div_ceil(CHALLENGE_BYTES)) * CHALLENGE_BYTES
        };
        let targets: Vec<_> =
            layers.iter().flat_map(|(n, layer)| (0..count).map(|_| (*n, *layer))).collect();
        let mut failures = 0;
        for batch in targets.chunks(BATCH) {
            let asked: Vec<_> = batch.iter().map(|(_, layer)| (*layer, draw(layer))).collect();
            let answers = self.remotes.challenge(remote, &asked).await;
            for (((number, _), (_, offset)), answer) in batch.iter().zip(asked).zip(answers) {
                if let Answer::Wrong(_) | Answer::Missing(_) = answer {
                    failures += 1;
                    let offset = matches!(answer, Answer::Wrong(_)).then_some(offset);
                    let at = self.env.wall_ms();
                    let damage = Damage { layer: *number, at, offset };
                    self.index.add_damage(remote.number, &damage)?;
                }
                if let Answer::Wrong(why) | Answer::Missing(why) | Answer::None(why) = answer {
                    unproven.entry(*number).or_insert(why);
                }
            }
        }
        if failures > 0 {
            // Whoever was caught has no clean record any more.
            let at = self.env.wall_ms().0;
            let bytes = layers.iter().map(|(_, layer)| layer.len).sum();
            let samples = targets.len() as u64;
            let audit = Audit { at, samples, failures, bytes, whole: false };
            self.index.add_audit(remote.number, &audit)?;
        }
        Ok(unproven)
    }

    /// Reads every whole layer of the cache and checks its hash.
    ///
    /// # Errors
    /// Of the index or the disk; damage is in the result.
    pub fn check_local(
        &self,
        only: Option<&HashSet<LayerNumber>>,
        progress: &Progress,
    ) -> Result<Found> {
        let mut found = Found::default();
        let mut after = LayerNumber(0);
        loop {
            let step = self.index.layers_all(after, STEP_LAYERS)?;
            let Some(last) = step.last() else { return Ok(found) };
            after = *last;
            for number in step {
                if only.is_some_and(|only| !only.contains(&number)) {
                    continue;
                }
                progress.check()?;
                self.check_layer(number, &mut found)?;
                progress.advance(Phase::Verify, 0, 1);
            }
        }
    }

    fn check_layer(&self, number: LayerNumber, found: &mut Found) -> Result<()> {
        // One that was collected since it was listed is gone.
        let Some(row) = self.index.layer_if_any(number)? else { return Ok(()) };
        let layer = LayerRef { id: row.id, len: row.len };
        match self.cache.check(&layer) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(e) if e.is_corrupt() => found.fail(number, row.id, None, e.to_string()),
            Err(e) => return Err(e),
        }
        found.bytes += row.len;
        found.layers += 1;
        found.samples += row.len.div_ceil(CHALLENGE_BYTES);
        Ok(())
    }

    async fn challenge(
        &self,
        remote: &Remote,
        batch: &[(LayerNumber, LayerRef, u64)],
        found: &mut Found,
    ) {
        let asked: Vec<_> = batch.iter().map(|(_, layer, at)| (*layer, *at)).collect();
        let answers = self.remotes.challenge(remote, &asked).await;
        for ((number, layer, at), answer) in batch.iter().zip(answers) {
            match answer {
                Answer::Right => {}
                Answer::Wrong(why) => found.fail(*number, layer.id, Some(*at), why),
                Answer::Missing(why) => found.fail(*number, layer.id, None, why),
                Answer::None(why) => {
                    found.silent = Some(why);
                    continue;
                }
            }
            found.samples += 1;
        }
    }

    /// Writes an audit into the ledger.
    fn write(&self, remote: &Remote, found: &Found, whole: bool) -> Result<()> {
        let audit = Audit {
            at: self.env.wall_ms().0,
            samples: found.samples,
            failures: found.failed(),
            bytes: found.bytes,
            whole,
        };
        self.index.add_audit(remote.number, &audit)
    }

    /// Remembers what is damaged, and names what was damaged before; what an audit of everything,
    /// begun after it was found, saw whole again counts as held.
    fn settle_damage(
        &self,
        remote: &Remote,
        only: Option<&HashSet<LayerNumber>>,
        whole_since: Option<WallMs>,
        found: &mut Found,
    ) -> Result<()> {
        let at = self.env.wall_ms();
        let failed: HashMap<_, _> =
            found.failures.values().map(|failure| (failure.layer, failure.offset)).collect();
        for damage in self.index.damages(remote.number)? {
            let asked = only.is_none_or(|only| only.contains(&damage.layer));
            if !asked || failed.contains_key(&damage.layer) {
                continue;
            }
            let Some(row) = self.index.layer_if_any(damage.layer)? else { continue };
            if whole_since.is_some_and(|since| damage.at <= since) {
                self.index.set_held(remote.number, damage.layer, at)?;
                continue;
            }
            let why = "it was found damaged before and has not been sent again since".to_owned();
            let Damage { layer, offset, .. } = damage;
            found.fail(layer, row.id, offset, why);
        }
        for (layer, offset) in failed {
            self.index.add_damage(remote.number, &Damage { layer, at, offset })?;
        }
        Ok(())
    }

    /// What a remote holds; with `lost`, also what it was caught without.
    fn field(
        &self,
        remote: &Remote,
        only: Option<&HashSet<LayerNumber>>,
        lost: bool,
    ) -> Result<Field> {
        let mut field = Field { layers: Vec::new(), starts: Vec::new(), bytes: 0 };
        let mut after = LayerNumber(0);
        loop {
            let step = match lost {
                true => self.index.layers_owed(remote.number, after, STEP_LAYERS)?,
                false => self.index.layers_held(remote.number, after, STEP_LAYERS)?,
            };
            let Some(last) = step.last() else { return Ok(field) };
            after = last.0;
            for (number, id, len) in step {
                if only.is_none_or(|only| only.contains(&number)) {
                    field.starts.push(field.bytes);
                    field.layers.push((number, LayerRef { id, len }));
                    field.bytes += len;
                }
            }
        }
    }
}

impl Field {
    fn count(&self, samples: Samples) -> u64 {
        match samples {
            Samples::Count(n) if self.bytes > 0 => n,
            Samples::Count(_) => 0,
            Samples::All => self.layers.iter().map(|(_, l)| l.len.div_ceil(CHALLENGE_BYTES)).sum(),
        }
    }

    /// The groups to ask for: drawn uniformly over the bytes, or each once.
    fn draws<'a>(
        &'a self,
        samples: Samples,
        env: &'a Env,
    ) -> Box<dyn Iterator<Item = (LayerNumber, LayerRef, u64)> + Send + 'a> {
        match samples {
            Samples::All => Box::new(self.layers.iter().flat_map(|(number, layer)| {
                let groups = 0..layer.len.div_ceil(CHALLENGE_BYTES);
                groups.map(|group| (*number, *layer, group * CHALLENGE_BYTES))
            })),
            Samples::Count(_) => {
                let draws = (0..self.count(samples)).map(|_| self.at(env.random_below(self.bytes)));
                Box::new(draws)
            }
        }
    }

    fn at(&self, byte: u64) -> (LayerNumber, LayerRef, u64) {
        let n = self.starts.partition_point(|start| *start <= byte) - 1;
        let (number, layer) = self.layers[n];
        (number, layer, (byte - self.starts[n]) / CHALLENGE_BYTES * CHALLENGE_BYTES)
    }
}

/// The probability that a loss of the fraction `loss` went unseen by `samples` uniform challenges.
pub fn unseen(loss: f64, samples: u64) -> f64 {
    (1.0 - loss).powf(samples as f64)
}

/// The smallest number of uniform challenges that miss a loss of the fraction `loss` with a
/// probability of at most 1 − `confidence`.
pub fn samples_for(confidence: f64, loss: f64) -> u64 {
    ((1.0 - confidence).ln() / (1.0 - loss).ln()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_counts_match_the_published_table() {
        let table = [
            (0.01, 0.95, 299),
            (0.01, 0.99, 459),
            (0.01, 0.999, 688),
            (0.1, 0.999, 66),
            (0.005, 0.99, 919),
            (0.001, 0.95, 2_995),
        ];
        for (loss, confidence, samples) in table {
            assert_eq!(samples_for(confidence, loss), samples, "{loss} {confidence}");
            assert!(unseen(loss, samples) <= 1.0 - confidence);
            assert!(unseen(loss, samples - 1) > 1.0 - confidence);
        }
    }
}
