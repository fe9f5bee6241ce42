//! A disk whose every write and flush is recorded, so that what lay on it at any moment of its life,
//! and what could have lain there had the power gone, can be made again.
//!
//! QEMU's storage daemon offers the image as a file by FUSE, notes each request in a log of the form
//! of dm-log-writes and passes it on; a loop device over that file is the disk. A flush of the
//! disk comes to the log as one, since a loop device syncs its file for it. Between two flushes a
//! disk may keep any of the writes and lose the others.
//!
//! What was started and mounted is ended when a value is dropped. Whoever has processes or mounts
//! on the disk drops those first.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::{run, wait_until};

/// The unit of the log and of its positions.
const SECTOR: u64 = 512;
/// The mark of an entry of the log that is a flush.
const FLUSH: u64 = 1;

/// A mounted ext4 whose writes are recorded.
pub struct RecordedDisk {
    /// Where it is mounted.
    pub dir: PathBuf,
    around: PathBuf,
    device: String,
    server: Child,
    read: u64,
    requests: Vec<Request>,
}

/// What the disk was asked, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Bytes to be put somewhere: where they stand in the log, and whereto.
    Write {
        /// Their place in the log.
        from: u64,
        /// Their place on the disk.
        to: u64,
        /// How many.
        len: u64,
    },
    /// All that was written before must be kept.
    Flush,
}

/// All that a disk was asked, and how it was before.
pub struct Recording {
    around: PathBuf,
    log: File,
    /// The requests, in order.
    pub requests: Vec<Request>,
}

/// The image of a disk, to which requests are applied; gone when it is dropped.
pub struct Image(PathBuf);

/// An image that is mounted.
pub struct Mounted {
    /// Where.
    pub dir: PathBuf,
}

impl RecordedDisk {
    /// A disk of that size in the folder `around`; none, said why, where this machine lets us not.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn new(around: &Path, mib: u64) -> Option<Self> {
        let path = |name: &str| around.join(name);
        let (image, file, dir) = (path("image"), path("recorded"), path("disk"));
        fs::create_dir_all(&dir).expect("a folder can be made");
        for empty in [&image, &file, &path("log")] {
            File::create(empty).expect("a file can be made");
        }
        File::options().write(true).open(&image).and_then(|file| file.set_len(mib << 20)).ok()?;
        // Nothing is left to be made later, of which no workload knows.
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
        let said = make.arg(&image).output();
        if !said.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: no ext4 can be made: {said:?}");
            return None;
        }
        copy(&image, &path("before"));
        let server = serve(around, &image, &file)?;
        let (requests, read) = (Vec::new(), SECTOR);
        let mut disk =
            Self { dir, around: around.to_owned(), device: String::new(), server, read, requests };
        wait_until("the recorded file is there", || {
            fs::metadata(&file).is_ok_and(|file| file.len() == mib << 20)
        });
        let said = run(Command::new("losetup").args(["--find", "--show"]).arg(&file));
        if said.code != Some(0) {
            println!("skipped: no loop device here: {}", said.err.trim());
            return None;
        }
        disk.device = said.out.trim().to_owned();
        let said = run(Command::new("mount").arg(&disk.device).arg(&disk.dir));
        if said.code != Some(0) {
            println!("skipped: nothing can be mounted here: {}", said.err.trim());
            return None;
        }
        Some(disk)
    }

    /// How many requests there were up to now.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn requests(&mut self) -> usize {
        let log = File::open(self.around.join("log")).expect("the log is there");
        while let Some((request, next)) = entry(&log, self.read) {
            self.requests.push(request);
            self.read = next;
        }
        self.requests.len()
    }

    /// Takes the disk away; what it was asked.
    ///
    /// # Panics
    /// When something still uses it, or its log cannot be read.
    pub fn end(mut self) -> Recording {
        wait_until("nobody uses the disk", || {
            run(Command::new("umount").arg(&self.dir)).code == Some(0)
        });
        self.requests();
        let log = File::open(self.around.join("log")).expect("the log is there");
        let (around, requests) = (self.around.clone(), std::mem::take(&mut self.requests));
        Recording { around, log, requests }
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        drop(run(Command::new("umount").arg("-l").arg(&self.dir)));
        if !self.device.is_empty() {
            drop(run(Command::new("losetup").arg("-d").arg(&self.device)));
        }
        drop(run(Command::new("kill").arg(self.server.id().to_string())));
        let gone = (0..250).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.server.try_wait().is_ok_and(|ended| ended.is_some())
        });
        if !gone {
            drop(self.server.kill());
            drop(self.server.wait());
        }
        drop(run(Command::new("umount").arg("-l").arg(self.around.join("recorded"))));
    }
}

impl Recording {
    /// The disk as it was when the recording began.
    pub fn before(&self, name: &str) -> Image {
        let image = Image(self.around.join(name));
        copy(&self.around.join("before"), &image.0);
        image
    }

    /// Applies a request to an image: `len_max` bytes of it, which is all if it is a large number.
    ///
    /// # Panics
    /// When image or log cannot be reached.
    pub fn apply(&self, request: Request, image: &Image, len_max: u64) {
        let Request::Write { from, to, len } = request else { return };
        let mut bytes = vec![0; usize::try_from(len.min(len_max)).expect("it fits memory")];
        self.log.read_exact_at(&mut bytes, from).expect("the log holds what was written");
        let image = File::options().write(true).open(&image.0).expect("the image is there");
        image.write_all_at(&bytes, to).expect("there is room");
    }
}

impl Image {
    /// A copy, to be mounted and thrown away.
    pub fn copy(&self, to: &Path) -> Self {
        copy(&self.0, to);
        Self(to.to_owned())
    }

    /// Mounts it: the kernel replays its log.
    ///
    /// # Errors
    /// What `mount` says.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn mount(&self, dir: &Path) -> Result<Mounted, String> {
        fs::create_dir_all(dir).expect("a folder can be made");
        let said = run(Command::new("mount").args(["-o", "loop"]).arg(&self.0).arg(dir));
        if said.code == Some(0) { Ok(Mounted { dir: dir.to_owned() }) } else { Err(said.err) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Threads of whoever used it may be about to go.
        let gone = (0..500).any(|_| {
            let gone = run(Command::new("umount").arg(&self.dir)).code == Some(0);
            std::thread::sleep(std::time::Duration::from_millis(if gone { 0 } else { 20 }));
            gone
        });
        if !gone {
            drop(run(Command::new("umount").arg("-l").arg(&self.dir)));
        }
    }
}

/// Copies an image without its holes.
fn copy(from: &Path, to: &Path) {
    let said = run(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// Starts the program that records.
fn serve(around: &Path, image: &Path, file: &Path) -> Option<Child> {
    let text = |path: &Path| path.to_str().expect("temporary paths are text").to_owned();
    let (image, file, log) = (text(image), text(file), text(&around.join("log")));
    let mut serve = Command::new("qemu-storage-daemon");
    serve.arg("--blockdev").arg(format!("driver=file,node-name=image,filename={image}"));
    serve.arg("--blockdev").arg(format!("driver=file,node-name=log,filename={log}"));
    let recorder = "driver=blklogwrites,node-name=recorder,file=image,log=log,log-sector-size=512";
    serve.arg("--blockdev").arg(recorder);
    let export = "type=fuse,id=export,node-name=recorder,writable=on";
    serve.arg("--export").arg(format!("{export},mountpoint={file}"));
    let errors = File::create(around.join("said")).expect("a file can be made");
    match serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn() {
        Err(e) => {
            println!("skipped: qemu-storage-daemon cannot be run: {e}");
            None
        }
        Ok(mut server) => {
            std::thread::sleep(std::time::Duration::from_millis(300));
            if server.try_wait().is_ok_and(|ended| ended.is_none()) {
                return Some(server);
            }
            let said = fs::read_to_string(around.join("said")).unwrap_or_default();
            println!("skipped: qemu-storage-daemon records nothing here: {}", said.trim());
            None
        }
    }
}

/// The entry at a place of the log, and where the next one is; none where the log ends.
fn entry(log: &File, at: u64) -> Option<(Request, u64)> {
    let mut words = [0; 32];
    log.read_exact_at(&mut words, at).ok()?;
    let word = |n: usize| {
        u64::from_le_bytes(words[8 * n..8 * n + 8].try_into().expect("eight of 32 bytes"))
    };
    let (to, sectors, flags) = (word(0) * SECTOR, word(1), word(2));
    if sectors == 0 && flags == 0 {
        return None;
    }
    assert_eq!(flags & !FLUSH, 0, "there are only writes and flushes");
    let (from, len) = (at + SECTOR, sectors * SECTOR);
    match flags {
        FLUSH => Some((Request::Flush, from)),
        _ => {
            // Its bytes are written before its entry counts.
            let end = log.metadata().ok()?.len();
            (end >= from + len).then_some((Request::Write { from, to, len }, from + len))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a log begins.
    const MAGIC: u64 = 0x006a_7366_7773_6872;

    #[test]
    fn what_is_written_and_synced_is_recorded_and_can_be_made_again() {
        let around = tempfile::tempdir().unwrap();
        let Some(mut disk) = RecordedDisk::new(around.path(), 64) else { return };
        let mut magic = [0; 8];
        File::open(around.path().join("log")).unwrap().read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(u64::from_le_bytes(magic), MAGIC);
        let before = disk.requests();
        let file = File::create(disk.dir.join("f")).unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        file.sync_all().unwrap();
        let synced = disk.requests();
        assert!(synced > before, "a sync reaches the disk");
        file.write_all_at(&[8; 10_000], 0).unwrap();
        drop(file);
        let recording = disk.end();
        assert!(recording.requests[before..synced].contains(&Request::Flush));
        assert!(recording.requests.len() > synced);
        for (until, byte) in [(before, None), (synced, Some(7)), (usize::MAX, Some(8))] {
            let image = recording.before("again");
            let requests = recording.requests.iter().take(until);
            requests.for_each(|request| recording.apply(*request, &image, u64::MAX));
            let mounted = image.mount(&around.path().join("again-there")).unwrap();
            let found = fs::read(mounted.dir.join("f")).ok();
            assert!(found == byte.map(|byte| vec![byte; 10_000]), "until request {until}");
        }
    }
}
