//! A disk of its own for a test: a filesystem in a file, behind a loop device.
//!
//! It can be filled, and cut off as by a loss of power: the filesystem stops dead, is unmounted and
//! mounted again, and its log is replayed by the kernel. What was mounted is unmounted and the loop
//! device given back when the value is dropped. Whoever has processes or mounts on it drops those
//! first.

use std::fs;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::OFlags;

use crate::compiled::compiled;
use crate::world::{run, wait_until};

/// A mounted filesystem in a file.
pub struct LoopDisk {
    /// Where it is mounted.
    pub dir: PathBuf,
    device: String,
    cut: PathBuf,
}

impl LoopDisk {
    /// A disk of that kind (ext4 or xfs) and size, named in `around`; none, said why, where this
    /// machine does not let us.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn new(around: &Path, name: &str, kind: &str, mib: u64) -> Option<Self> {
        let (image, dir) = (around.join(format!("{name}.image")), around.join(name));
        fs::create_dir_all(&dir).expect("a folder can be made");
        fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("there is room");
        let mut make = Command::new(format!("mkfs.{kind}"));
        make.arg("-q").arg(if kind == "ext4" { "-F" } else { "-f" }).arg(&image);
        match make.output() {
            Err(e) => {
                println!("skipped: mkfs.{kind} cannot be run: {e}");
                return None;
            }
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        let said = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        if said.code != Some(0) {
            println!("skipped: no loop device here: {}", said.err.trim());
            return None;
        }
        let cut = compiled(around, "cut", include_str!("loop_disk/cut.c"));
        let disk = Self { dir, device: said.out.trim().to_owned(), cut };
        match disk.mount() {
            Ok(()) => Some(disk),
            Err(why) => {
                println!("skipped: {kind} cannot be mounted here: {why}");
                None
            }
        }
    }

    /// Stops the filesystem as a loss of power would; all that uses it gets errors from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn cut(&self) {
        let said = run(Command::new(&self.cut).arg(&self.dir));
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    /// Takes it away and puts it back: its log is replayed.
    ///
    /// # Panics
    /// When something still uses it, or it does not come back.
    pub fn replay(&self) {
        wait_until("nobody uses the disk", || {
            run(Command::new("umount").arg(&self.dir)).code == Some(0)
        });
        // A mount namespace that somebody else on this machine just made has it mounted as well,
        // and what is mounted somewhere is mounted again as it is: stopped, and not replayed.
        wait_until("no mount is left of the disk", || {
            let alone = OFlags::EXCL.bits().cast_signed();
            fs::File::options().read(true).custom_flags(alone).open(&self.device).is_ok()
        });
        self.mount().expect("it was mounted before");
    }

    /// Takes all room there is, down to the last block; returns what to remove to get it back.
    ///
    /// # Panics
    /// When no file can be made.
    pub fn fill(&self) -> PathBuf {
        let path = self.dir.join("filler");
        let file = fs::File::create(&path).expect("a file can be made");
        let mut at = 0;
        for len in [1 << 20, 64 << 10, 4 << 10, 512] {
            let bytes = vec![0x55; len];
            while file.write_all_at(&bytes, at).is_ok() && file.sync_data().is_ok() {
                at += len as u64;
            }
        }
        path
    }

    fn mount(&self) -> Result<(), String> {
        let said = run(Command::new("mount").arg(&self.device).arg(&self.dir));
        if said.code == Some(0) { Ok(()) } else { Err(said.err) }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        drop(run(Command::new("umount").arg("-l").arg(&self.dir)));
        drop(run(Command::new("losetup").arg("-d").arg(&self.device)));
    }
}
