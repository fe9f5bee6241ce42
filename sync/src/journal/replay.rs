//! What a crash left: the chain followed, the torn tail told from damage, the records handed out.
//!
//! The chain is followed from the last piece that begins at or before the first record asked for.
//! Whenever a later piece says that it follows the block just read, the log goes on there and the
//! rest of the file is no part of it. Where a block does not open the log ends. That is a torn tail
//! if the piece is the last and nothing that is readable, before or behind, says that the missing
//! position was confirmed; else it is damage, and nothing is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};

use super::block::{self, Head, Kind, Nonce, Opened};
use super::header::{self, FIRST, PieceId, Role};
use super::place::{Place, Position, Run};
use super::segment::{Joint, Segment};
use super::space::Ground;
use super::survey::{Found, Survey};

/// A record that survived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Its number.
    pub position: Position,
    /// Where it lies: staged bytes inside it are read from there.
    pub place: Place,
    /// Its bytes.
    pub record: Vec<u8>,
}

/// The records after the applied position, in order.
pub struct Replay {
    pub(super) records: std::vec::IntoIter<(u64, Place, Arc<Segment>)>,
}

impl Iterator for Replay {
    type Item = Result<Replayed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (position, place, segment) = self.records.next()?;
        let opened = segment.read(place);
        Some(opened.and_then(|opened| {
            let record = opened.split().ok_or_else(|| segment.damaged(place.at, "no runs"))?.0;
            Ok(Replayed { position: Position(position), place, record })
        }))
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay({} records)", self.records.len())
    }
}

/// A record of the chain.
pub(super) struct Link {
    pub(super) position: u64,
    pub(super) place: Place,
    pub(super) runs: Vec<Run>,
    piece: PieceId,
    before: Nonce,
}

/// The chain as far as it goes.
pub(super) struct Chain {
    /// Records after the applied position.
    pub(super) records: Vec<Link>,
    /// The last piece that is part of it; later ones are not.
    pub(super) tail: PieceId,
    /// Its end.
    pub(super) joint: Joint,
    /// The last record of each segment that was followed.
    pub(super) lasts: BTreeMap<u32, u64>,
}

impl Chain {
    /// Follows the log from `applied` to its end; `None` if there is none at all.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the segment and offset that must be readable and is not.
    pub(super) fn follow(ground: &Ground, survey: &Survey, applied: u64) -> Result<Option<Self>> {
        let start = survey.log.iter().rfind(|(_, found)| found.header.first <= applied + 1);
        let Some((start, found)) = start else {
            let bad = survey.bad.iter().find(|((role, _), _)| *role == Role::Log);
            return match bad {
                Some((_, error)) => Err(again(error)),
                None if applied > 0 || !survey.log.is_empty() => Err(missing(applied + 1)),
                None => Ok(None),
            };
        };
        let joint = Joint { link: found.header.link, last: found.header.first - 1, confirmed: 0 };
        let (records, lasts) = (Vec::new(), BTreeMap::new());
        let chain = Self { records, tail: *start, joint, lasts };
        Walk::new(ground, survey, chain, applied, found)?.finish().map(Some)
    }

    /// Ends the chain before the first unconfirmed record whose data is not whole.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a confirmed record's data is not there.
    pub(super) fn check_data(&mut self, data: &BTreeMap<u32, Arc<Segment>>) -> Result<()> {
        let mut cut = None;
        for (index, record) in self.records.iter().enumerate() {
            let confirmed = record.position <= self.joint.confirmed;
            for run in &record.runs {
                let segment = data.get(&run.segment).filter(|segment| segment.covers(run));
                if confirmed && segment.is_none() {
                    let what = header::place(run.segment, run.at);
                    return Err(Error::corrupt(what, "confirmed bytes are gone"));
                }
                // Confirmed bytes are checked when they are read.
                if !confirmed && !segment.map_or(Ok(false), |segment| whole(segment, run))? {
                    cut = cut.or(Some(index));
                }
            }
        }
        if let Some(index) = cut {
            let record = &self.records[index];
            self.tail = record.piece;
            self.joint.link = record.before;
            self.joint.last = record.position - 1;
            self.records.truncate(index);
        }
        Ok(())
    }

    /// The data segments that unconfirmed records name.
    pub(super) fn unconfirmed_data(&self) -> BTreeSet<u32> {
        let records = self.records.iter().filter(|record| record.position > self.joint.confirmed);
        records.flat_map(|record| record.runs.iter().map(|run| run.segment)).collect()
    }
}

/// A walk along the chain.
struct Walk<'a> {
    ground: &'a Ground,
    survey: &'a Survey,
    /// By the nonce they follow, the last piece that says so.
    follows: BTreeMap<Nonce, PieceId>,
    applied: u64,
    chain: Chain,
    found: &'a Found,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(
        ground: &'a Ground,
        survey: &'a Survey,
        chain: Chain,
        applied: u64,
        found: &'a Found,
    ) -> Result<Self> {
        // In ascending order, so that of several that follow one block the last one stays.
        let follows = survey.log.iter().map(|(id, found)| (found.header.link, *id)).collect();
        let (at, bytes) = (found.header.base, Vec::new());
        let mut walk = Self { ground, survey, follows, applied, chain, found, at, bytes };
        walk.enter(found)?;
        Ok(walk)
    }

    fn finish(mut self) -> Result<Chain> {
        loop {
            let next = self.follows.get(&self.chain.joint.link).copied();
            if let Some(id) = next.filter(|id| *id > self.chain.tail) {
                let found = &self.survey.log[&id];
                let (last, first) = (self.chain.joint.last, found.header.first);
                // The index may have been ahead of a log that lost its tail.
                if first <= last || (first > last + 1 && first > self.applied + 1) {
                    return Err(missing(last + 1));
                }
                self.chain.tail = id;
                self.enter(found)?;
            } else if let Some(opened) = self.block() {
                self.step(opened)?;
            } else {
                break;
            }
        }
        self.judge()?;
        Ok(self.chain)
    }

    fn enter(&mut self, found: &'a Found) -> Result<()> {
        let name = header::name(Role::Log, found.header.id);
        let file = self.ground.disk.open(&name).map_err(Error::io(name.clone()))?;
        let len = usize::try_from(found.len).map_err(|_| self.damaged("it cannot be that long"))?;
        self.bytes = vec![0; len];
        let n = file.read_at(0, &mut self.bytes).map_err(Error::io(name))?;
        self.bytes.truncate(n);
        self.found = found;
        self.at = found.header.base;
        let joint = &mut self.chain.joint;
        joint.confirmed = joint.confirmed.max(found.header.confirmed);
        joint.last = found.header.first - 1;
        self.chain.lasts.insert(found.header.id.segment, joint.last);
        Ok(())
    }

    /// The bytes of the piece from an offset of the segment on.
    fn bytes_at(&self, at: u64) -> &[u8] {
        let start = usize::try_from(at - self.found.header.base + FIRST).unwrap_or(usize::MAX);
        self.bytes.get(start..).unwrap_or(&[])
    }

    /// The next block, if it opens and follows the last one.
    fn block(&self) -> Option<Opened> {
        let opened = block::open(&self.found.key, self.at, self.bytes_at(self.at))?;
        let last = self.chain.joint.last;
        let position = match opened.head.kind {
            Kind::Record => last + 1,
            Kind::Marker => last,
            Kind::Data => return None,
        };
        let follows = opened.head.link == self.chain.joint.link;
        (follows && opened.head.position == position).then_some(opened)
    }

    fn step(&mut self, opened: Opened) -> Result<()> {
        let Head { len, kind, position, confirmed, link: before, nonce, .. } = opened.head;
        let piece = self.chain.tail;
        let place = Place { segment: piece.segment, at: self.at, len };
        if kind == Kind::Record {
            let runs = opened.split().ok_or_else(|| self.damaged("a record names no runs"))?.1;
            if position > self.applied {
                self.chain.records.push(Link { position, place, runs, piece, before });
            }
        }
        let confirmed = confirmed.max(self.chain.joint.confirmed);
        self.chain.joint = Joint { link: nonce, last: position, confirmed };
        self.chain.lasts.insert(piece.segment, position);
        self.at = place.end();
        Ok(())
    }

    /// Whether the chain may end here.
    fn judge(&mut self) -> Result<()> {
        let tail = self.chain.tail;
        let mut bad = self.survey.bad.iter();
        if let Some((_, error)) = bad.find(|((role, id), _)| *role == Role::Log && *id > tail) {
            return Err(again(error));
        }
        if self.survey.log.keys().any(|id| *id > tail) {
            return Err(self.damaged("a block before the end of the log does not open"));
        }
        let joint = self.chain.joint;
        if joint.confirmed.max(self.confirmed_behind()) > joint.last {
            return Err(self.damaged("a confirmed block does not open"));
        }
        Ok(())
    }

    /// The last position that readable blocks behind the end of the chain call confirmed.
    fn confirmed_behind(&self) -> u64 {
        let last = self.chain.joint.last;
        let rest = self.bytes_at(self.at);
        let starts = (1..rest.len()).filter(|start| {
            // Nearly every offset is ruled out by its header, in the zeros by its first bytes.
            let head = Head::decode(&rest[*start..]);
            head.is_some_and(|head| head.kind != Kind::Data && head.confirmed > last)
        });
        let opened = starts.filter_map(|start| {
            block::open(&self.found.key, self.at + start as u64, &rest[start..])
        });
        opened.map(|opened| opened.head.confirmed).max().unwrap_or(0)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::corrupt(header::place(self.found.header.id.segment, self.at), why)
    }
}

/// Whether all blocks of a run open and follow one another.
fn whole(segment: &Segment, run: &Run) -> Result<bool> {
    let mut at = run.at;
    let mut link = None;
    let mut bytes = vec![0; block::SEALED_BYTES_MAX];
    while at < run.end {
        let n = segment.read_bytes(at, &mut bytes)?;
        let Some(opened) = block::open(&segment.key, at, &bytes[..n]) else {
            return Ok(false);
        };
        let follows = link.is_none_or(|link| link == opened.head.link);
        if opened.head.kind != Kind::Data || !follows {
            return Ok(false);
        }
        link = Some(opened.head.nonce);
        at += opened.head.block_bytes();
    }
    Ok(at == run.end)
}

fn missing(position: u64) -> Error {
    Error::corrupt("the journal", format!("record {position} is missing with its segment"))
}

fn again(error: &Error) -> Error {
    match error {
        Error::Corrupt { what, why } => Error::corrupt(what.clone(), why),
        other => Error::corrupt("the journal", other),
    }
}
