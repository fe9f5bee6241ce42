//! Commits: batches of records, as the sealed body of an entry in a device's log.
//!
//! Everything in a commit takes effect together. It says what its maker had seen, so that two
//! commits are either ordered or concurrent, and a Lamport time that is one more than the largest
//! seen: a clock that jumps ahead would win every register for ever, so it is refused.
//!
//! Body of the entry (man/rdrivefs-format.5, "commit"):
//!
//! ```text
//!   0  24  nonce
//!  24  32  key commitment
//!  56   n  sealed under the epoch's log key, bound to the header of the entry (drive, log, number,
//!          previous hash, epoch):   u32 length of the CBOR ‖ the CBOR as one zstd frame
//! 56+n 16  tag
//!
//! commit = [seen: [* [log, number, hash]], lamport, wall_ms, layers: [* hash], records: [* record]]
//! ```
//!
//! `seen` ascends by log; `layers` are those that extents name, in the order of their first use.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::Encoder;
use rdrivefs_remote::entry::{Entry, Head, Header, LogKind};
use rdrivefs_remote::env::{Env, WallMs};
use zeroize::Zeroizing;

use super::cbor::encode_body;
use super::{LayerTable, Record};
use crate::error::{Error, Result};
use crate::keys::Epoch;
use crate::seal;

/// Longest CBOR of a commit: a reader holds it, and the records made of it, in memory.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;
/// More logs than a drive's devices have lives.
pub const SEEN_MAX: usize = 4096;
/// The largest Lamport time: a commit a microsecond gets there in 285 years.
pub const LAMPORT_MAX: u64 = (1 << 53) - 1;

/// Small commits are the rule and read often; 3 is where ratio stops being cheap.
const ZSTD_LEVEL: i32 = 3;
const CONTEXT: &str = "rdrivefs v1 commit";
const FIELDS: u64 = 5;

/// A batch of records that take effect together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The newest entry of each other log that its maker had seen, in ascending order of logs.
    pub seen: Vec<Head>,
    /// One more than the largest its maker had seen, its own commits included.
    pub lamport: u64,
    /// Its maker's clock, for people alone: nothing is decided by it.
    pub wall_ms: WallMs,
    /// The records, in no order that matters.
    pub records: Vec<Record>,
}

/// The Lamport time that follows these.
pub fn lamport_after(seen: impl IntoIterator<Item = u64>) -> u64 {
    seen.into_iter().max().unwrap_or(0) + 1
}

impl Commit {
    /// Seals the body of the entry with this header.
    ///
    /// # Errors
    /// [`Error::Refused`] when it says what a commit must not say or is too long.
    pub fn seal(&self, epoch: &Epoch, header: &Header, env: &Env) -> Result<Vec<u8>> {
        assert_eq!(header.epoch, epoch.id().0, "a commit is sealed in its entry's epoch");
        let refuse = |why: &str| Error::Refused(format!("a commit: {why}"));
        self.check().map_err(refuse)?;
        let plain = Zeroizing::new(self.encode());
        if plain.len() > COMMIT_BYTES_MAX {
            return Err(refuse("too long"));
        }
        let frame =
            zstd::bulk::compress(&plain[..], ZSTD_LEVEL).map_err(Error::io("compressing"))?;
        let len = u32::try_from(plain.len()).expect("bounded above");
        let framed = Zeroizing::new([&len.to_le_bytes()[..], &frame].concat());
        Ok(seal::seal_committed(CONTEXT, &epoch.log_key(), env, &bound(header), &framed))
    }

    /// Opens the body of an entry whose signature holds.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the entry, when it was sealed elsewhere or says what a commit
    /// must not say.
    pub fn open(epoch: &Epoch, entry: &Entry) -> Result<Self> {
        let bad = |why: &str| Error::corrupt(place(entry), why);
        if entry.log.kind != LogKind::Commits || entry.drive != epoch.drive() {
            return Err(bad("it is no commit of this drive"));
        }
        if entry.epoch != epoch.id().0 {
            return Err(bad("it is sealed in another epoch"));
        }
        let bound = bound(entry.header());
        let framed = seal::open_committed(CONTEXT, &epoch.log_key(), &bound, entry.body())
            .map_err(|e| Error::corrupt(place(entry), e))?;
        let plain = unframe(&Zeroizing::new(framed)).map_err(bad)?;
        let commit = Self::decode(&plain).map_err(bad)?;
        commit.check().map_err(bad)?;
        Ok(commit)
    }

    /// Checks the Lamport time against those of all commits seen, the log's own last included.
    ///
    /// # Errors
    /// [`Error::Refused`] for any but the next.
    pub fn check_lamport(&self, seen: impl IntoIterator<Item = u64>) -> Result<()> {
        let (next, got) = (lamport_after(seen), self.lamport);
        if got != next {
            return Err(Error::Refused(format!("a commit of time {got}, where {next} comes next")));
        }
        Ok(())
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let (table, records) = encode_body(&self.records);
        let mut out = Vec::with_capacity(records.len() + 256);
        let mut e = Encoder::new(&mut out);
        let head = e.array(FIELDS).and_then(|e| {
            e.encode(&self.seen)?.u64(self.lamport)?.u64(self.wall_ms.0)?.encode(&table)
        });
        head.expect("memory takes every write");
        out.extend_from_slice(&records);
        out
    }

    /// The reverse of [`Commit::encode`]; what the records say is not checked.
    ///
    /// # Errors
    /// Why the bytes are not the one encoding of a commit.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let commit = Self::decode_loosely(bytes).map_err(|_| "its CBOR is not that of a commit")?;
        if commit.encode() != bytes {
            return Err("it is not in its one encoding");
        }
        Ok(commit)
    }

    fn decode_loosely(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(FIELDS) {
            return Err(DecodeError::message("not the fields of a commit"));
        }
        let (seen, lamport, wall_ms) = (d.decode()?, d.u64()?, WallMs(d.u64()?));
        let mut table: LayerTable = d.decode()?;
        let records = d.decode_with(&mut table)?;
        Ok(Self { seen, lamport, wall_ms, records })
    }

    /// Whether it says nothing a commit must not say.
    ///
    /// # Errors
    /// Which bound it breaks.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.seen.len() > SEEN_MAX {
            return Err("it has seen too many logs");
        }
        if !self.seen.is_sorted_by(|a, b| a.log < b.log) {
            return Err("the logs it has seen are not in ascending order");
        }
        if self.seen.iter().any(|head| head.number == 0) {
            return Err("it has seen an empty log");
        }
        if self.lamport == 0 || self.lamport > LAMPORT_MAX {
            return Err("its Lamport time is out of range");
        }
        self.records.iter().try_for_each(Record::check)
    }
}

/// Opens the frame; the length is believed only as far as the bound.
fn unframe(framed: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let (len, frame) = framed.split_first_chunk().ok_or("it has no length")?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > COMMIT_BYTES_MAX {
        return Err("it is too long when opened");
    }
    if zstd::zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err("it is not one frame");
    }
    let plain = zstd::bulk::decompress(frame, len).map_err(|_| "it does not decompress")?;
    if plain.len() != len {
        return Err("its length is not what it says");
    }
    Ok(Zeroizing::new(plain))
}

fn bound(header: &Header) -> Vec<u8> {
    [&b"rdrivefs/v1/commit"[..], &header.encode()].concat()
}

fn place(entry: &Entry) -> String {
    format!("commit {} of {}", entry.number, entry.log.author.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DeviceNumber, FileId, LinkId, VersionId, draw};
    use crate::record::{Content, Extent, Kind, Source, TimeNs};
    use rdrivefs_remote::blob::BlobId;
    use rdrivefs_remote::entry::LogId;
    use rdrivefs_remote::identity::{DriveId, SecretKey};

    const DRIVE: DriveId = DriveId([3; 32]);

    fn author() -> SecretKey {
        SecretKey::from_seed([5; 32])
    }

    fn log() -> LogId {
        LogId { kind: LogKind::Commits, author: author().public(), instance: 0 }
    }

    fn header(epoch: &Epoch) -> Header {
        Header::after(DRIVE, &Head::empty(log()), epoch.id().0)
    }

    fn entry(header: Header, body: Vec<u8>) -> Entry {
        Entry::sign(&author(), header, body.into()).unwrap()
    }

    fn commit(records: Vec<Record>) -> Commit {
        Commit { seen: Vec::new(), lamport: 1, wall_ms: WallMs(1_700_000_000_000), records }
    }

    /// What writing a small file with a name like those of a source tree makes.
    fn creation(env: &Env, at: u64) -> [Record; 4] {
        let (file, link) = (draw(DeviceNumber(1), 2 * at + 1), draw(DeviceNumber(1), 2 * at + 2));
        let file = FileId(file);
        let time = |later: u64| {
            let ns = 1_700_000_000_000_000_000 + at * 83_000 + env.random_below(80_000) + later;
            TimeNs { secs: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
        };
        let words = ["index", "mod", "lib", "parser", "util", "tests", "main", "types", "error"];
        let (a, b) = (words[env.random_below(9) as usize], words[env.random_below(9) as usize]);
        let name = format!("{a}_{b}_{}.rs", env.random_below(5000)).into_bytes();
        let len = 600 + env.random_below(9000);
        let layer = BlobId::of(&(at / 4000).to_le_bytes());
        let source = Source::Chunk { layer, number: (at % 4000) as u32, skip: 0 };
        let parent = FileId(draw(DeviceNumber(1), at / 40 + 1_000_000));
        [
            Record::File { file, kind: Kind::File, rdev: 0, target: Vec::new(), born: time(0) },
            Record::Attr {
                file,
                mode: Some(0o644),
                uid: Some(1000),
                gid: Some(1000),
                mtime: None,
                atime: None,
                ctime: None,
                crtime: None,
            },
            Record::Link { link: LinkId(link), parent, name, file },
            Record::Version {
                file,
                id: VersionId(link),
                bases: Vec::new(),
                size: len,
                mtime: time(40_000),
                content: Content::Extents(vec![Extent { len, source }]),
            },
        ]
    }

    #[test]
    fn ten_thousand_small_files_weigh_little() {
        let env = Env::real();
        let epoch = Epoch::begin(DRIVE, &[], &env);
        let commit = commit((0..10_000).flat_map(|at| creation(&env, at)).collect());
        let (plain, header) = (commit.encode().len(), header(&epoch));
        let entry = entry(header.clone(), commit.seal(&epoch, &header, &env).unwrap());
        let per_file = entry.encode().len() / 10_000;
        eprintln!("{per_file} bytes a file, {} before compression", plain / 10_000);
        assert!(per_file <= 160, "{per_file} bytes a file");
        assert_eq!(Commit::open(&epoch, &entry).unwrap(), commit);
    }

    #[test]
    fn a_body_opens_in_its_place_alone() {
        let env = Env::real();
        let epoch = Epoch::begin(DRIVE, &[], &env);
        let header = header(&epoch);
        let commit = commit(creation(&env, 0).to_vec());
        let body = commit.seal(&epoch, &header, &env).unwrap();
        let first = entry(header.clone(), body.clone());
        assert_eq!(Commit::open(&epoch, &first).unwrap(), commit);
        let opens = |epoch: &Epoch, header: Header| {
            Commit::open(epoch, &entry(header, body.clone())).is_ok()
        };
        let moved = |change: &dyn Fn(&mut Header)| {
            let mut moved = header.clone();
            change(&mut moved);
            moved
        };
        assert!(!opens(&epoch, Header::after(DRIVE, &first.head(), epoch.id().0)));
        assert!(!opens(&epoch, moved(&|h| h.drive = DriveId([4; 32]))));
        assert!(!opens(&epoch, moved(&|h| h.log.instance = 1)));
        assert!(!opens(&epoch, moved(&|h| h.log.kind = LogKind::Membership)));
        assert!(!opens(&epoch, moved(&|h| h.epoch = [0; 32])));
        assert!(!opens(&Epoch::begin(DRIVE, &[], &env), header.clone()));
        for at in 0..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert!(Commit::open(&epoch, &entry(header.clone(), bad)).is_err(), "byte {at}");
        }
    }

    /// What a member could seal by hand.
    fn opened(framed: &[u8]) -> Result<Commit> {
        let env = Env::real();
        let epoch = Epoch::begin(DRIVE, &[], &env);
        let header = header(&epoch);
        let key = epoch.log_key();
        let body = seal::seal_committed(CONTEXT, &key, &env, &bound(&header), framed);
        Commit::open(&epoch, &entry(header, body))
    }

    fn framed(plain: &[u8]) -> Vec<u8> {
        let frame = zstd::bulk::compress(plain, 1).unwrap();
        [&(plain.len() as u32).to_le_bytes()[..], &frame].concat()
    }

    #[test]
    fn what_a_member_must_not_say_is_refused() {
        let good = commit(creation(&Env::real(), 0).to_vec());
        assert!(opened(&framed(&good.encode())).is_ok());
        let bomb = framed(&vec![0; COMMIT_BYTES_MAX + 1]);
        assert!(opened(&bomb).unwrap_err().to_string().contains("too long"));
        let mut lie = framed(&good.encode());
        lie[0] += 1;
        assert!(opened(&lie).is_err());
        let trailing = [&framed(&good.encode())[..], &[0]].concat();
        assert!(opened(&trailing).unwrap_err().to_string().contains("one frame"));
        let two = [&framed(&good.encode())[..], &zstd::bulk::compress(b"", 1).unwrap()].concat();
        assert!(opened(&two).unwrap_err().to_string().contains("one frame"));
        for lamport in [0, LAMPORT_MAX + 1] {
            let poisoned = Commit { lamport, ..good.clone() };
            assert!(opened(&framed(&poisoned.encode())).is_err());
        }
        let head = Head { log: log(), number: 1, hash: [1; 32] };
        for seen in [vec![head, head], vec![Head::empty(log())]] {
            let odd = Commit { seen, ..good.clone() };
            assert!(opened(&framed(&odd.encode())).is_err());
        }
    }

    #[test]
    fn a_clock_that_jumps_is_refused() {
        let commit = Commit { lamport: 8, ..commit(Vec::new()) };
        assert!(commit.check_lamport([3, 7, 5]).is_ok());
        assert!(commit.check_lamport([3, 5]).is_err());
        assert!(commit.check_lamport([8]).is_err());
        assert_eq!(lamport_after([]), 1);
    }
}
