//! The calls, and how they are drawn at random.

use rdrivefs_sync::record::Kind;
use rdrivefs_sync::tree::words::{Rename, SetXattr};

/// A path from the root; empty is the root itself.
pub type Path = Vec<Vec<u8>>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

/// One call of a filesystem. Bytes that are written are a function of `seed` and their place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the POSIX call of that name, with its arguments")]
pub enum FsOp {
    Make {
        caller: Caller,
        path: Path,
        kind: Kind,
        mode: u32,
        rdev: u32,
    },
    Symlink {
        path: Path,
        target: Vec<u8>,
    },
    Link {
        from: Path,
        to: Path,
    },
    Unlink {
        path: Path,
    },
    RemoveDirectory {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        how: Rename,
    },
    Write {
        path: Path,
        offset: u64,
        len: usize,
        seed: u8,
    },
    Read {
        path: Path,
        offset: u64,
        len: u32,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    Chmod {
        path: Path,
        mode: u32,
    },
    Chown {
        path: Path,
        uid: u32,
        gid: u32,
    },
    Utimes {
        path: Path,
        secs: i64,
    },
    Punch {
        path: Path,
        offset: u64,
        len: u64,
    },
    Zero {
        path: Path,
        offset: u64,
        len: u64,
        keep: bool,
    },
    Allocate {
        path: Path,
        offset: u64,
        len: u64,
        keep: bool,
    },
    Seek {
        path: Path,
        offset: u64,
        data: bool,
    },
    Copy {
        from: Path,
        offset: u64,
        to: Path,
        at: u64,
        len: u64,
    },
    SetXattr {
        path: Path,
        name: Vec<u8>,
        len: usize,
        seed: u8,
        how: SetXattr,
    },
    RemoveXattr {
        path: Path,
        name: Vec<u8>,
    },
    /// Keeps a file open, whatever becomes of its name.
    Open {
        slot: usize,
        path: Path,
    },
    Close {
        slot: usize,
    },
    WriteOpen {
        slot: usize,
        offset: u64,
        len: usize,
        seed: u8,
    },
    ReadOpen {
        slot: usize,
        offset: u64,
        len: u32,
    },
    Sync {
        path: Path,
    },
}

/// Names worth having, the longest and oddest among them.
pub const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"name with spaces",
    b"\xff\xfe\x01\x80",
    "\u{e9}".as_bytes(),
    b"e\xcc\x81",
    &[0xaa; 255],
];

/// Files that can be open at one time.
pub const SLOTS: usize = 4;

/// A small generator, the same everywhere for the same seed.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn path(&mut self) -> Path {
        let depth = self.pick(&[1, 1, 1, 2, 2, 3]);
        let names = if self.below(4) == 0 { &NAMES[..] } else { &NAMES[..3] };
        (0..depth).map(|_| self.pick(names).to_vec()).collect()
    }

    fn offset(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => self.below(8),
            2 => self.below(700),
            3 => self.below(70_000),
            _ => self.below(50) * 4096,
        }
    }

    fn len(&mut self) -> u64 {
        match self.below(8) {
            0 => 1,
            1 | 2 => 1 + self.below(600),
            3 | 4 => 4096,
            5 => 1 + self.below(20_000),
            6 => 61_000 + self.below(1000),
            _ => 1 + self.below(200_000),
        }
    }
}

/// The bytes of a write.
pub fn bytes(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| ((offset + n) as u8).wrapping_mul(31).wrapping_add(seed) | 1).collect()
}

/// A call at random.
pub fn random_op(rng: &mut Rng) -> FsOp {
    let path = rng.path();
    match rng.below(100) {
        0..=13 => random_make(rng, path),
        14 => FsOp::Symlink { path, target: vec![b't'; 1 + rng.below(300) as usize] },
        15..=17 => FsOp::Link { from: rng.path(), to: path },
        18..=22 => FsOp::Unlink { path },
        23..=25 => FsOp::RemoveDirectory { path },
        26..=35 => {
            use Rename::{Exchange, NoReplace, Replace};
            let how = rng.pick(&[Replace, Replace, Replace, NoReplace, Exchange]);
            FsOp::Rename { from: rng.path(), to: path, how }
        }
        36..=99 => random_file_op(rng, path),
        _ => unreachable!("below 100"),
    }
}

fn random_make(rng: &mut Rng, path: Path) -> FsOp {
    use Kind::{Directory, Fifo, File};
    let kind = rng.pick(&[
        File,
        File,
        File,
        File,
        Directory,
        Directory,
        Directory,
        Fifo,
        Kind::CharDevice,
    ]);
    let caller = rng.pick(&[
        Caller { uid: 0, gid: 0, umask: 0o022 },
        Caller { uid: 1000, gid: 100, umask: 0o077 },
    ]);
    let mode = rng.pick(&[0o644, 0o755, 0o4755, 0o2775, 0o1777]);
    let rdev = if kind == Kind::CharDevice { 0x103 } else { 0 };
    FsOp::Make { caller, path, kind, mode, rdev }
}

fn random_file_op(rng: &mut Rng, path: Path) -> FsOp {
    let (offset, len, seed) = (rng.offset(), rng.len(), rng.below(256) as u8);
    let slot = rng.below(SLOTS as u64) as usize;
    match rng.below(64) {
        0..=17 => FsOp::Write { path, offset, len: len as usize, seed },
        18..=21 => FsOp::Read { path, offset, len: len as u32 },
        22..=25 => FsOp::Truncate { path, size: offset },
        26 | 27 => FsOp::Chmod { path, mode: rng.pick(&[0o600, 0o640, 0o4711, 0o2755, 0o6777]) },
        28 | 29 => FsOp::Chown { path, uid: rng.pick(&[0, 7]), gid: rng.pick(&[0, 9]) },
        30 | 31 => FsOp::Utimes { path, secs: rng.pick(&[-5, 0, 1 << 33]) },
        32..=34 => FsOp::Punch { path, offset, len },
        35 | 36 => FsOp::Zero { path, offset, len, keep: rng.below(2) == 0 },
        37 => FsOp::Allocate { path, offset, len, keep: rng.below(2) == 0 },
        38 | 39 => FsOp::Seek { path, offset, data: rng.below(2) == 0 },
        40..=43 => FsOp::Copy { from: rng.path(), offset, to: path, at: rng.offset(), len },
        44..=47 => {
            let how =
                rng.pick(&[SetXattr::Any, SetXattr::Any, SetXattr::Create, SetXattr::Replace]);
            let len = rng.pick(&[0, 5, 5000, 65_536]);
            let name = rng.pick(&[&b"user.one"[..], b"user.two", b"trusted.x", b"security.y"]);
            FsOp::SetXattr { path, name: name.to_vec(), len, seed, how }
        }
        48 => FsOp::RemoveXattr { path, name: b"user.one".to_vec() },
        49..=51 => FsOp::Open { slot, path },
        52 | 53 => FsOp::Close { slot },
        54..=58 => FsOp::WriteOpen { slot, offset, len: len as usize, seed },
        59..=61 => FsOp::ReadOpen { slot, offset, len: len as u32 },
        _ => FsOp::Sync { path },
    }
}
