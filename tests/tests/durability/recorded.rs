//! R05: whatever a disk may hold after a loss of power, the drive on it opens and kept its promises.
//!
//! Everything that is written to the disk of a drive is recorded while small workloads run on the
//! mount, each of at most three calls with a sync behind some of them, as B3 bounds them. Then the
//! power goes at every flush: the disk holds what was written before, and of what came between
//! that flush and the next nothing, all or some. The kernel replays its filesystem, and the drive
//! opens on it. Each workload's folder must look as it did after some of its steps, not before the
//! last one that was promised, and all workloads before must be whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Roots;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::keybag::Unlock;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::CheckState;
use rdrivefs_tests::model::Rng;
use rdrivefs_tests::recorded_disk::{Image, RecordedDisk, Recording, Request};
use rdrivefs_tests::world::{Device, World};

/// Enough for a drive without much in it.
const DISK_MIB: u64 = 160;
/// How many of the ways in which writes may get lost are tried between two flushes.
const SUBSETS_MAX: usize = 10;
const XATTR: &str = "user.k";

/// One call, on the only two names there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create(Name),
    Append(Name),
    Overwrite(Name),
    Cut(Name),
    Lengthen(Name),
    Rename(Name, Name),
    Link(Name, Name),
    Unlink(Name),
    SetXattr(Name),
}

type Name = &'static str;

const CALLS: [Call; 16] = [
    Call::Create("b"),
    Call::Append("a"),
    Call::Append("b"),
    Call::Overwrite("a"),
    Call::Overwrite("b"),
    Call::Cut("a"),
    Call::Cut("b"),
    Call::Lengthen("a"),
    Call::Rename("a", "b"),
    Call::Rename("b", "a"),
    Call::Link("a", "b"),
    Call::Link("b", "a"),
    Call::Unlink("a"),
    Call::Unlink("b"),
    Call::SetXattr("a"),
    Call::SetXattr("b"),
];

/// What is synced behind a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Nothing,
    File,
    Data,
    Folder,
}

const SYNCS: [Sync; 4] = [Sync::Nothing, Sync::File, Sync::Data, Sync::Folder];

type Workload = Vec<(Call, Sync)>;

/// A file as a workload leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Body {
    bytes: Vec<u8>,
    xattr: Option<Vec<u8>>,
}

/// What a folder holds: which file a name leads to, and the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Folder {
    names: BTreeMap<String, usize>,
    files: BTreeMap<usize, Body>,
}

impl Call {
    /// The name whose file a sync behind it is for, if it has one left.
    fn name(self) -> Name {
        match self {
            Self::Rename(_, to) | Self::Link(_, to) => to,
            Self::Create(n) | Self::Append(n) | Self::Overwrite(n) | Self::Cut(n) => n,
            Self::Lengthen(n) | Self::Unlink(n) | Self::SetXattr(n) => n,
        }
    }

    /// Does it; on the disk it does the same as here, `seed` says with which bytes.
    fn imagine(self, folder: &mut Folder, seed: &str) -> Option<()> {
        let file = |folder: &Folder, name: Name| folder.names.get(name).copied();
        match self {
            Self::Create(name) => {
                let new = folder.files.keys().last().map_or(0, |last| last + 1);
                file(folder, name).is_none().then_some(())?;
                folder.names.insert(name.into(), new);
                folder.files.insert(new, Body::default());
            }
            Self::Rename(from, to) => {
                let moved = file(folder, from)?;
                // Two names of one file: nothing happens, and both stay.
                if file(folder, to) != Some(moved) {
                    folder.names.remove(from);
                    folder.names.insert(to.into(), moved);
                }
            }
            Self::Link(from, to) => {
                file(folder, to).is_none().then_some(())?;
                folder.names.insert(to.into(), file(folder, from)?);
            }
            Self::Unlink(name) => drop(folder.names.remove(name)?),
            Self::Append(name)
            | Self::Overwrite(name)
            | Self::Cut(name)
            | Self::Lengthen(name)
            | Self::SetXattr(name) => {
                let body = folder.files.get_mut(folder.names.get(name)?)?;
                match self {
                    Self::Append(_) => body.bytes.extend(noise(seed, 3_000)),
                    Self::Overwrite(_) => {
                        let end = body.bytes.len().max(2_500);
                        body.bytes.resize(end, 0);
                        body.bytes[..2_500].copy_from_slice(&noise(seed, 2_500));
                    }
                    Self::Cut(_) => body.bytes.truncate(1_000),
                    Self::Lengthen(_) => body.bytes.resize(body.bytes.len() + 9_000, 0),
                    _ => body.xattr = Some(noise(seed, 100)),
                }
            }
        }
        folder.files.retain(|number, _| folder.names.values().any(|file| file == number));
        Some(())
    }

    /// Does it to the folder on the mount; every file is closed again.
    fn carry_out(self, dir: &Path, seed: &str) {
        let path = |name: Name| dir.join(name);
        let open = |name| File::options().write(true).open(path(name)).unwrap();
        match self {
            Self::Create(name) => drop(File::create_new(path(name)).unwrap()),
            Self::Append(name) => {
                let file = open(name);
                let end = file.metadata().unwrap().len();
                file.write_all_at(&noise(seed, 3_000), end).unwrap();
            }
            Self::Overwrite(name) => open(name).write_all_at(&noise(seed, 2_500), 0).unwrap(),
            Self::Cut(name) => {
                let file = open(name);
                file.set_len(file.metadata().unwrap().len().min(1_000)).unwrap();
            }
            Self::Lengthen(name) => {
                let file = open(name);
                file.set_len(file.metadata().unwrap().len() + 9_000).unwrap();
            }
            Self::Rename(from, to) => fs::rename(path(from), path(to)).unwrap(),
            Self::Link(from, to) => fs::hard_link(path(from), path(to)).unwrap(),
            Self::Unlink(name) => fs::remove_file(path(name)).unwrap(),
            Self::SetXattr(name) => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path(name), XATTR, &noise(seed, 100), flags).unwrap();
            }
        }
    }
}

/// How a workload went: its folder after each step, and what was promised when.
struct Ledger {
    name: String,
    steps: String,
    /// None while there is no folder.
    states: Vec<Option<Folder>>,
    /// From this many requests on, this state or a later one is there.
    promises: Vec<(usize, usize)>,
}

impl Ledger {
    /// Runs a workload in a folder of its own, which holds a file that is safe.
    fn run(disk: &mut RecordedDisk, a: &Device, number: usize, workload: &Workload) -> Self {
        let (name, steps) = (format!("w{number}"), format!("{workload:?}"));
        let dir = a.dir.join(&name);
        let mut ledger = Self { name, steps, states: vec![None], promises: Vec::new() };
        fs::create_dir(&dir).unwrap();
        let mut folder = Folder::default();
        ledger.states.push(Some(folder.clone()));
        let start = [(Call::Create("a"), Sync::Nothing), (Call::Append("a"), Sync::File)];
        for (n, (call, sync)) in start.iter().chain(workload).enumerate() {
            let seed = format!("{} {n}", ledger.name);
            call.imagine(&mut folder, &seed).unwrap();
            call.carry_out(&dir, &seed);
            ledger.states.push(Some(folder.clone()));
            let newest = ledger.states.len() - 1;
            let synced = match sync {
                Sync::Nothing => false,
                Sync::Folder => File::open(&dir).unwrap().sync_all().is_ok(),
                Sync::File | Sync::Data => match File::open(dir.join(call.name())) {
                    // What was removed has no file to sync.
                    Err(_) => false,
                    Ok(file) if *sync == Sync::Data => file.sync_data().is_ok(),
                    Ok(file) => file.sync_all().is_ok(),
                },
            };
            // A sync of the folder is for its names, one of the file for all that it is.
            let names = matches!(
                call,
                Call::Create(_) | Call::Rename(..) | Call::Link(..) | Call::Unlink(_)
            );
            if synced && (*sync != Sync::Folder || names) {
                ledger.promises.push((disk.requests(), newest));
            }
        }
        ledger
    }

    /// The folder is as it was after some step that was not before the last promised one.
    fn check(&self, found: Option<&Folder>, requests: usize, when: &str) {
        let kept = self.promises.iter().rev().find(|(from, _)| *from <= requests);
        let promised = kept.map_or(0, |(_, state)| *state);
        let met = self.states[promised..].iter().any(|state| state.as_ref() == found);
        let at = self.states.iter().rposition(|state| state.as_ref() == found);
        assert!(
            met,
            "{when}: {} {} was promised state {promised} of {}, and is as it was after {at:?}: {}",
            self.name,
            self.steps,
            self.states.len() - 1,
            found.map_or("not there".into(), sketch)
        );
    }
}

fn sketch(folder: &Folder) -> String {
    let names = folder.names.iter().map(|(name, file)| {
        let body = &folder.files[file];
        let hash = blake3::hash(&body.bytes).to_hex();
        format!("{name}=#{file}:{}:{}:{}", body.bytes.len(), &hash[..6], body.xattr.is_some())
    });
    names.collect::<Vec<_>>().join(" ")
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All workloads of so many calls that can be done at all.
fn all(calls: usize) -> Vec<Workload> {
    let mut done = vec![Workload::new()];
    for _ in 0..calls {
        let longer = |workload: &Workload| {
            let mut longer = Vec::new();
            for (call, sync) in CALLS.iter().flat_map(|call| SYNCS.map(|sync| (*call, sync))) {
                let next: Workload = workload.iter().copied().chain([(call, sync)]).collect();
                let mut folder = Folder::default();
                let start = [Call::Create("a"), Call::Append("a")];
                let mut calls = start.into_iter().chain(next.iter().map(|(call, _)| *call));
                if calls.all(|call| call.imagine(&mut folder, "").is_some()) {
                    longer.push(next);
                }
            }
            longer
        };
        done = done.iter().flat_map(longer).collect();
    }
    done
}

/// What the drive holds whose home is in a folder.
fn found(home: &Path, when: &str) -> BTreeMap<String, Folder> {
    let home = Roots::under(home).home("default").unwrap();
    let drive = Drive::open(&home, &Unlock::KeyFile, Env::real());
    let drive = drive.unwrap_or_else(|e| panic!("{when}: the drive does not open: {e}"));
    let tree = drive.tree();
    let mut folders = BTreeMap::new();
    for entry in tree.list(Ino::ROOT, 0, 10_000).unwrap() {
        let (mut folder, mut numbers) = (Folder::default(), BTreeMap::new());
        for file in tree.list(entry.attr.ino, 0, 100).unwrap() {
            let (ino, next) = (file.attr.ino, numbers.len());
            let number = *numbers.entry(ino).or_insert(next);
            let bytes = tree.read(ino, 0, u32::MAX);
            let bytes = bytes.unwrap_or_else(|e| panic!("{when}: a file cannot be read: {e}"));
            let xattr = tree.xattr(ino, XATTR.as_bytes()).ok();
            folder.names.insert(String::from_utf8(file.name).unwrap(), number);
            folder.files.insert(number, Body { bytes, xattr });
        }
        folders.insert(String::from_utf8(entry.name).unwrap(), folder);
    }
    let report = drive.doctor(false, &Progress::silent()).unwrap();
    let damaged = report.checks.iter().find(|check| check.state == CheckState::Damaged);
    assert!(damaged.is_none(), "{when}: {damaged:?}");
    folders
}

/// The same folder whatever its files are numbered.
fn numbered(folder: &Folder) -> Folder {
    let mut numbers = BTreeMap::new();
    let mut same = Folder::default();
    for (name, file) in &folder.names {
        let next = numbers.len();
        let number = *numbers.entry(file).or_insert(next);
        same.names.insert(name.clone(), number);
        same.files.insert(number, folder.files[file].clone());
    }
    same
}

/// Which writes of some a disk kept: at most so many of the ways, the first that it kept none.
fn subsets(writes: usize, most: usize, rng: &mut Rng) -> Vec<Vec<bool>> {
    let mut ways = vec![vec![false; writes]];
    let possible = 1_usize.checked_shl(u32::try_from(writes).unwrap()).unwrap_or(usize::MAX);
    for n in 1..possible.saturating_sub(1) {
        if ways.len() > most {
            break;
        }
        let way: Vec<_> = (0..writes)
            .map(|bit| if possible <= most + 2 { n >> bit & 1 == 1 } else { rng.below(2) == 0 })
            .collect();
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}

/// Makes each disk again that a loss of power could have left, and looks at it.
struct Cuts<'a> {
    recording: &'a Recording,
    ledgers: &'a [Ledger],
    place: PathBuf,
    rng: Rng,
    looked_at: usize,
}

impl Cuts<'_> {
    /// What is flushed is on `image`; of the `writes` behind that some are kept.
    fn between(&mut self, image: &Image, flushed: usize, writes: &[Request], most: usize) {
        for way in subsets(writes.len(), most, &mut self.rng) {
            // Each has a file of its own: what was mounted before it may still be going away.
            let cut = image.copy(&self.place.join(format!("cut-{}", self.looked_at)));
            let kept = writes.iter().zip(&way).filter(|(_, kept)| **kept);
            for (n, (request, _)) in kept.enumerate() {
                // Now and then the first of them is torn, between blocks of the filesystem: within
                // one it is ext4 that may not come back.
                let torn = n == 0 && self.rng.below(4) == 0;
                let len = if torn { 4096 * self.rng.below(8) } else { u64::MAX };
                self.recording.apply(*request, &cut, len);
            }
            let count = way.iter().filter(|kept| **kept).count();
            let when = format!("flushed {flushed} requests, kept {count} of {} more", writes.len());
            self.look(&cut, flushed, &when);
        }
    }

    fn look(&mut self, cut: &Image, flushed: usize, when: &str) {
        let mounted = cut.mount(&self.place.join(format!("there-{}", self.looked_at)));
        let mounted = mounted.unwrap_or_else(|e| panic!("{when}: {e}"));
        let found = found(&mounted.dir.join("home"), when);
        for ledger in self.ledgers {
            let found = found.get(&ledger.name).map(numbered);
            ledger.check(found.as_ref(), flushed, when);
        }
        let known = |name: &String| self.ledgers.iter().any(|ledger| ledger.name == *name);
        assert!(found.keys().all(known), "{when}: {:?}", found.keys());
        self.looked_at += 1;
    }
}

/// Runs workloads on one disk and looks at all that it could have held: `most` ways of losing
/// writes between two flushes; how many disks that were.
fn record(workloads: &[Workload], most: usize, seed: u64) -> Option<usize> {
    let world = World::new();
    let around = world.path("around");
    fs::create_dir_all(&around).unwrap();
    let mut disk = RecordedDisk::new(&around, DISK_MIB)?;
    let dir = world.path("drive");
    fs::create_dir_all(&dir).unwrap();
    let a = Device { home: disk.dir.join("home"), dir };
    let phrase = world.path("phrase");
    a.ok(&["init", "--no-passphrase", "--recovery-file", phrase.to_str().unwrap()]);
    a.mount();
    let begin = disk.requests();
    let run = |(n, workload)| {
        let mut ledger = Ledger::run(&mut disk, &a, n, workload);
        ledger.states.iter_mut().flatten().for_each(|folder| *folder = numbered(folder));
        ledger
    };
    let ledgers: Vec<_> = workloads.iter().enumerate().map(run).collect();
    a.unmount();
    drop(a);
    let recording = disk.end();
    let image = recording.before("flushed");
    let (rng, ledgers) = (Rng(seed), &ledgers[..]);
    let mut cuts =
        Cuts { recording: &recording, ledgers, place: around.clone(), rng, looked_at: 0 };
    let (mut writes, mut flushed) = (Vec::new(), 0);
    for (n, request) in recording.requests.iter().enumerate() {
        if *request != Request::Flush {
            writes.push(*request);
            continue;
        }
        // Before that there was no drive, or nobody who was promised anything.
        if n > begin && !writes.is_empty() {
            cuts.between(&image, flushed, &writes, most);
        }
        writes.drain(..).for_each(|request| recording.apply(request, &image, u64::MAX));
        flushed = n + 1;
    }
    cuts.between(&image, flushed, &writes, most);
    Some(cuts.looked_at)
}

#[test]
fn r05_whatever_a_disk_kept_the_drive_kept_its_promises() {
    use Call::{Append, Cut, Link, Overwrite, Rename, SetXattr, Unlink};
    let workloads = [
        vec![(Call::Create("b"), Sync::Nothing), (Append("b"), Sync::Nothing)],
        vec![(Overwrite("a"), Sync::File), (Rename("a", "b"), Sync::Folder)],
        vec![(Link("a", "b"), Sync::Nothing), (Unlink("a"), Sync::Folder)],
        vec![(SetXattr("a"), Sync::Nothing), (Cut("a"), Sync::Data), (Append("a"), Sync::Nothing)],
    ];
    let Some(disks) = record(&workloads, 1, 5) else { return };
    println!("{disks} disks");
    assert!(disks >= 10, "{disks} disks were looked at");
}

#[test]
#[ignore = "long: some thousand disks, an hour"]
fn r05_long_whatever_a_disk_kept_the_drive_kept_its_promises() {
    let mut rng = Rng(55);
    let mut workloads = all(1);
    let (two, three) = (all(2), all(3));
    for (from, many) in [(&two, 60), (&three, 60)] {
        workloads.extend((0..many).map(|_| rng.pick(from)));
    }
    println!("{} of one call, of {} of two, of {} of three", all(1).len(), two.len(), three.len());
    let disks = workloads.chunks(12).enumerate().map(|(n, some)| {
        let disks = record(some, SUBSETS_MAX, 500 + n as u64).unwrap_or_default();
        println!("{disks} disks of {} workloads", some.len());
        disks
    });
    println!("{} disks", disks.sum::<usize>());
}
