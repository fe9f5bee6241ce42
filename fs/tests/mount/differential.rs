//! The same operations on the mount and on the computer's own filesystem give the same answers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};

use crate::daemon::{Mount, on_each_core};

const WORLDS: u64 = 6;
const STEPS: usize = 400;
const NAMES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "d/e/a"];

/// xorshift64*: one seed, one script.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write { name: &'static str, offset: u64, len: usize, byte: u8 },
    Append { name: &'static str, len: usize },
    Truncate { name: &'static str, len: u64 },
    Read { name: &'static str, offset: u64, len: usize },
    MakeDir(&'static str),
    RemoveDir(&'static str),
    Unlink(&'static str),
    Rename { from: &'static str, to: &'static str, flags: u32 },
    Link { from: &'static str, to: &'static str },
    Symlink { name: &'static str, target: &'static str },
    ReadLink(&'static str),
    Mode { name: &'static str, mode: u32 },
    Time { name: &'static str, secs: i64 },
    SetXattr { name: &'static str, value: u8, flags: u32 },
    GetXattr(&'static str),
    Punch { name: &'static str, offset: u64, len: u64, flags: u32 },
    Exclusive(&'static str),
    List(&'static str),
    Stat(&'static str),
}

fn roll(dice: &mut Dice) -> Op {
    let name = dice.name();
    match dice.below(22) {
        0..=3 => {
            let (offset, len) = (dice.below(300_000), dice.below(90_000) as usize);
            Op::Write { name, offset, len, byte: dice.below(256) as u8 }
        }
        4 => Op::Append { name, len: dice.below(9_000) as usize },
        5 => Op::Truncate { name, len: dice.below(300_000) },
        6 => Op::Read { name, offset: dice.below(300_000), len: dice.below(50_000) as usize },
        7 => Op::MakeDir(["d", "d/e", "a"][dice.below(3) as usize]),
        8 => Op::RemoveDir(["d", "d/e", name][dice.below(3) as usize]),
        9 => Op::Unlink(name),
        10..=12 => {
            let to = ["d", "f", dice.name()][dice.below(3) as usize];
            Op::Rename { from: name, to, flags: [0, 0, 1, 2][dice.below(4) as usize] }
        }
        13 => Op::Link { from: name, to: dice.name() },
        14 => Op::Symlink { name, target: dice.name() },
        15 => Op::ReadLink(name),
        16 => Op::Mode { name, mode: 0o600 | dice.below(0o10000) as u32 },
        17 => Op::Time { name, secs: dice.below(1 << 31) as i64 - (1 << 20) },
        18 => Op::SetXattr { name, value: 1, flags: dice.below(3) as u32 },
        19 => Op::GetXattr(name),
        20 => {
            let flags = [3, 1, 0, 0x10][dice.below(4) as usize];
            Op::Punch { name, offset: dice.below(200_000), len: 1 + dice.below(99_999), flags }
        }
        _ => [Op::Exclusive(name), Op::List(""), Op::List("d"), Op::Stat(name)]
            [dice.below(4) as usize]
            .clone(),
    }
}

fn os(error: rustix::io::Errno) -> io::Error {
    error.into()
}

fn list(dir: &Path) -> io::Result<Vec<u8>> {
    let mut names = fs::read_dir(dir)?
        .map(|entry| {
            Ok((entry.as_ref().map_err(|e| io::Error::from(e.kind()))?.file_name(), entry?))
        })
        .map(|pair| pair.and_then(|(name, entry)| Ok((name, entry.file_type()?))))
        .map(|pair| pair.map(|(name, kind)| format!("{name:?}{kind:?};")))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names.concat().into_bytes())
}

fn stat(path: &Path) -> io::Result<String> {
    let stat = fs::symlink_metadata(path)?;
    let size = if stat.is_dir() { 0 } else { stat.len() };
    // A link's own mode is the same everywhere; times only where the script set them.
    let time = if (1..1 << 31).contains(&stat.mtime()) && stat.mtime_nsec() == 7 {
        stat.mtime()
    } else {
        0
    };
    Ok(format!("{:o} {} {size} {time}", stat.mode(), stat.nlink()))
}

/// Carries the operation out below `root`, and tells all that can be seen of it.
fn apply(root: &Path, op: &Op) -> io::Result<Vec<u8>> {
    let at = |name: &str| root.join(name);
    let write =
        |name: &str| File::options().write(true).create(true).truncate(false).open(at(name));
    let done = |()| Vec::new();
    match *op {
        Op::Write { name, offset, len, byte } => {
            write(name)?.write_all_at(&vec![byte; len], offset).map(done)
        }
        Op::Append { name, len } => {
            use io::Write;
            let mut file = File::options().append(true).create(true).open(at(name))?;
            file.write_all(&vec![b'+'; len]).map(done)
        }
        Op::Truncate { name, len } => write(name)?.set_len(len).map(done),
        Op::Read { name, offset, len } => {
            let mut data = vec![0; len];
            let file = File::open(at(name))?;
            let count = file.read_at(&mut data, offset)?;
            data.truncate(count);
            Ok(data)
        }
        Op::MakeDir(name) => fs::create_dir(at(name)).map(done),
        Op::RemoveDir(name) => fs::remove_dir(at(name)).map(done),
        Op::Unlink(name) => rustix::fs::unlink(at(name)).map_err(os).map(done),
        Op::Rename { from, to, flags } => {
            let flags = RenameFlags::from_bits_retain(flags);
            rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags).map_err(os).map(done)
        }
        Op::Link { from, to } => fs::hard_link(at(from), at(to)).map(done),
        Op::Symlink { name, target } => {
            std::os::unix::fs::symlink(format!("gone/{target}"), at(name)).map(done)
        }
        Op::ReadLink(name) => Ok(fs::read_link(at(name))?.into_os_string().into_encoded_bytes()),
        Op::Mode { name, mode } => {
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).map(done)
        }
        Op::Time { name, secs } => {
            let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: 7 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, at(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(os)
                .map(done)
        }
        Op::SetXattr { name, value, flags } => {
            let flags = XattrFlags::from_bits_retain(flags);
            rustix::fs::setxattr(at(name), "user.x", &[value; 40], flags).map_err(os).map(done)
        }
        Op::GetXattr(name) => {
            let mut value = vec![0; 100];
            let len = rustix::fs::getxattr(at(name), "user.x", &mut value[..]).map_err(os)?;
            value.truncate(len);
            Ok(value)
        }
        Op::Punch { name, offset, len, flags } => {
            let flags = FallocateFlags::from_bits_retain(flags);
            let file = File::options().write(true).open(at(name))?;
            rustix::fs::fallocate(&file, flags, offset, len).map_err(os).map(done)
        }
        Op::Exclusive(name) => File::create_new(at(name)).map(|_| Vec::new()),
        Op::List(name) => list(&at(name)),
        Op::Stat(name) => stat(&at(name)).map(String::into_bytes),
    }
}

fn answer(root: &Path, op: &Op) -> Result<Vec<u8>, Option<i32>> {
    apply(root, op).map_err(|error| error.raw_os_error())
}

/// Everything below `root`: each path with what it is and holds.
fn tree(root: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let kind = fs::symlink_metadata(&full).unwrap().file_type();
        let content = if kind.is_dir() {
            left.extend(fs::read_dir(&full).unwrap().map(|e| path.join(e.unwrap().file_name())));
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(&full).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&full).unwrap()
        };
        all.insert(path, (stat(&full).unwrap(), content));
    }
    all
}

fn the_mount_answers_like_the_computers_own_filesystem(mount: Mount) {
    let local = mount("");
    for seed in 1..=WORLDS {
        let own = tempfile::tempdir().unwrap();
        let (own, ours) = (own.path().join("w"), local.path(&format!("world{seed}")));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&ours).unwrap();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for step in 0..STEPS {
            let op = roll(&mut dice);
            let (theirs, got) = (answer(&own, &op), answer(&ours, &op));
            assert!(theirs == got, "seed {seed}, step {step}, {op:?}: {theirs:?}, here {got:?}");
        }
        let (theirs, got) = (tree(&own), tree(&ours));
        assert_eq!(theirs.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
        for (path, expected) in &theirs {
            assert!(got[path] == *expected, "seed {seed}: {path:?} differs: {}", got[path].0);
        }
    }
}

on_each_core!(the_mount_answers_like_the_computers_own_filesystem,);
