//! What lies in the directory: every file's header read, every unfinished file removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::seal::Key;

use super::header::{self, FIRST, HEADER_BYTES, Header, PieceId, Role, UNFINISHED};
use super::piece::Piece;
use super::segment::Segment;
use super::space::Ground;

/// A file whose header opened.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) key: Key,
    /// The file's length in bytes.
    pub(super) len: u64,
}

/// The files of a journal.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) log: BTreeMap<PieceId, Found>,
    pub(super) data: BTreeMap<PieceId, Found>,
    /// Files whose header does not open, and why. One that nothing confirmed needs is the remains
    /// of a crash.
    pub(super) bad: BTreeMap<(Role, PieceId), Error>,
}

impl Survey {
    /// Reads the directory.
    pub(super) fn of(ground: &Ground, journal: &Key) -> Result<Self> {
        let mut survey = Self::default();
        let names = ground.disk.list().map_err(Error::io("the journal's directory"))?;
        for name in names {
            if let Some(finished) = name.strip_suffix(UNFINISHED) {
                if header::parse_name(finished).is_some() {
                    ground.disk.remove(&name).map_err(Error::io(name))?;
                }
            } else if let Some((role, id)) = header::parse_name(&name) {
                survey.add(ground, journal, role, id)?;
            }
        }
        Ok(survey)
    }

    fn add(&mut self, ground: &Ground, journal: &Key, role: Role, id: PieceId) -> Result<()> {
        let name = header::name(role, id);
        let file = ground.disk.open(&name).map_err(Error::io(name.clone()))?;
        let mut bytes = [0; HEADER_BYTES];
        let n = file.read_at(0, &mut bytes).map_err(Error::io(name.clone()))?;
        let len = file.len().map_err(Error::io(name))?;
        match Header::decode(journal, role, id, &bytes[..n]) {
            Ok((header, key)) => {
                let found = Found { header, key, len };
                let files = if role == Role::Log { &mut self.log } else { &mut self.data };
                files.insert(id, found);
            }
            Err(error) if error.is_corrupt() => {
                self.bad.insert((role, id), error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The highest number of a segment, 0 if there is none.
    pub(super) fn number_max(&self) -> u32 {
        let bad = self.bad.keys().map(|(_, id)| id.segment);
        let good = self.log.keys().chain(self.data.keys()).map(|id| id.segment);
        good.chain(bad).max().unwrap_or(0)
    }

    /// The segments of one role, to be read and freed. One with a damaged header opens nothing.
    pub(super) fn segments(
        &self,
        ground: &Arc<Ground>,
        env: &Env,
        role: Role,
    ) -> BTreeMap<u32, Arc<Segment>> {
        let files = if role == Role::Log { &self.log } else { &self.data };
        let mut pieces: BTreeMap<u32, Vec<Piece>> = BTreeMap::new();
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        for (id, found) in files {
            let base = found.header.base;
            let piece = Piece { generation: id.generation, base, file: None };
            pieces.entry(id.segment).or_default().push(piece);
            ends.insert(id.segment, base + found.len.saturating_sub(FIRST));
        }
        for (_, id) in self.bad.keys().filter(|(of, _)| *of == role) {
            // Out of reach of every place: it is only there to be removed.
            let piece = Piece { generation: id.generation, base: u64::MAX, file: None };
            pieces.entry(id.segment).or_default().push(piece);
        }
        let made = pieces.into_iter().map(|(number, pieces)| {
            let some = files.iter().find(|(id, _)| id.segment == number).map(|(_, found)| found);
            let end = ends.get(&number).copied().unwrap_or(FIRST);
            let segment = match some {
                Some(found) => {
                    Segment::reopened(ground, &found.header, found.key.clone(), pieces, end)
                }
                None => Segment::unreadable(ground, env, role, number, pieces),
            };
            (number, Arc::new(segment))
        });
        made.collect()
    }
}
