//! Merging: what other devices' commits say, applied in causal order.
//!
//! A commit is applied after everything its maker had seen. It is refused, and its log stays where
//! it is, when it does not open, breaks the rule of Lamport times or says what no record may say;
//! the other logs go on. All that can be refused is looked at before the tree is touched; its
//! records, that it was applied, and its Lamport time are written in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::entry::{Entry, LogId};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::member::EpochId;

use crate::error::{Error, Result};
use crate::id::{DeviceNumber, FileId};
use crate::index::layers::{ChunkPlace, LayerNumber, LayerSecret};
use crate::index::{Index, LAMPORT};
use crate::keyring::Keyring;
use crate::log::Log;
use crate::progress::Progress;
use crate::record::{Commit, Content, Record, Source as Place, Stamp};
use crate::report::Phase;
use crate::tree::extents::{Extents, Source};
use crate::tree::{Attributes, Merging, Tree, Version};

/// Applies commits.
pub struct Merger {
    keyring: Arc<Keyring>,
    index: Arc<Index>,
    tree: Arc<Tree>,
    log: Arc<Log>,
}

/// A record that can be applied: what it refers to is known.
enum Resolved {
    Version(FileId, Version),
    Name(PublicKey, String),
    Other(Record),
}

impl Merger {
    /// A merger over these parts.
    pub fn new(keyring: Arc<Keyring>, index: Arc<Index>, tree: Arc<Tree>, log: Arc<Log>) -> Self {
        Self { keyring, index, tree, log }
    }

    /// Applies every accepted commit that is not yet; returns how many.
    ///
    /// # Errors
    /// Of the index; or the first refusal, when everything that could be applied was.
    pub fn apply_all(&self, progress: &Progress) -> Result<u64> {
        self.keyring.learn(&self.log.membership())?;
        let mut applied = 0;
        let mut refused: HashMap<LogId, Error> = HashMap::new();
        loop {
            let before = applied;
            for log in self.index.logs_unapplied()? {
                if refused.contains_key(&log) {
                    continue;
                }
                match self.apply_log(&log, &mut applied, progress) {
                    Err(e) if e.is_refusal() => {
                        tracing::warn!(?log, error = %e, "a commit is refused");
                        refused.insert(log, e);
                    }
                    done => done?,
                }
            }
            if applied == before {
                return refused.into_values().next().map_or(Ok(applied), Err);
            }
        }
    }

    /// Applies what can be of one log, an entry in memory at a time.
    fn apply_log(&self, log: &LogId, applied: &mut u64, progress: &Progress) -> Result<()> {
        while let Some(bytes) = self.index.entry_unapplied(log)? {
            progress.check()?;
            if !self.apply(bytes)? {
                return Ok(());
            }
            *applied += 1;
            progress.advance(Phase::Pull, 0, 1);
        }
        Ok(())
    }

    /// Applies one commit, unless something it has seen is not applied yet.
    fn apply(&self, bytes: Bytes) -> Result<bool> {
        let entry = Entry::from_bytes(bytes)?;
        let header = entry.header().clone();
        let membership = self.log.membership();
        let revoked = membership.device(&header.log.author).and_then(|m| m.revoked.as_ref());
        if revoked.is_some_and(|revoked| !revoked.accepts(&entry)) {
            // It was taken in before its maker was revoked, and nobody merged it by then.
            return Ok(false);
        }
        let id = EpochId(header.epoch);
        let secrets = self.keyring.secrets();
        let Some(epoch) = secrets.epoch_of(&id) else {
            // Who began it may not have known this device yet: one that follows it will.
            return match membership.epochs().iter().any(|epoch| epoch.id == id) {
                true => Ok(false),
                false => Err(Error::Refused("a commit of an epoch the drive has not".into())),
            };
        };
        let commit = Commit::open(epoch, &entry)?;
        let Some(lamports) = self.seen(&commit, &entry)? else { return Ok(false) };
        commit.check_lamport(lamports)?;
        let device = self.device(&header.log.author)?;
        let stamp = Stamp { lamport: commit.lamport, device };
        let resolved = self.resolve(commit.records, &header.log.author)?;
        let mut merging = self.tree.merging()?;
        self.apply_records(&mut merging, resolved, stamp)?;
        self.index.set_applied(&header.log, header.number)?;
        self.index.set_lamport(&header.log, header.number, stamp.lamport)?;
        let largest = self.index.number(LAMPORT)?.unwrap_or(0).max(stamp.lamport.cast_signed());
        self.index.set_number(LAMPORT, largest)?;
        merging.finish()?;
        Ok(true)
    }

    /// The Lamport times of what the commit's maker had seen; none while some of it is missing.
    fn seen(&self, commit: &Commit, entry: &Entry) -> Result<Option<Vec<u64>>> {
        let header = entry.header();
        let mut lamports = Vec::with_capacity(commit.seen.len() + 1);
        for head in &commit.seen {
            match self.index.applied_entry(&head.log, head.number)? {
                Some((lamport, hash)) if hash == head.hash => lamports.push(lamport),
                Some(_) => {
                    return Err(Error::Refused(
                        "a commit that has seen another history than this device".into(),
                    ));
                }
                None => return Ok(None),
            }
        }
        if header.number > 1 {
            match self.index.applied_entry(&header.log, header.number - 1)? {
                Some((lamport, _)) => lamports.push(lamport),
                None => return Ok(None),
            }
        }
        Ok(Some(lamports))
    }

    fn device(&self, author: &PublicKey) -> Result<DeviceNumber> {
        let membership = self.log.membership();
        let member = membership.device(author);
        let member = member.ok_or_else(|| Error::Refused("a commit of nobody's".into()))?;
        Ok(DeviceNumber(member.number))
    }

    /// Takes note of the layers, and finds for every version where its bytes lie. A commit that
    /// is refused here leaves layers known that nothing refers to, which is no harm.
    fn resolve(&self, records: Vec<Record>, author: &PublicKey) -> Result<Vec<Resolved>> {
        let mut resolved = Vec::with_capacity(records.len());
        for record in records {
            match record {
                Record::Layer { id, len, key, epoch, nonce, toc } => {
                    let secret = LayerSecret { key, epoch, nonce, toc };
                    self.index.add_layer(id, len, &secret, &[], true)?;
                }
                Record::Version { file, id, bases, size, mtime, content } => {
                    let extents = extents_of(&self.index, content)?;
                    let version = Version { id, bases, size, mtime, extents };
                    resolved.push(Resolved::Version(file, version));
                }
                // Nobody says what another is called: who is revoked is found by it.
                Record::Device { device, .. } if device != *author => {}
                Record::Device { device, name, .. } => resolved.push(Resolved::Name(device, name)),
                record => resolved.push(Resolved::Other(record)),
            }
        }
        Ok(resolved)
    }

    /// Content and attributes first: links and tombstones are taken as a group at the end.
    fn apply_records(
        &self,
        merging: &mut Merging<'_>,
        records: Vec<Resolved>,
        stamp: Stamp,
    ) -> Result<()> {
        records.into_iter().try_for_each(|record| match record {
            Resolved::Version(file, version) => merging.version(file, version, stamp),
            Resolved::Name(device, name) => self.index.hear_device_name(&device, name, stamp),
            Resolved::Other(record) => apply_record(merging, record, stamp),
        })
    }
}

fn apply_record(merging: &mut Merging<'_>, record: Record, stamp: Stamp) -> Result<()> {
    match record {
        Record::File { file, kind, rdev, target, born } => {
            merging.file(file, kind, rdev, &target, born)
        }
        Record::Attr { file, mode, uid, gid, mtime, .. } => {
            merging.attributes(file, &Attributes { mode, uid, gid, mtime }, stamp)
        }
        Record::Xattr { file, name, value } => merging.xattr(file, &name, value.as_deref(), stamp),
        Record::Link { link, parent, name, file } => merging.link(link, parent, &name, file, stamp),
        Record::Unlink { link, saw, heads } => merging.unlink(link, saw, &heads),
        // Versions, layers and names were resolved; placement and policies have no effect on the
        // tree.
        Record::Version { .. }
        | Record::Layer { .. }
        | Record::Moved { .. }
        | Record::Held { .. }
        | Record::Remote { .. }
        | Record::Device { .. }
        | Record::Policy { .. } => Ok(()),
    }
}

/// Where the bytes of a version lie here.
pub(crate) fn extents_of(index: &Index, content: Content) -> Result<Extents> {
    let mut extents = Extents::default();
    let list = match content {
        Content::Inline(bytes) => {
            extents.put(0, bytes.len() as u64, Source::Bytes(bytes));
            return Ok(extents);
        }
        Content::Extents(list) => list,
        Content::Listed { .. } => {
            return Err(Error::Refused("a list of extents stored apart".into()));
        }
    };
    let mut numbers: HashMap<BlobId, LayerNumber> = HashMap::new();
    let mut at = 0;
    for extent in list {
        if let Place::Chunk { layer, number, skip } = extent.source {
            let layer = match numbers.get(&layer) {
                Some(known) => *known,
                None => {
                    let known = index.layer_number(&layer)?.ok_or_else(|| {
                        Error::Refused(format!("a version in layer {layer}, which is unknown"))
                    })?;
                    numbers.insert(layer, known);
                    known
                }
            };
            let place = ChunkPlace { layer, number };
            extents.put(at, extent.len, Source::chunk(place, skip));
        }
        at += extent.len;
    }
    Ok(extents)
}
