//! Devices of one drive in this process, which hand each other their logs.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rdrivefs_sync::Result;
use rdrivefs_sync::authority::Authority;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::{DeviceNumber, FileId, Ino};
use rdrivefs_sync::index::Index;
use rdrivefs_sync::keybag::{Keybag, Secrets, Unlock};
use rdrivefs_sync::keyring::Keyring;
use rdrivefs_sync::keys::{Epoch, Phrase, Recipient, Root, WrapSecret};
use rdrivefs_sync::log::Log;
use rdrivefs_sync::merge::Merger;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::publish::Publisher;
use rdrivefs_sync::record::{Commit, Content, Record, Stamp, TimeNs};
use rdrivefs_sync::remote::entry::{Entry, LogId, LogKind};
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::remote::identity::{PublicKey, SecretKey};
use rdrivefs_sync::remote::member::{Change, EpochId, Membership};
use rdrivefs_sync::seal::Key;
use rdrivefs_sync::tree::words::{Caller, Kind};
use rdrivefs_sync::tree::{Chunks, NewContent, Tree};
use rdrivefs_sync::view::{File, View};

pub(crate) const ME: Caller = Caller { uid: 1000, gid: 1000, umask: 0 };

/// No content here is so long that it would lie in chunks.
struct NoChunks;

impl Chunks for NoChunks {
    fn read(&self, _: i64, _: u32, _: Range<u32>) -> Result<Vec<u8>> {
        Err(Posix::NoEntry.into())
    }
}

/// One device.
pub(crate) struct Device {
    pub(crate) number: u16,
    pub(crate) tree: Arc<Tree>,
    pub(crate) index: Arc<Index>,
    pub(crate) log: Arc<Log>,
    merger: Merger,
    publisher: Publisher,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) authority: Authority,
    dir: tempfile::TempDir,
}

/// All devices of a drive.
pub(crate) struct World {
    pub(crate) devices: Vec<Device>,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        let env = Env::real();
        let root = Root::from(&Phrase::generate(&env));
        let (drive, public) = (root.drive(), root.secret.public());
        let epoch = Epoch::begin(drive, &[], &env);
        let mut entries: Vec<Entry> = Vec::new();
        let mut all = Vec::new();
        for n in 0..count {
            let (device, wrap) =
                (SecretKey::generate(&env), WrapSecret::from_seed(Key::random(&env)));
            let number = n as u16 + 1;
            let membership = Membership::replay(drive, &public, &entries).unwrap();
            let wrap_key = wrap.public().as_bytes().to_vec().into();
            let change = Change::Add { device: device.public(), number, admin: true, wrap_key };
            entries.push(membership.sign(&root.secret, 0, change).unwrap());
            if n == 0 {
                let membership = Membership::replay(drive, &public, &entries).unwrap();
                let to = [
                    Recipient::recovery(&root.recovery_key()),
                    Recipient { who: device.public(), key: wrap.public() },
                ];
                let change = Change::Epoch(epoch.record(&to));
                entries.push(membership.sign(&root.secret, 0, change).unwrap());
            }
            all.push(Secrets {
                root: public,
                recovery: root.recovery_key(),
                device,
                wrap,
                number: DeviceNumber(number),
                instance: 0,
                chunker: epoch.chunker_key(),
                local: Key::random(&env),
                epochs: vec![epoch.clone()],
            });
        }
        let devices = all.into_iter().map(|secrets| {
            let dir = tempfile::tempdir().unwrap();
            Device::open(secrets, dir, &entries)
        });
        Self { devices: devices.collect() }
    }

    /// Everybody tells everybody everything, until nobody has anything to say.
    pub(crate) fn exchange(&self) {
        // What was told before may still give somebody something to tell.
        self.deliver();
        for _ in 0..5 {
            let told: u64 = self.devices.iter().map(Device::publish).sum();
            if told == 0 {
                return;
            }
            self.deliver();
        }
        panic!("they never end telling each other");
    }

    /// What all that was told shows, by the slow and obvious way.
    pub(crate) fn view(&self) -> View {
        let told: Vec<_> = self.devices.iter().flat_map(Device::told).collect();
        View::of(told.iter().map(|(stamp, record)| (*stamp, record)))
    }

    /// All that was told, in the order of its stamps, for people.
    pub(crate) fn tell_records(&self) -> String {
        let mut told: Vec<_> = self.devices.iter().flat_map(Device::told).collect();
        told.sort_by_key(|(stamp, _)| *stamp);
        let lines = told.iter().map(|(stamp, record)| {
            let what = match record {
                Record::Link { name, .. } => format!("{record:?} {}", name.escape_ascii()),
                Record::Unlink { link, saw, heads } => {
                    format!("Unlink({link:?}, saw {}.{}, {heads:?})", saw.lamport, saw.device.0)
                }
                Record::Version { file, id, bases, .. } => {
                    format!("Version({file:?}, {id:?}, of {bases:?})")
                }
                record => format!("{record:?}"),
            };
            format!("{}.{} {what}\n", stamp.lamport, stamp.device.0)
        });
        lines.collect()
    }

    /// Everybody gets what was told.
    pub(crate) fn deliver(&self) {
        for to in &self.devices {
            for from in &self.devices {
                to.hear(from);
            }
            to.merge();
        }
    }
}

impl Device {
    fn open(secrets: Secrets, dir: tempfile::TempDir, membership: &[Entry]) -> Self {
        let env = Env::real();
        let author = secrets.device.public();
        let own = LogId { kind: LogKind::Commits, author, instance: secrets.instance };
        let path = dir.path();
        let index =
            Arc::new(Index::open(&path.join("index"), &secrets.local, env.clone()).unwrap());
        for entry in membership {
            index.add_entry(&entry.head(), true, &entry.encode()).unwrap();
        }
        let tree = Arc::new(open_tree(&secrets, &index, path, &env));
        let log = Log::open(secrets.drive(), secrets.root, own, index.clone()).unwrap();
        let log = Arc::new(log);
        let number = secrets.number.0;
        let bag = path.join("keys");
        drop(std::fs::remove_file(&bag));
        let bag = Keybag::create(&bag, secrets, &Unlock::KeyFile, &env).unwrap();
        let keyring = Arc::new(Keyring::new(bag, env.clone()));
        let publisher =
            Publisher::new(env, keyring.clone(), index.clone(), tree.clone(), log.clone());
        let merger = Merger::new(keyring.clone(), index.clone(), tree.clone(), log.clone());
        let authority =
            Authority::new(Env::real(), keyring.clone(), index.clone(), tree.clone(), log.clone());
        Self { authority, number, tree, index, log, merger, publisher, keyring, dir }
    }

    /// As after a crash.
    pub(crate) fn reopen(&mut self) {
        self.tree.sync_all().unwrap();
        let away = tempfile::tempdir().unwrap();
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(self.dir.path().join(".")).arg(away.path());
        assert!(copy.status().unwrap().success());
        *self = Self::open((*self.keyring.secrets()).clone(), away, &[]);
    }

    /// Seals everything, and tells of it.
    pub(crate) fn publish(&self) -> u64 {
        let ripe = self.tree.ripe(Env::real().instant(), true, usize::MAX);
        for ino in ripe {
            let Some(mut job) = self.tree.sealable(ino).unwrap() else { continue };
            assert!(job.fits_inline());
            let bytes = self.tree.read_sealing(&job, 0..job.size).unwrap();
            self.tree.seal_done(&mut job, NewContent::Inline(bytes));
        }
        self.publish_unsealed()
    }

    pub(crate) fn publish_unsealed(&self) -> u64 {
        self.tree.flush().unwrap();
        self.publisher.publish().unwrap()
    }

    /// Its identity.
    pub(crate) fn key(&self) -> PublicKey {
        self.keyring.secrets().device.public()
    }

    /// All that it told.
    pub(crate) fn told(&self) -> Vec<(Stamp, Record)> {
        let mut told = Vec::new();
        for (entry, _) in self.index.entries(&self.log.own(), 1, usize::MAX).unwrap() {
            let (entry, secrets) = (Entry::from_bytes(entry).unwrap(), self.keyring.secrets());
            let epoch = secrets.epoch_of(&EpochId(entry.header().epoch)).unwrap();
            let commit = Commit::open(epoch, &entry).unwrap();
            let stamp = Stamp { lamport: commit.lamport, device: secrets.number };
            told.extend(commit.records.into_iter().map(|record| (stamp, record)));
        }
        told
    }

    /// Gets the log of another.
    pub(crate) fn hear(&self, from: &Self) {
        for (entry, _) in from.index.entries(&from.log.own(), 1, usize::MAX).unwrap() {
            self.log.accept(entry).unwrap();
        }
    }

    /// Gets from another what it has of every log, membership first; what is refused stays there.
    pub(crate) fn hear_all(&self, from: &Self) {
        let mut heads = from.index.heads().unwrap();
        heads.sort_by_key(|head| (head.log.kind != LogKind::Membership, head.log));
        for head in heads {
            for (entry, _) in from.index.entries(&head.log, 1, usize::MAX).unwrap() {
                if self.log.accept(entry).is_err() {
                    break;
                }
            }
        }
    }

    pub(crate) fn merge(&self) {
        self.merger.apply_all(&Progress::silent()).unwrap();
    }
}

fn open_tree(secrets: &Secrets, index: &Arc<Index>, dir: &Path, env: &Env) -> Tree {
    let journal = dir.join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    let (number, key) = (secrets.number, &secrets.local);
    Tree::open(env.clone(), number, index.clone(), dir, &journal, key, Arc::new(NoChunks)).unwrap()
}

pub(crate) fn put(tree: &Tree, dir: Ino, name: &str, data: &[u8]) -> Ino {
    let ino = tree.create(&ME, dir, name.as_bytes(), 0o644).unwrap().ino;
    tree.write(ino, 0, data).unwrap();
    ino
}

pub(crate) fn read(tree: &Tree, ino: Ino) -> Vec<u8> {
    tree.read(ino, 0, 1 << 20).unwrap()
}

/// Everything a tree shows, as lines to be compared.
pub(crate) fn tell(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![(Ino::ROOT, String::new())];
    while let Some((dir, above)) = left.pop() {
        let mut subdirectories = 0;
        for entry in tree.list(dir, 0, usize::MAX >> 1).unwrap() {
            let path = format!("{above}/{}", entry.name.escape_ascii());
            let (attr, ino) = (entry.attr, entry.attr.ino);
            assert_eq!(tree.lookup(dir, &entry.name).unwrap(), attr);
            let content = match attr.kind {
                Kind::File => read(tree, ino).escape_ascii().to_string(),
                Kind::Symlink => tree.read_link(ino).unwrap().escape_ascii().to_string(),
                _ => String::new(),
            };
            let mut xattrs = String::new();
            for name in tree.xattrs(ino).unwrap() {
                let value = tree.xattr(ino, &name).unwrap();
                xattrs += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
            }
            let (kind, mode, nlink, size) = (attr.kind, attr.mode, attr.nlink, attr.size);
            lines.push(line(&path, &content, kind, (mode, nlink, size, attr.mtime), &xattrs));
            if kind == Kind::Directory {
                assert_eq!(tree.parent(ino).unwrap(), dir);
                subdirectories += 1;
                left.push((ino, path));
            }
        }
        let nlink = tree.attr(dir).unwrap().nlink;
        assert_eq!(nlink, 2 + subdirectories, "the count of directories in {above}/");
    }
    lines.sort();
    lines
}

/// What a device shows of a file. The times of directories are its own.
fn line(
    path: &str,
    content: &str,
    kind: Kind,
    attr: (u32, u32, u64, TimeNs),
    more: &str,
) -> String {
    let (content, (mode, nlink, size, mtime)) = (&content[..content.len().min(40)], attr);
    let mtime = if kind == Kind::Directory { TimeNs::default() } else { mtime };
    let time = format!("{}.{:09}", mtime.secs, mtime.nanos);
    format!("{path} {content} | {kind:?} {mode:o} {nlink} {size} {time}{more}")
}

/// The same of a view.
pub(crate) fn tell_view(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![(FileId::ROOT, String::new())];
    while let Some((dir, above)) = left.pop() {
        for (name, entry) in view.entries(dir) {
            let path = format!("{above}/{}", name.escape_ascii());
            let file = view.file(entry.file).unwrap();
            let (content, size) = content(file);
            let xattrs: String = file
                .xattrs
                .iter()
                .map(|(name, value)| format!(" {}={}", name.escape_ascii(), value.escape_ascii()))
                .collect();
            let attr = (file.mode.unwrap(), file.nlink, size, file.mtime.unwrap());
            lines.push(line(&path, &content.escape_ascii().to_string(), file.kind, attr, &xattrs));
            if file.kind == Kind::Directory {
                left.push((entry.file, path));
            }
        }
    }
    lines.sort();
    lines
}

fn content(file: &File) -> (&[u8], u64) {
    match (file.kind, &file.version) {
        (Kind::Symlink, _) => (&file.target, file.target.len() as u64),
        (Kind::Directory, _) => (b"", 4096),
        (_, None) => (b"", 0),
        (_, Some(version)) => match &version.content {
            Content::Inline(bytes) => (bytes, version.size),
            content => panic!("{content:?} lies in layers"),
        },
    }
}
