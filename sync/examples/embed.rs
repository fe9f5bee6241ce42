//! A drive inside another program: no mount, no daemon, no FUSE.
//!
//! ```text
//! cargo run -p rdrivefs-sync --example embed
//! cargo run -p rdrivefs-sync --example embed -- DIR
//! cargo run -p rdrivefs-sync --example embed -- [DIR] "$(rdrivefs-node invite)"
//! ```
//!
//! Everything of the drive lies in DIR, or in a temporary folder that is gone afterwards. With the
//! URL of a node, what is written is sealed, sent there, proven, dropped here and read back.

use std::error::Error;
use std::path::PathBuf;

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::home::Roots;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::keybag::Unlock;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::remote::link::NodeUrl;
use rdrivefs_sync::report::{DrivePath, Samples, VerifyPlan};
use rdrivefs_sync::tree::words::Caller;
use rdrivefs_sync::verify::samples_for;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const TEXT: &[u8] = b"Sealed before it leaves this machine.\n";
const PICTURE_BYTES: u32 = 3 << 20;

/// Be so sure that the node has not lost this share of what it was given.
const CONFIDENCE: f64 = 0.999;
const LOSS: f64 = 0.01;

fn main() -> Result<()> {
    let (mut dir, mut node) = (None, None);
    for word in std::env::args().skip(1) {
        match word.parse::<NodeUrl>() {
            Ok(url) => node = Some(url),
            Err(e) if word.starts_with("rdrive:") => return Err(e.into()),
            Err(_) => dir = Some(PathBuf::from(word)),
        }
    }
    let temporary = tempfile::tempdir()?;
    let drive = open(&dir.unwrap_or(temporary.path().to_owned()))?;
    write(&drive)?;
    read(&drive)?;
    list(&drive)?;
    match node {
        Some(url) => keep_elsewhere(&drive, &url)?,
        None => println!("Give the URL of a node to have it kept there, too."),
    }
    Ok(())
}

/// Opens the drive in `dir`, or founds one.
fn open(dir: &std::path::Path) -> Result<Drive> {
    let home = Roots::under(dir).home("default")?;
    if home.has_drive() {
        return Ok(Drive::open(&home, &Unlock::KeyFile, Env::real())?);
    }
    let (drive, phrase) = Drive::create(&home, &Unlock::KeyFile, Env::real())?;
    let words: Vec<_> = phrase.words().collect();
    println!("A new drive. Its recovery phrase, kept nowhere else: {}", words.join(" "));
    Ok(drive)
}

/// The tree speaks the language of a filesystem: inodes, offsets, and `sync` as fsync.
fn write(drive: &Drive) -> Result<()> {
    let (tree, me) = (drive.tree(), Caller { uid: 1000, gid: 1000, umask: 0o022 });
    let folder = match tree.make_directory(&me, Ino::ROOT, b"letters", 0o755) {
        Err(rdrivefs_sync::Error::Posix(Posix::Exists)) => tree.lookup(Ino::ROOT, b"letters")?,
        made => made?,
    };
    for (name, bytes) in [(&b"hello.txt"[..], TEXT.to_vec()), (b"picture", picture())] {
        let file = match tree.create(&me, folder.ino, name, 0o644) {
            Err(rdrivefs_sync::Error::Posix(Posix::Exists)) => tree.lookup(folder.ino, name)?,
            made => made?,
        };
        tree.write(file.ino, 0, &bytes)?;
        tree.sync(file.ino)?;
    }
    Ok(())
}

fn read(drive: &Drive) -> Result<()> {
    let tree = drive.tree();
    let folder = tree.lookup(Ino::ROOT, b"letters")?;
    let hello = tree.lookup(folder.ino, b"hello.txt")?;
    assert_eq!(tree.read(hello.ino, 0, 4096)?, TEXT);
    let large = tree.lookup(folder.ino, b"picture")?;
    assert!(tree.read(large.ino, 0, PICTURE_BYTES)? == picture());
    Ok(())
}

fn list(drive: &Drive) -> Result<()> {
    for entry in drive.list(&root(), None)? {
        println!("{:>9} {:o} {}", entry.size, entry.mode, entry.path);
    }
    Ok(())
}

/// Sends everything to a node, has it prove that it holds it, lets go of it here, reads it again.
fn keep_elsewhere(drive: &Drive, url: &NodeUrl) -> Result<()> {
    let silent = Progress::silent();
    if drive.status()?.remotes.is_empty() {
        drive.remote_add("home", url)?;
    }
    let sent = drive.sync(None, &silent)?;
    println!("{} bytes sent in {} layers", sent.pushed_bytes, sent.pushed_layers);

    let samples = Samples::Count(samples_for(CONFIDENCE, LOSS));
    let plan = VerifyPlan { samples, loss: LOSS, local: false, remote: None, path: None };
    let proof = drive.verify(&plan, &silent)?;
    println!(
        "{} of {} random challenges answered rightly: a loss of {} % would have gone unseen with \
         probability {:.4}",
        proof.samples - proof.failures,
        proof.samples,
        100.0 * LOSS,
        proof.unseen,
    );

    let evicted = drive.evict(&[root()], false, &silent)?;
    println!("{} bytes freed here, {} kept", evicted.evicted_bytes, evicted.kept_bytes);
    read(drive)?;
    println!("and every byte came back when it was read");
    Ok(())
}

fn root() -> DrivePath {
    DrivePath(b"/".to_vec())
}

/// Something that does not compress.
fn picture() -> Vec<u8> {
    let mut bytes = vec![0; PICTURE_BYTES as usize];
    blake3::Hasher::new_derive_key("rdrivefs example picture").finalize_xof().fill(&mut bytes);
    bytes
}
