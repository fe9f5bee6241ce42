//! What a drive tells about itself.

use rdrivefs_remote::entry::{Entry, Head, LogKind};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::store::Store as _;

use crate::cache::LayerRef;
use crate::error::{Error, Posix, Result};
use crate::id::{Ino, LinkId};
use crate::index::layers::{LayerNumber, LayerRow, RemoteNumber};
use crate::record::Commit;
use crate::record::Kind;
use crate::remotes::{Health as Condition, Remote};
use crate::report::{
    DeviceInfo, DrivePath, FileKind, FileState, Health, Holder, KeptUnder, KeyInfo, LayerUse,
    ListEntry, LogKind as Told, LogLine, PathStatus, Pending, RemoteInfo, Stage, Status,
};
use crate::tree::extents::Extent;
use crate::tree::node::Row;

use super::parts::Drive;
use crate::walk::{Found, resolve, walk, walk_from};

/// Layers looked at in one step.
const STEP: usize = 4_096;

impl Drive {
    /// The drive as a whole, from what this device knows.
    ///
    /// # Errors
    /// Of the index.
    pub fn status(&self) -> Result<Status> {
        let parts = &self.parts;
        let (push_layers, push_bytes) = parts.index.unpushed()?;
        let unsealed = parts.tree.unsealed();
        let devices = self.devices()?;
        Ok(Status {
            drive: self.home.name().to_owned(),
            drive_id: self.secrets().drive().to_string(),
            device: devices.iter().find(|d| d.this_device).cloned().unwrap_or_default(),
            mount: None,
            tree: self.tree_use()?,
            cache: self.cache_use()?,
            pending: Pending {
                dirty_bytes: unsealed.bytes,
                dirty_files: unsealed.files,
                push_bytes,
                push_layers,
                unproven_bytes: self.unproven_bytes()?,
                commits: parts.index.pending_count()?,
            },
            remotes: self.remote_list()?,
            conflicts: parts.tree.conflicts()?.len() as u64,
            devices,
        })
    }

    /// Whether there is something at a path.
    ///
    /// # Errors
    /// [`crate::error::Posix::NoEntry`]; of the index.
    pub fn check_path(&self, path: &DrivePath) -> Result<()> {
        resolve(&self.parts.tree, path).map(drop)
    }

    /// Where the files below a path stand.
    ///
    /// # Errors
    /// [`crate::error::Posix::NoEntry`]; of the index.
    pub fn status_of(&self, path: &DrivePath) -> Result<PathStatus> {
        let attr = self.parts.tree.attr(resolve(&self.parts.tree, path)?)?;
        let mut status =
            PathStatus { path: path.clone(), kind: told(attr.kind), ..PathStatus::default() };
        let audited = self.audited()?;
        walk(&self.parts.tree, path, &mut |found| {
            status.files += 1;
            status.pinned |= found.path == *path && found.pinned;
            status.bytes += found.row.extents.stored();
            status.dirty_bytes += found.row.unsealed();
            status.sealed_bytes += found.row.extents.stored() - found.row.unsealed();
            status.cached_bytes += found.row.extents.staged() + found.row.extents.inline();
            if found.row.changed == 0 {
                // Content that lies in a record goes with its commit.
                status.pushed_bytes += found.row.extents.inline();
            }
            for (_, extent) in found.row.extents.iter() {
                let Some(layer) = extent.source.layer() else { continue };
                let holders = self.parts.index.holders(layer)?;
                status.pushed_bytes += if holders.is_empty() { 0 } else { extent.len };
                let proven = holders.iter().any(|holder| audited.contains(holder));
                status.proven_bytes += if proven { extent.len } else { 0 };
                status.cached_bytes += if self.is_cached(layer)? { extent.len } else { 0 };
            }
            Ok(())
        })?;
        Ok(status)
    }

    /// How far the content of a file has come. Of a directory: what is furthest behind below it, and
    /// whether all of that is here.
    ///
    /// # Errors
    /// [`Posix::Stale`]; of the index.
    pub fn state_of(&self, ino: Ino) -> Result<FileState> {
        let (pinned, audited) = (self.is_pinned(ino)?, self.audited()?);
        let (mut least, mut cached) = (None::<Stage>, true);
        let path = DrivePath(b"/".to_vec());
        walk_from(&self.parts.tree, ino, path, pinned, &mut |found| {
            let state = self.file_state(&found.row, pinned, &audited)?;
            cached &= state.cached;
            // What has nothing to be proven is no further behind than what has.
            if state.stage != Stage::Pushed || has_layers(&found.row) {
                least = Some(least.map_or(state.stage, |least| least.min(state.stage)));
            }
            Ok(())
        })?;
        Ok(FileState { stage: least.unwrap_or(Stage::Pushed), cached, pinned })
    }

    /// Every remote, with its health; asks none.
    ///
    /// # Errors
    /// Of the index.
    pub fn remote_list(&self) -> Result<Vec<RemoteInfo>> {
        self.parts.remotes.all().iter().map(|remote| self.remote_info(remote)).collect()
    }

    /// Asks a remote what it has and allows.
    ///
    /// # Errors
    /// Of the link.
    pub fn remote_ask(&self, name: &str) -> Result<RemoteInfo> {
        let remote = self.parts.remotes.named(name)?;
        let space = self.parts.runtime.block_on(remote.link.space());
        let space = self.parts.remotes.noted(&remote, space)?;
        let mut info = self.remote_info(&remote)?;
        info.used_bytes = Some(space.used);
        info.quota_bytes = space.quota;
        Ok(info)
    }

    /// The layers a file is made of; without a path, all layers.
    ///
    /// # Errors
    /// Of the index.
    pub fn layers(&self, path: Option<&DrivePath>) -> Result<Vec<LayerUse>> {
        let mut uses = Vec::new();
        let Some(path) = path else {
            let mut after = LayerNumber(0);
            loop {
                let step = self.parts.index.layers_all(after, STEP)?;
                let Some(last) = step.last() else { return Ok(uses) };
                after = *last;
                for number in step {
                    uses.push(self.layer_use(number, None, None)?);
                }
            }
        };
        let row = self.parts.tree.row(resolve(&self.parts.tree, path)?)?;
        for (at, extent) in row.extents.iter() {
            if let Some(layer) = extent.source.layer() {
                uses.push(self.layer_use(layer, Some(at), Some(extent.len))?);
            }
        }
        Ok(uses)
    }

    /// The drive's signed log, or that of the device whose key or number begins so.
    ///
    /// # Errors
    /// Of the index.
    pub fn log(&self, device: Option<&str>) -> Result<Vec<LogLine>> {
        let membership = self.parts.log.membership();
        let mut lines = Vec::new();
        for head in self.parts.index.heads()? {
            let key = head.log.author.to_string();
            let number = membership.device(&head.log.author).map(|member| member.number);
            let chosen = device.is_none_or(|device| {
                key.starts_with(device) || number.is_some_and(|n| n.to_string() == device)
            });
            let mut next = 1;
            while chosen && next <= head.number {
                let entries = self.parts.index.entries(&head.log, next, 4 << 20)?;
                next += entries.len() as u64;
                for (bytes, _) in entries {
                    lines.push(self.log_line(&Entry::from_bytes(bytes)?)?);
                }
            }
        }
        Ok(lines)
    }

    /// Whose keys these are; no secret.
    pub fn key_show(&self) -> KeyInfo {
        let secrets = self.secrets();
        let locked = crate::keybag::Keybag::needs_passphrase(&self.home.keys_file());
        KeyInfo {
            drive: self.home.name().to_owned(),
            drive_id: secrets.drive().to_string(),
            root_fingerprint: secrets.root.fingerprint(),
            device: secrets.device.public().to_string(),
            device_fingerprint: secrets.device.public().fingerprint(),
            device_number: secrets.number.0,
            epoch: hex::encode(secrets.epoch().id().0),
            epochs: secrets.epochs.len() as u64,
            kept_under: match locked {
                Ok(true) => KeptUnder::Passphrase,
                _ => KeptUnder::KeyFile,
            },
        }
    }

    /// What lies below a path, down to `depth` levels.
    ///
    /// # Errors
    /// [`crate::error::Posix::NoEntry`]; of the index.
    pub fn list(&self, path: &DrivePath, depth: Option<usize>) -> Result<Vec<ListEntry>> {
        let levels = |path: &DrivePath| path.0.iter().filter(|b| **b == b'/').count();
        let base = if path.0.iter().all(|b| *b == b'/') { 0 } else { levels(path) };
        let audited = self.audited()?;
        let mut entries = Vec::new();
        walk(&self.parts.tree, path, &mut |found| {
            let level = if found.path.0 == b"/" { 0 } else { levels(&found.path) };
            if depth.is_none_or(|depth| level <= base + depth) {
                entries.push(self.list_entry(found, &audited)?);
            }
            Ok(())
        })?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn is_cached(&self, layer: LayerNumber) -> Result<bool> {
        let row = self.parts.index.layer(layer)?;
        Ok(self.parts.cache.present(&LayerRef { id: row.id, len: row.len })? == row.len)
    }

    /// Every device there ever was, in the order in which they came.
    ///
    /// # Errors
    /// Of the index.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        let (heads, secrets) = (self.parts.index.heads()?, self.secrets());
        let own = secrets.device.public();
        let mut devices = Vec::new();
        for member in self.parts.log.membership().members() {
            let theirs = |head: &&Head| {
                head.log.author == member.device && head.log.kind == LogKind::Commits
            };
            let newest = heads.iter().filter(theirs).max_by_key(|head| head.log.instance);
            devices.push(DeviceInfo {
                name: self.name_of(&member.device)?,
                key: member.device.to_string(),
                number: member.number,
                fingerprint: member.device.fingerprint(),
                admin: member.admin,
                added_by: (member.added_by != secrets.root).then(|| member.added_by.to_string()),
                this_device: member.device == own,
                revoked: member.revoked.is_some(),
                held_back: self.parts.log.held_back(&member.device),
                head: newest.map_or(0, |head| head.number),
                head_ms: newest.map(|head| self.made_ms(head)).transpose()?.flatten(),
            });
        }
        Ok(devices)
    }

    /// What a device is called; empty where nobody said.
    fn name_of(&self, device: &PublicKey) -> Result<String> {
        Ok(self.parts.index.device_name(device)?.map_or_else(String::new, |named| named.name))
    }

    /// When an entry was made, if this device can open it.
    fn made_ms(&self, head: &Head) -> Result<Option<u64>> {
        let entries = self.parts.index.entries(&head.log, head.number, 1)?;
        let Some((bytes, _)) = entries.into_iter().next() else { return Ok(None) };
        Ok(self.log_line(&Entry::from_bytes(bytes)?)?.time_ms)
    }

    fn remote_info(&self, remote: &Remote) -> Result<RemoteInfo> {
        let condition = remote.condition();
        let (mut layers, mut bytes, mut after) = (0, 0, LayerNumber(0));
        loop {
            let step = self.parts.index.layers_held(remote.number, after, STEP)?;
            let Some(last) = step.last() else { break };
            after = last.0;
            layers += step.len() as u64;
            bytes += step.iter().map(|(_, _, len)| len).sum::<u64>();
        }
        let proven = self.parts.index.newest_audit(remote.number, 1)?;
        Ok(RemoteInfo {
            name: remote.name.clone(),
            url: remote.url.to_string(),
            fingerprint: Some(remote.url.key.fingerprint()),
            health: match condition.health {
                Condition::Unknown => Health::Unknown,
                Condition::Up => Health::Up,
                Condition::Down => Health::Down,
                Condition::Refusing => Health::Refusing,
                Condition::Distrusted => Health::Distrusted,
            },
            error: condition.error,
            rtt_ms: remote.link.rtt_ms(),
            layers,
            bytes,
            used_bytes: None,
            quota_bytes: None,
            seen_ms: condition.seen.map(|at| at.0),
            proven_ms: proven.filter(|audit| audit.failures == 0).map(|audit| audit.at),
            challenges: proven.map_or(0, |audit| audit.samples.saturating_sub(audit.failures)),
            failures: proven.map_or(0, |audit| audit.failures),
        })
    }

    fn layer_use(
        &self,
        number: LayerNumber,
        offset: Option<u64>,
        len: Option<u64>,
    ) -> Result<LayerUse> {
        let row: LayerRow = self.parts.index.layer(number)?;
        let layer = LayerRef { id: row.id, len: row.len };
        let names = self.parts.remotes.all();
        let holders = self.parts.index.holders(number)?;
        let held = names.iter().filter(|remote| holders.contains(&remote.number));
        Ok(LayerUse {
            layer: row.id.to_string(),
            offset,
            len: len.unwrap_or(row.len),
            layer_bytes: row.len,
            cached_bytes: self.parts.cache.present(&layer)?,
            held: held
                .map(|remote| Holder { remote: remote.name.clone(), proven_ms: None })
                .collect(),
        })
    }

    fn log_line(&self, entry: &Entry) -> Result<LogLine> {
        let header = entry.header();
        let epoch = rdrivefs_remote::member::EpochId(header.epoch);
        let commit = match header.log.kind {
            LogKind::Commits => {
                self.secrets().epoch_of(&epoch).and_then(|epoch| Commit::open(epoch, entry).ok())
            }
            LogKind::Membership => None,
        };
        Ok(LogLine {
            kind: match header.log.kind {
                LogKind::Commits => Told::Commits,
                LogKind::Membership => Told::Membership,
            },
            device: header.log.author.to_string(),
            device_name: self.name_of(&header.log.author)?,
            instance: header.log.instance,
            number: header.number,
            hash: hex::encode(entry.hash()),
            previous: hex::encode(header.previous),
            epoch: hex::encode(header.epoch),
            time_ms: commit.as_ref().map(|commit| commit.wall_ms.0),
            lamport: commit.as_ref().map(|commit| commit.lamport),
            records: commit.as_ref().map_or(1, |commit| commit.records.len() as u64),
            bytes: entry.encode().len() as u64,
        })
    }

    fn file_state(&self, row: &Row, pinned: bool, audited: &[RemoteNumber]) -> Result<FileState> {
        let mut state = FileState { stage: Stage::Dirty, cached: true, pinned };
        if row.unsealed() > 0 {
            return Ok(state);
        }
        // Content that lies in no layer is in the commits, which nobody challenges.
        let (mut held, mut proven) = (true, has_layers(row));
        for (_, extent) in row.extents.iter() {
            if let Some(layer) = extent.source.layer() {
                let holders = self.parts.index.holders(layer)?;
                held &= !holders.is_empty();
                proven &= holders.iter().any(|holder| audited.contains(holder));
                state.cached &= self.is_cached(layer)?;
            }
        }
        state.stage = match (held && row.changed == 0, proven) {
            (true, true) => Stage::Proven,
            (true, false) => Stage::Pushed,
            (false, _) => Stage::Sealed,
        };
        Ok(state)
    }

    /// Whether a file, or a directory above it, is pinned.
    fn is_pinned(&self, ino: Ino) -> Result<bool> {
        let mut left = vec![ino];
        while let Some(at) = left.pop() {
            let row = match self.parts.tree.row(at) {
                Err(Error::Posix(Posix::Stale)) if at != ino => continue,
                row => row?,
            };
            if row.pinned {
                return Ok(true);
            }
            match row.kind {
                _ if at == Ino::ROOT => {}
                Kind::Directory => left.push(Ino(row.parent)),
                _ => {
                    for link in row.links {
                        let entry = self.parts.index.link(LinkId(link))?;
                        left.extend(entry.map(|entry| entry.parent));
                    }
                }
            }
        }
        Ok(false)
    }

    fn list_entry(&self, found: Found, audited: &[RemoteNumber]) -> Result<ListEntry> {
        let row = &found.row;
        let state = self.file_state(row, found.pinned, audited)?;
        let target = (row.kind == Kind::Symlink).then(|| DrivePath(row.target.clone()));
        Ok(ListEntry {
            path: found.path,
            kind: told(row.kind),
            size: found.attr.size,
            mode: row.mode,
            mtime_secs: row.mtime.secs,
            mtime_nanos: row.mtime.nanos,
            target,
            state: (row.kind == Kind::File).then_some(state),
        })
    }
}

/// Whether any of its content lies in a layer.
fn has_layers(row: &Row) -> bool {
    row.extents.iter().any(|(_, extent)| in_layer(extent))
}

fn in_layer(extent: &Extent) -> bool {
    extent.source.layer().is_some()
}

fn told(kind: Kind) -> FileKind {
    match kind {
        Kind::File => FileKind::File,
        Kind::Directory => FileKind::Directory,
        Kind::Symlink => FileKind::Symlink,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
        Kind::CharDevice => FileKind::CharDevice,
        Kind::BlockDevice => FileKind::BlockDevice,
    }
}
