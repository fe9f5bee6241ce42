//! Damage done to files that others rely on, and undone again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What can be done to a file behind everybody's back. Places are in thousandths of its length
/// where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit of the byte at this place is turned.
    Flip(usize),
    /// One bit of the byte at this offset is turned.
    FlipByte(usize),
    /// What stands behind this place is cut off; at 1000 the last byte.
    Truncate(usize),
    /// Something is added at the end.
    Extend,
    /// Another file of its kind takes its place.
    Swap,
    /// It has no bytes any more.
    Empty,
    /// It is gone.
    Delete,
}

/// Every kind of damage, with bytes turned at the beginning, in the middle and at the end.
pub const EVERY: [Damage; 9] = [
    Damage::Flip(0),
    Damage::Flip(500),
    Damage::Flip(1000),
    Damage::Truncate(500),
    Damage::Truncate(1000),
    Damage::Extend,
    Damage::Swap,
    Damage::Empty,
    Damage::Delete,
];

/// A damaged file that can be made whole.
#[must_use = "what was damaged must be mended"]
pub struct Wound {
    path: PathBuf,
    good: Vec<u8>,
    mode: u32,
}

impl Damage {
    /// Damages the file at `path`, with `other` at hand for a swap.
    ///
    /// # Panics
    /// When the file cannot be read or written, or would stay as it is.
    pub fn strike(self, path: &Path, other: &Path) -> Wound {
        let good = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mode = fs::metadata(path).expect("it was just read").permissions().mode();
        let wound = Wound { path: path.to_owned(), good, mode };
        match self.bytes(&wound.good, other) {
            Some(bytes) => {
                assert!(bytes != wound.good, "{self:?} leaves {} as it is", path.display());
                wound.write(&bytes);
            }
            None => fs::remove_file(path).expect("it can be removed"),
        }
        wound
    }

    /// The bytes it makes of good ones; none for a file that is gone.
    fn bytes(self, good: &[u8], other: &Path) -> Option<Vec<u8>> {
        let last = good.len().saturating_sub(1);
        let mut bytes = good.to_vec();
        match self {
            Self::Flip(at) => bytes[last * at / 1000] ^= 0x10,
            Self::FlipByte(at) => bytes[at] ^= 0x10,
            Self::Truncate(at) => bytes.truncate(last * at / 1000),
            Self::Extend => bytes.extend_from_slice(&[0x5a; 100]),
            Self::Swap => bytes = fs::read(other).expect("the other can be read"),
            Self::Empty => bytes.clear(),
            Self::Delete => return None,
        }
        Some(bytes)
    }
}

impl Wound {
    /// Makes it as it was.
    pub fn mend(self) {
        self.write(&self.good);
        let mode = fs::Permissions::from_mode(self.mode);
        fs::set_permissions(&self.path, mode).expect("its mode can be set");
    }

    fn write(&self, bytes: &[u8]) {
        if self.path.exists() {
            let open = fs::Permissions::from_mode(self.mode | 0o200);
            fs::set_permissions(&self.path, open).expect("its mode can be set");
        }
        fs::write(&self.path, bytes).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
    }
}
