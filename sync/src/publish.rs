//! Publishing: from what changed here to signed commits in this device's log.
//!
//! A commit is a cut: everything that changed, as of one moment, except what still waits for its
//! bytes. Must: a commit names only layers that at least one remote holds whole and that it, or one
//! before it, tells of; it is durable here before it leaves, so that a number is never used twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::entry::{Entry, Head, Header, LogId};
use rdrivefs_remote::env::Env;

use crate::error::Result;
use crate::id::Ino;
use crate::index::devices::DeviceName;
use crate::index::layers::LayerNumber;
use crate::index::nodes::Pending;
use crate::index::{Index, LAMPORT};
use crate::keyring::Keyring;
use crate::log::Log;
use crate::record::{
    Commit, Content, EXTENTS_MAX, Extent, Kind, Record, Source as Place, Stamp, lamport_after,
};
use crate::tree::extents::Source;
use crate::tree::node::{Field, Row};
use crate::tree::{Draft, LinkDraft, NodeDraft, Publishing, Tree};

/// Records in one commit: what a reader holds in memory.
const RECORDS_MAX: usize = 16_384;

/// Encoded bytes of records in one commit, beyond which no further record is added: with the
/// longest record on top (a file of very many stretches) it stays below what an entry takes.
const RECORD_BYTES_MAX: usize = 2 << 20;

/// Makes commits.
pub struct Publisher {
    env: Env,
    keyring: Arc<Keyring>,
    index: Arc<Index>,
    tree: Arc<Tree>,
    log: Arc<Log>,
}

/// A commit in the making.
struct Batch {
    stamp: Stamp,
    records: Vec<Record>,
    told: Vec<(Pending, Option<crate::id::VersionId>, bool)>,
    gone: Vec<Pending>,
    layers: Vec<LayerNumber>,
    bytes: usize,
    /// Blob ids of layers that may be named, or none.
    nameable: HashMap<LayerNumber, Option<BlobId>>,
    /// Files that wait for their bytes: nothing about them is told but what stands already.
    waiting: HashSet<Ino>,
    /// Files and links that this commit tells of.
    names: HashSet<Pending>,
    /// What this device is called, if this commit tells it.
    name: Option<String>,
    last: Option<Pending>,
    full: bool,
}

impl Publisher {
    /// A publisher over these parts.
    pub fn new(
        env: Env,
        keyring: Arc<Keyring>,
        index: Arc<Index>,
        tree: Arc<Tree>,
        log: Arc<Log>,
    ) -> Self {
        Self { env, keyring, index, tree, log }
    }

    /// Makes as many commits as it takes to tell all that can be told; returns how many.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) when a remote has shown that this device is an
    /// older copy of itself; of the index. What was not told stays to be told.
    pub fn publish(&self) -> Result<u64> {
        self.log.check_own()?;
        let mut commits = 0;
        let mut after = None;
        loop {
            let publishing = self.tree.publishing()?;
            // All there is was just committed, and nobody adds to it meanwhile.
            self.log.settle(self.log.own_heads()?)?;
            let silent = !self.index.has_pending()? && self.untold_name()?.is_none();
            if silent && self.index.layers_nameable(1)?.is_empty() {
                break;
            }
            let batch = self.gather(&publishing, after)?;
            let (last, full) = (batch.last, batch.full);
            if batch.records.is_empty() {
                batch.gone.iter().try_for_each(|gone| publishing.drop_pending(*gone))?;
            } else {
                self.sign(&publishing, batch)?;
                let told = self.log.own_heads()?;
                publishing.finish()?;
                self.log.settle(told)?;
                commits += 1;
            }
            if !full {
                break;
            }
            after = last;
        }
        Ok(commits)
    }

    /// Layers first, in commits of their own if they are many; then what changed.
    fn gather(&self, publishing: &Publishing<'_>, after: Option<Pending>) -> Result<Batch> {
        let lamport = lamport_after(self.index.number(LAMPORT)?.map(i64::cast_unsigned));
        let mut batch = Batch::new(Stamp { lamport, device: self.keyring.secrets().number });
        batch.last = after;
        self.name_device(&mut batch)?;
        self.name_layers(&mut batch)?;
        if batch.full {
            return Ok(batch);
        }
        let drafts = publishing.drafts(after, RECORDS_MAX)?;
        batch.full = drafts.len() == RECORDS_MAX;
        for (pending, draft) in drafts {
            if batch.is_full() {
                batch.full = true;
                break;
            }
            match draft {
                None => batch.gone.push(pending),
                Some(draft) => self.tell(publishing, &mut batch, pending, draft)?,
            }
            batch.last = Some(pending);
        }
        Ok(batch)
    }

    /// What this device is called, where no commit tells it yet.
    fn untold_name(&self) -> Result<Option<String>> {
        let named = self.index.device_name(&self.log.own().author)?;
        Ok(named.filter(|named| named.stamp.is_none()).map(|named| named.name))
    }

    fn name_device(&self, batch: &mut Batch) -> Result<()> {
        batch.name = self.untold_name()?;
        if let Some(name) = batch.name.clone() {
            let (device, number) = (self.log.own().author, self.keyring.secrets().number);
            batch.add(Record::Device { device, number, name });
        }
        Ok(())
    }

    /// Layers no commit has named yet and some remote holds.
    fn name_layers(&self, batch: &mut Batch) -> Result<()> {
        for number in self.index.layers_nameable(RECORDS_MAX)? {
            if batch.is_full() {
                batch.full = true;
                break;
            }
            let row = self.index.layer(number)?;
            batch.add(row.record());
            batch.layers.push(number);
            batch.nameable.insert(number, Some(row.id));
        }
        Ok(())
    }

    fn tell(
        &self,
        publishing: &Publishing<'_>,
        batch: &mut Batch,
        pending: Pending,
        draft: Draft,
    ) -> Result<()> {
        match draft {
            Draft::Node(draft) => self.tell_node(publishing, batch, &draft)?,
            Draft::Xattr(draft) => {
                let known = batch.names.contains(&Pending::Node(draft.ino));
                if !known && publishing.row(draft.ino)?.is_changed(Field::File) {
                    return Ok(());
                }
                let file = draft.ino.file();
                batch.add(Record::Xattr { file, name: draft.name, value: draft.value });
                batch.told.push((pending, None, false));
            }
            Draft::Link(draft) => self.tell_link(publishing, batch, pending, draft)?,
            Draft::Tomb(draft) => {
                let follows = draft.by.map(|by| Pending::Link(by.0));
                if let Some(follows) = follows.filter(|by| !batch.names.contains(by))
                    && publishing.is_pending(follows)?
                {
                    return Ok(());
                }
                let (link, saw, heads) = (draft.link, draft.saw, draft.heads);
                batch.add(Record::Unlink { link, saw, heads });
                batch.told.push((pending, None, false));
            }
        }
        Ok(())
    }

    fn tell_node(
        &self,
        publishing: &Publishing<'_>,
        batch: &mut Batch,
        draft: &NodeDraft,
    ) -> Result<()> {
        let (row, file) = (&draft.row, draft.ino.file());
        let changes_content = row.is_changed(Field::Content) && row.kind == Kind::File;
        let content = match changes_content {
            true => self.content(batch, row)?,
            false => None,
        };
        let withheld = changes_content && content.is_none();
        if withheld {
            batch.waiting.insert(draft.ino);
            if row.is_changed(Field::File) {
                return Ok(());
            }
        }
        if row.is_changed(Field::File) {
            let (kind, rdev, target) = (row.kind, row.rdev, row.target.clone());
            batch.add(Record::File { file, kind, rdev, target, born: row.crtime });
        }
        let set = |field, value: u32| row.is_changed(field).then_some(value);
        let mode = set(Field::Mode, row.mode);
        let (uid, gid) = (set(Field::Uid, row.uid), set(Field::Gid, row.gid));
        let mtime = row.is_changed(Field::Mtime).then_some(row.mtime);
        if mode.is_some() || uid.is_some() || gid.is_some() || mtime.is_some() {
            let (atime, ctime, crtime) = (None, None, None);
            batch.add(Record::Attr { file, mode, uid, gid, mtime, atime, ctime, crtime });
        }
        let version = content.map(|content| {
            let (id, bases) = publishing.name_version(row);
            let (size, mtime) = (row.size, row.mtime);
            batch.add(Record::Version { file, id, bases, size, mtime, content });
            id
        });
        batch.names.insert(Pending::Node(draft.ino));
        batch.told.push((Pending::Node(draft.ino), version, withheld));
        Ok(())
    }

    /// A link is told only with, or after, the file it leads to: a name never leads to nothing.
    fn tell_link(
        &self,
        publishing: &Publishing<'_>,
        batch: &mut Batch,
        pending: Pending,
        draft: LinkDraft,
    ) -> Result<()> {
        let row = publishing.row(draft.child)?;
        let told_now = batch.names.contains(&Pending::Node(draft.child));
        let unknown = row.is_changed(Field::File) && !told_now;
        if unknown || batch.waiting.contains(&draft.child) && row.heads.is_empty() {
            return Ok(());
        }
        let LinkDraft { link, parent, name, child } = draft;
        batch.add(Record::Link { link, parent, name, file: child.file() });
        batch.names.insert(pending);
        batch.told.push((pending, None, false));
        Ok(())
    }

    /// The content of a file as others can have it; none when bytes are not there yet.
    fn content(&self, batch: &mut Batch, row: &Row) -> Result<Option<Content>> {
        if row.extents.staged() > 0 {
            return Ok(None);
        }
        if row.extents.count() > EXTENTS_MAX {
            tracing::warn!("a file of more than {EXTENTS_MAX} stretches between holes stays here");
            return Ok(None);
        }
        if let Some(bytes) = inline(row) {
            return Ok(Some(Content::Inline(bytes)));
        }
        let mut extents = Vec::with_capacity(row.extents.count());
        let mut at = 0;
        let hole = |len| Extent { len, source: Place::Hole };
        for (start, extent) in row.extents.iter() {
            if start > at {
                extents.push(hole(start - at));
            }
            let Source::Chunk { layer, number, skip } = &extent.source else { return Ok(None) };
            let Some(layer) = self.nameable(batch, LayerNumber(*layer))? else {
                return Ok(None);
            };
            let source = Place::Chunk { layer, number: *number, skip: *skip };
            extents.push(Extent { len: extent.len, source });
            at = start + extent.len;
        }
        if row.size > at {
            extents.push(hole(row.size - at));
        }
        Ok(Some(Content::Extents(extents)))
    }

    /// The blob id of a layer that an earlier commit or this one tells of.
    fn nameable(&self, batch: &mut Batch, layer: LayerNumber) -> Result<Option<BlobId>> {
        if let Some(known) = batch.nameable.get(&layer) {
            return Ok(*known);
        }
        let id = self.index.layer_published(layer)?;
        batch.nameable.insert(layer, id);
        Ok(id)
    }

    fn sign(&self, publishing: &Publishing<'_>, batch: Batch) -> Result<()> {
        let (secrets, own) = (self.keyring.secrets(), self.log.own());
        let mut heads: BTreeMap<LogId, Head> = BTreeMap::new();
        for head in self.index.heads_applied()? {
            if head.log != own {
                heads.insert(head.log, head);
            }
        }
        let commit = Commit {
            seen: heads.into_values().collect(),
            lamport: batch.stamp.lamport,
            wall_ms: self.env.wall_ms(),
            records: batch.records,
        };
        let head = self.index.head(&own)?.unwrap_or(Head::empty(own));
        let epoch = secrets.epoch();
        let header = Header::after(secrets.drive(), &head, epoch.id().0);
        let body = commit.seal(epoch, &header, &self.env)?;
        let entry = Entry::sign(&secrets.device, header, body.into())?;
        self.index.add_entry(&entry.head(), true, &entry.encode())?;
        self.index.set_lamport(&own, entry.head().number, batch.stamp.lamport)?;
        self.index.set_number(LAMPORT, batch.stamp.lamport.cast_signed())?;
        if let Some(name) = batch.name {
            let named = DeviceName { name, stamp: Some(batch.stamp) };
            self.index.set_device_name(&own.author, &named)?;
        }
        for layer in batch.layers {
            self.index.set_layer_published(layer)?;
        }
        for (pending, version, withheld) in batch.told {
            publishing.told(pending, batch.stamp, version, withheld)?;
        }
        batch.gone.into_iter().try_for_each(|gone| publishing.drop_pending(gone))
    }
}

impl Batch {
    fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            records: Vec::new(),
            told: Vec::new(),
            gone: Vec::new(),
            layers: Vec::new(),
            bytes: 0,
            nameable: HashMap::new(),
            waiting: HashSet::new(),
            names: HashSet::new(),
            name: None,
            last: None,
            full: false,
        }
    }

    fn add(&mut self, record: Record) {
        self.bytes += record.encoded_len();
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= RECORDS_MAX || self.bytes >= RECORD_BYTES_MAX
    }
}

/// The whole content, if it lies in the row.
fn inline(row: &Row) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(row.size).ok()?.min(crate::record::INLINE_BYTES_MAX)];
    if bytes.len() as u64 != row.size {
        return None;
    }
    for (at, extent) in row.extents.iter() {
        let Source::Bytes(part) = &extent.source else { return None };
        bytes[at as usize..at as usize + part.len()].copy_from_slice(part);
    }
    Some(bytes)
}
