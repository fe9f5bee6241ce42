//! Sizes, room and holes, and every way to move bytes in and out of a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

use crate::drive::{Drive, fails, noise, pick, sh};

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn find_du_and_df_make_sense() {
    let drive = Drive::new();
    let dir = drive.dir("sizes");
    for (n, len) in [0, 1, 999, 4_096, 100_000, 1 << 20].into_iter().enumerate() {
        fs::write(dir.join(format!("f{n}")), noise("sizes", len)).unwrap();
    }
    assert_eq!(sh(&dir, "find . -type f -size +4096c | wc -l"), "2\n");
    assert_eq!(sh(&dir, "find . -type f -size 999c"), "./f2\n");
    assert_eq!(sh(&dir, "find . -type f -empty"), "./f0\n");
    assert_eq!(sh(&dir, "touch -d '2 days ago' f1 && find . -type f -mtime +1"), "./f1\n");
    assert_eq!(sh(&dir, "find . -newer f1 -type f | wc -l"), "5\n");
    assert_eq!(sh(&dir, "stat -c %s f5 && du -b f5 | cut -f1"), "1048576\n1048576\n");
    let kib = |what: &str| {
        let said = sh(&dir, &format!("sync {what} && du -ks {what} | cut -f1"));
        said.trim().parse::<u64>().unwrap()
    };
    assert!((1_000..=2_048).contains(&kib("f5")), "1 MiB takes {} KiB", kib("f5"));
    assert!((1_100..=3_000).contains(&kib(".")), "a folder of 1.1 MB takes {} KiB", kib("."));
    let room = rustix::fs::statvfs(&dir).unwrap();
    assert!(room.f_blocks > 0 && room.f_bfree <= room.f_blocks && room.f_bavail <= room.f_bfree);
    assert!(room.f_files >= room.f_ffree && room.f_namemax == 255);
    let df = sh(&dir, "df -T . | tail -1 && df -i . | tail -1 && df -h . > /dev/null");
    assert!(df.contains("fuse.rdrivefs") && df.contains(drive.device.dir_str()), "{df}");
}

#[test]
fn a_file_of_a_tebibyte_takes_what_is_written_in_it() {
    let drive = Drive::new();
    let path = drive.path("huge");
    let (tib, before) = (1u64 << 40, rustix::fs::statvfs(&drive.device.dir).unwrap());
    let file = open(&path);
    file.set_len(tib).unwrap();
    file.write_all_at(b"far", tib - 3).unwrap();
    file.write_all_at(&noise("huge", 70_000), tib / 3).unwrap();
    assert_eq!(read(&file, tib - 5, 5), b"\0\0far");
    assert_eq!(read(&file, tib / 2, 10), [0; 10]);
    file.sync_all().unwrap();
    drop(file);
    drive.remount();
    let file = open(&path);
    let stat = file.metadata().unwrap();
    assert_eq!(stat.len(), tib);
    assert!(stat.blocks() * 512 < 64 << 20, "it takes {} blocks", stat.blocks());
    let after = rustix::fs::statvfs(&drive.device.dir).unwrap();
    let taken = before.f_bavail.saturating_sub(after.f_bavail) * before.f_frsize;
    assert!(taken < 8 << 30, "it took {taken} bytes of room");
    assert!(read(&file, tib / 3, 70_000) == noise("huge", 70_000));
    assert_eq!(seek(&file, SeekFrom::Data(tib / 2)).unwrap() >> 20, (tib - 3) >> 20);
    assert_eq!(
        sh(&drive.device.dir, "tail -c 3 huge && stat -c ' %s' huge"),
        format!("far {tib}\n")
    );
    file.set_len(7).unwrap();
    assert_eq!(read(&file, 0, 7), [0; 7]);
}

#[test]
fn holes_are_found_where_they_are() {
    let drive = Drive::new();
    let path = drive.path("h");
    let file = open(&path);
    let (mib, page) = (1u64 << 20, 65_536);
    file.write_all_at(&noise("data", 65_536), 8 * mib).unwrap();
    file.set_len(16 * mib).unwrap();
    drop(file);
    for round in ["dirty", "synced", "mounted again"] {
        match round {
            "synced" => open(&path).sync_all().unwrap(),
            "mounted again" => drive.remount(),
            _ => {}
        }
        let file = open(&path);
        let data = seek(&file, SeekFrom::Data(0)).unwrap();
        assert!(data > 0 && data <= 8 * mib, "{round}: the hole before is not told: {data}");
        let hole = seek(&file, SeekFrom::Hole(8 * mib)).unwrap();
        assert!(hole >= 8 * mib + page && hole < 16 * mib, "{round}: the hole after: {hole}");
        assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 0, "{round}");
        fails(seek(&file, SeekFrom::Data(16 * mib)), Errno::NXIO, round);
        fails(seek(&file, SeekFrom::Data(hole)), Errno::NXIO, round);
    }
}

#[test]
fn room_is_set_aside_punched_and_zeroed() {
    let drive = Drive::new();
    let file = open(&drive.path("f"));
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20, "fallocate makes it longer");
    file.write_all_at(b"q", 500).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(read(&file, 499, 3), b"\0q\0", "and leaves what is there");
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20, "nor, if so told, the size");
    let mut want = noise("punch", 2 << 20);
    file.write_all_at(&want, 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 5_000, 100_000).unwrap();
    want[5_000..105_000].fill(0);
    let zero = FallocateFlags::ZERO_RANGE;
    fallocate(&file, zero | FallocateFlags::KEEP_SIZE, 200_000, 1_000).unwrap();
    want[200_000..201_000].fill(0);
    assert!(read(&file, 0, 2 << 20) == want, "punched and zeroed");
    fallocate(&file, punch, (2 << 20) - 10, 100_000).unwrap();
    want[(2 << 20) - 10..].fill(0);
    fallocate(&file, zero, 2 << 20, 3_000).unwrap();
    want.resize((2 << 20) + 3_000, 0);
    file.sync_all().unwrap();
    drop(file);
    drive.crash();
    assert!(fs::read(drive.path("f")).unwrap() == want, "after fsync and the death of the mount");
    let file = open(&drive.path("f"));
    fails(fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4_096), Errno::OPNOTSUPP, "collapse");
    fails(fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4_096), Errno::OPNOTSUPP, "insert");
    sh(&drive.device.dir, "fallocate -l 3M g && fallocate -d f && fallocate -p -o 0 -l 1M g");
    assert!(
        fs::read(drive.path("f")).unwrap() == want,
        "fallocate -d digs holes only where zeros are"
    );
    assert_eq!(fs::read(drive.path("g")).unwrap(), vec![0; 3 << 20]);
}

#[test]
fn the_kernel_moves_bytes_between_files_and_pipes() {
    let drive = Drive::new();
    let want = noise("moved", 300_000);
    fs::write(drive.path("a"), &want).unwrap();
    let a = File::open(drive.path("a")).unwrap();
    let b = open(&drive.path("b"));
    let mut done = 0;
    while done < want.len() {
        let moved = copy_file_range(&a, None, &b, None, want.len() - done).unwrap();
        assert!(moved > 0, "copy_file_range stops after {done}");
        done += moved;
    }
    assert!(fs::read(drive.path("b")).unwrap() == want, "copy_file_range");
    let (mut from, mut to) = (5, 400_000);
    assert_eq!(copy_file_range(&a, Some(&mut from), &b, Some(&mut to), 1_000).unwrap(), 1_000);
    assert_eq!(b.metadata().unwrap().len(), 401_000);
    assert!(read(&b, 400_000, 1_000) == want[5..1_005] && read(&b, 300_000, 9) == [0; 9]);
    let c = open(&drive.path("c"));
    let mut at = 0;
    while at < 300_000 {
        assert!(rustix::fs::sendfile(&c, &a, Some(&mut at), 300_000).unwrap() > 0);
    }
    assert!(fs::read(drive.path("c")).unwrap() == want, "sendfile");
    let d = open(&drive.path("d"));
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    let (mut from, mut to, flags) = (0, 0, rustix::pipe::SpliceFlags::empty());
    while from < 300_000 {
        let took =
            rustix::pipe::splice(&a, Some(&mut from), &write_end, None, 60_000, flags).unwrap();
        let mut left = took;
        while left > 0 {
            left -= rustix::pipe::splice(&read_end, None, &d, Some(&mut to), left, flags).unwrap();
        }
    }
    assert!(fs::read(drive.path("d")).unwrap() == want, "splice");
}

#[test]
fn files_are_opened_past_the_cache_and_for_durable_writes() {
    let drive = Drive::new();
    let direct = OFlags::DIRECT.bits().cast_signed();
    let want = noise("direct", 65_536 * 3);
    // Room for a start at a whole page, as other filesystems ask for.
    let mut room = vec![0; want.len() + 4_096];
    let start = room.as_ptr().align_offset(4_096);
    room[start..start + want.len()].copy_from_slice(&want);
    let path = drive.path("o");
    let file = File::options().read(true).write(true).create(true).custom_flags(direct).open(&path);
    let file = file.unwrap();
    file.write_all_at(&room[start..start + want.len()], 0).unwrap();
    assert!(fs::read(&path).unwrap() == want, "a reader through the cache sees it");
    room.fill(0);
    file.read_exact_at(&mut room[start..start + want.len()], 0).unwrap();
    assert!(room[start..start + want.len()] == want, "and a reader past it");
    fs::write(drive.path("o"), &want[..100_000]).unwrap();
    let got = file.read_at(&mut room[start..start + want.len()], 0).unwrap();
    assert!(
        room[start..start + got] == want[..100_000],
        "what is still dirty is seen past the cache"
    );
    let durable = (OFlags::SYNC | OFlags::DSYNC).bits().cast_signed();
    let mut file = File::options();
    let mut file =
        file.write(true).create(true).custom_flags(durable).open(drive.path("s")).unwrap();
    file.write_all(&want[..10_000]).unwrap();
    drive.device.kill_daemon();
    drop(file);
    drive.device.mount();
    assert!(fs::read(drive.path("s")).unwrap() == want[..10_000], "O_SYNC needs no fsync");
}

#[test]
fn random_writes_and_cuts_leave_what_they_leave_in_memory() {
    let drive = Drive::new();
    let path = drive.path("big");
    let room = 24 << 20;
    let mut want = noise("big", room);
    fs::write(&path, &want).unwrap();
    let file = open(&path);
    for step in 0..300 {
        let random = |what: &str, end| pick(&format!("{what} {step}"), end);
        let (at, len) = (random("at", room), 1 + random("len", 150_000));
        let bytes = noise(&format!("bytes {step}"), len);
        file.write_all_at(&bytes, at as u64).unwrap();
        want.resize(want.len().max(at + len), 0);
        want[at..at + len].copy_from_slice(&bytes);
        if step % 10 == 0 {
            let size = random("size", room);
            file.set_len(size as u64).unwrap();
            want.resize(size, 0);
        }
        match step % 50 {
            20 => rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap(),
            40 => file.sync_all().unwrap(),
            _ => {}
        }
    }
    assert!(fs::read(&path).unwrap() == want);
    drop(file);
    drive.remount();
    assert!(fs::read(&path).unwrap() == want, "and after mounting again");
}
