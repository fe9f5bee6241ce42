//! Single promises of a local filesystem, each by itself.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};

use rustix::fs::{FallocateFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::daemon::{Mount, on_each_core};

fn an_unlinked_file_lives_until_it_is_closed(mount: Mount) {
    let local = mount("");
    let path = local.path("file");
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
    let file = file.as_mut().unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    let mut content = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "before after");
    // Its name is free at once.
    fs::create_dir(&path).unwrap();
}

fn names_of_any_255_bytes(mount: Mount) {
    let local = mount("");
    let odd: Vec<u8> = (1..=255u8).filter(|b| *b != b'/').chain([b'x']).collect();
    for name in [&odd[..], &[0xff; 255], b"new\nline", b"...", " \u{301}e".as_bytes()] {
        let path = local.dir.join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name);
    }
    let mut seen: Vec<_> =
        fs::read_dir(&local.dir).unwrap().map(|e| e.unwrap().file_name().len()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [3, 4, 8, 255, 255]);
    let long = fs::write(local.dir.join("n".repeat(256)), b"").unwrap_err();
    assert_eq!(long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
}

fn ten_thousand_entries_are_listed_once_each_even_while_some_go(mount: Mount) {
    let local = mount("");
    let dir = local.path("big");
    fs::create_dir(&dir).unwrap();
    for number in 0..10_000 {
        File::create(dir.join(format!("entry-{number:05}"))).unwrap();
    }
    let list = || {
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name twice");
        count
    };
    assert_eq!((list(), list()), (10_000, 10_000));
    // Removing behind the reader neither skips nor repeats what stays.
    let mut seen = 0;
    for (number, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let entry = entry.unwrap();
        seen += 1;
        if number % 2 == 0 {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!((seen, list()), (10_000, 5_000));
    let own = fs::metadata(&dir).unwrap().ino();
    let dots: Vec<_> = rustix::fs::Dir::read_from(File::open(&dir).unwrap())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name().to_bytes().starts_with(b"."))
        .map(|entry| (entry.file_name().to_bytes().len(), entry.ino()))
        .collect();
    assert_eq!(dots, [(1, own), (2, fs::metadata(&local.dir).unwrap().ino())]);
}

fn holes_are_punched_and_read_as_zeros(mount: Mount) {
    let local = mount("");
    let file = File::options().create_new(true).read(true).write(true).open(local.path("f"));
    let file = file.unwrap();
    file.write_all_at(&[9; 1 << 20], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 100_000, 500_000).unwrap();
    let mut content = vec![1; 1 << 20];
    file.read_exact_at(&mut content, 0).unwrap();
    let is = |range: std::ops::Range<usize>, byte| content[range].iter().all(|b| *b == byte);
    assert!(is(0..100_000, 9) && is(100_000..600_000, 0) && is(600_000..1 << 20, 9));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    let collapse = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(collapse, Err(Errno::OPNOTSUPP));
}

fn extended_attributes(mount: Mount) {
    let local = mount("");
    let path = local.path("file");
    fs::write(&path, b"").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    let big = vec![5; 60_000];
    set("user.a", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
    let both = XattrFlags::CREATE | XattrFlags::REPLACE;
    assert_eq!(set("user.a", b"2", both), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"2", both), Err(Errno::NODATA));
    set("user.big", &big, XattrFlags::CREATE).unwrap();
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::getxattr(&path, "user.big", &mut value[..]).unwrap();
    assert!(value[..len] == big[..]);
    let small = rustix::fs::getxattr(&path, "user.big", &mut value[..10]);
    assert_eq!(small, Err(Errno::RANGE));
    let len = rustix::fs::listxattr(&path, &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"user.a\0user.big\0");
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut value[..]), Err(Errno::NODATA));
}

fn roots_attributes_are_listed_to_root_alone(mount: Mount) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let local = mount("allow_other");
    fs::set_permissions(local.dir.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = local.path("file");
    fs::write(&path, b"").unwrap();
    for name in ["user.a", "trusted.b", "security.c"] {
        rustix::fs::setxattr(&path, name, b"1", XattrFlags::empty()).unwrap();
    }
    let listed = |mut command: std::process::Command| {
        let said = command.args(["getfattr", "-m-", "--absolute-names"]).arg(&path).output();
        let said = String::from_utf8(said.unwrap().stdout).unwrap();
        let is_name = |line: &&str| !line.is_empty() && !line.starts_with('#');
        said.lines().filter(is_name).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert_eq!(listed(std::process::Command::new("env")), ["security.c", "trusted.b", "user.a"]);
    assert_eq!(listed(other), ["security.c", "user.a"]);
}

fn times_are_kept_to_the_nanosecond_on_both_sides_of_1970(mount: Mount) {
    let local = mount("");
    let file = File::create(local.path("file")).unwrap();
    for (secs, nanos) in [(1_700_000_000, 123_456_789), (0, 1), (-1, 300_000_000), (-99, 0)] {
        let time = Timespec { tv_sec: secs, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times).unwrap();
        let stat = file.metadata().unwrap();
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (secs, nanos));
        assert_eq!((stat.atime(), stat.atime_nsec()), (secs, nanos));
    }
    let kept = file.metadata().unwrap().mtime();
    drop(file);
    assert_eq!(fs::metadata(local.path("file")).unwrap().mtime(), kept, "closing changed it");
}

fn special_files_keep_their_kind_and_number(mount: Mount) {
    let local = mount("dev");
    let path = local.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    let make = |name: &str, kind, dev| {
        rustix::fs::mknodat(rustix::fs::CWD, local.path(name), kind, mode, dev)
    };
    make("fifo", rustix::fs::FileType::Fifo, 0).unwrap();
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    let null = rustix::fs::makedev(1, 3);
    make("null", rustix::fs::FileType::CharacterDevice, null).unwrap();
    let stat = fs::metadata(local.path("null")).unwrap();
    assert!(stat.file_type().is_char_device() && stat.rdev() == null);
    fs::write(local.path("null"), b"swallowed").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(local.path("socket")).unwrap();
    std::os::unix::net::UnixStream::connect(local.path("socket")).unwrap();
}

fn ranges_are_copied_between_files(mount: Mount) {
    let local = mount("");
    let content: Vec<u8> = (0..2 << 20).map(|at: u32| (at / 7) as u8).collect();
    fs::write(local.path("from"), &content).unwrap();
    let from = File::open(local.path("from")).unwrap();
    let to = File::create(local.path("to")).unwrap();
    let (mut skip, mut at) = (1000, 5);
    let copied =
        rustix::fs::copy_file_range(&from, Some(&mut skip), &to, Some(&mut at), 1 << 20).unwrap();
    assert_eq!(copied, 1 << 20);
    let got = fs::read(local.path("to")).unwrap();
    assert!(got[..5] == [0; 5] && got[5..] == content[1000..1000 + (1 << 20)]);
}

fn statfs_tells_of_room(mount: Mount) {
    let local = mount("");
    let stat = rustix::fs::statvfs(&local.dir).unwrap();
    assert!(stat.f_bavail > 0 && stat.f_namemax == 255 && stat.f_bsize == 4096);
}

fn a_write_by_another_takes_lent_rights_away(mount: Mount) {
    let local = mount("suid,allow_other");
    let path = local.path("file");
    let lend = || {
        fs::write(&path, b"content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    };
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    let other = |script: &str| {
        let status = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
            .env("FILE", &path)
            .status()
            .unwrap();
        assert!(status.success());
    };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    fs::set_permissions(local.dir.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    lend();
    other("echo more >> \"$FILE\"");
    assert_eq!(mode(), 0o777);
    lend();
    other("truncate -s 3 \"$FILE\"");
    assert_eq!(mode(), 0o777);
    lend();
    fs::write(&path, b"by root, who keeps them").unwrap();
    assert_eq!(mode(), 0o6777);
    std::os::unix::fs::chown(&path, Some(1), None).unwrap();
    assert_eq!(mode(), 0o777);
}

fn lent_rights_end_as_on_a_local_disk(mount: Mount) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let local = mount("suid,allow_other");
    let mut disk = tempfile::Builder::new();
    let disk = disk.permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    fs::set_permissions(local.dir.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    for mode in [0o2644, 0o2654, 0o6666, 0o6777] {
        for groups in ["--clear-groups", "--groups=7"] {
            for script in [
                "truncate -s 3 $FILE",
                "echo more >> $FILE",
                "fallocate -l 99 $FILE",
                "chown 65534 $FILE",
            ] {
                let left = |path: &std::path::Path| {
                    fs::write(path, b"content").unwrap();
                    std::os::unix::fs::chown(path, Some(65534), Some(7)).unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                    let status = std::process::Command::new("setpriv")
                        .args(["--reuid=65534", "--regid=65534", groups, "sh", "-c", script])
                        .env("FILE", path)
                        .status();
                    assert!(status.unwrap().success(), "{script}");
                    fs::metadata(path).unwrap().mode() & 0o7777
                };
                let (here, there) = (left(&local.path("f")), left(&disk.path().join("f")));
                assert_eq!(here, there, "{mode:o} {groups} {script}: {here:o}, not {there:o}");
            }
        }
    }
    let socket = local.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o6755)).unwrap();
    std::os::unix::fs::chown(&socket, None, None).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o7777, 0o755, "an owner who is left");
}

on_each_core!(
    an_unlinked_file_lives_until_it_is_closed,
    names_of_any_255_bytes,
    ten_thousand_entries_are_listed_once_each_even_while_some_go,
    holes_are_punched_and_read_as_zeros,
    extended_attributes,
    roots_attributes_are_listed_to_root_alone,
    times_are_kept_to_the_nanosecond_on_both_sides_of_1970,
    special_files_keep_their_kind_and_number,
    ranges_are_copied_between_files,
    statfs_tells_of_room,
    a_write_by_another_takes_lent_rights_away,
    lent_rights_end_as_on_a_local_disk,
);
