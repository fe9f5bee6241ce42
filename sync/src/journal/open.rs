//! Opening: what survived is found, made durable, and the log goes on in a new segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::seal::{Key, NONCE_BYTES};

use super::header::{self, PieceId, Role};
use super::place::Place;
use super::replay::Chain;
use super::segment::{Joint, Segment};
use super::space::Ground;
use super::survey::Survey;

/// What a journal begins with.
pub(super) struct Begun {
    /// All segments, the one that the log goes on in too.
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Where the log goes on.
    pub(super) tail: Arc<Segment>,
    /// The next record's position.
    pub(super) next: u64,
    /// The records to replay.
    pub(super) records: Vec<(u64, Place, Arc<Segment>)>,
}

/// Finds what survived and begins a log segment behind it.
pub(super) fn begin(ground: &Arc<Ground>, key: &Key, env: &Env, applied: u64) -> Result<Begun> {
    let survey = Survey::of(ground, key)?;
    let mut logs = survey.segments(ground, env, Role::Log);
    let mut segments = survey.segments(ground, env, Role::Data);
    let mut joint = Joint { link: [0; NONCE_BYTES], last: applied, confirmed: applied };
    let (mut records, mut stale) = (Vec::new(), Vec::new());
    if let Some(mut chain) = Chain::follow(ground, &survey, applied)? {
        chain.check_data(&segments)?;
        settle(ground, &chain, &logs, &segments)?;
        stale.extend(survey.log.keys().copied().filter(|id| *id > chain.tail));
        // The index may have been ahead of a log that lost its tail.
        let last = chain.joint.last.max(applied);
        joint = Joint { link: chain.joint.link, last, confirmed: last };
        for (number, segment) in &logs {
            segment.named_at(chain.lasts.get(number).copied().unwrap_or(applied));
        }
        for link in chain.records {
            link.runs.iter().for_each(|run| segments[&run.segment].named_at(link.position));
            records.push((link.position, link.place, logs[&link.place.segment].clone()));
        }
    }
    let number = survey.number_max() + 1;
    let tail = Arc::new(Segment::create_log(ground, key, env, number, joint)?);
    // Only now that the log goes on elsewhere they are no part of it for good.
    for id in stale {
        discard(ground, &mut logs, id)?;
    }
    segments.append(&mut logs);
    segments.insert(number, tail.clone());
    Ok(Begun { segments, tail, next: joint.last + 1, records })
}

/// Makes what survived durable, so that a second crash takes nothing back that was shown after the
/// first.
fn settle(
    ground: &Ground,
    chain: &Chain,
    logs: &BTreeMap<u32, Arc<Segment>>,
    data: &BTreeMap<u32, Arc<Segment>>,
) -> Result<()> {
    // All log pieces but the last were durable before the next one was begun.
    logs[&chain.tail.segment].sync_again(Some(chain.tail.generation))?;
    let unconfirmed = chain.unconfirmed_data();
    unconfirmed.iter().try_for_each(|number| data[number].sync_again(None))?;
    if !unconfirmed.is_empty() {
        ground.disk.sync_dir().map_err(Error::io("the journal's directory"))?;
    }
    Ok(())
}

/// Removes a log piece that is no part of the log any more.
fn discard(ground: &Ground, logs: &mut BTreeMap<u32, Arc<Segment>>, id: PieceId) -> Result<()> {
    let name = header::name(Role::Log, id);
    ground.disk.remove(&name).map_err(Error::io(name))?;
    if logs.get(&id.segment).is_some_and(|segment| segment.forget(id.generation)) {
        logs.remove(&id.segment);
    }
    Ok(())
}
