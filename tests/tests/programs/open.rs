//! Files and folders that are open while their names change or go.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;

use crate::drive::{Drive, fails, names, noise, sh, shell};
use rdrivefs_tests::peer::Peer;

fn read_write(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_removed_file_lives_as_long_as_it_is_open() {
    let drive = Drive::new();
    let path = drive.path("u");
    let mut file = read_write(&path);
    file.write_all(b"hello").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(content(&mut file), b"hello");
    file.write_all(b" more").unwrap();
    let stat = file.metadata().unwrap();
    assert_eq!((stat.len(), stat.nlink()), (10, 0));
    assert_eq!(names(&drive.device.dir), Vec::<String>::new(), "no name of it is left");
    file.set_len(3).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "new").unwrap();
    assert_eq!(content(&mut file), b"hel", "another of its name is another file");
    let by_number = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(fs::read(by_number).unwrap(), b"hel");
    let big = noise("unlinked", 9 << 20);
    file.write_all_at(&big, 3).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(
        content(&mut file)[3..] == big,
        "also when it is larger than a layer's worth of writes"
    );
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_file_that_another_is_renamed_over_stays_what_it_was_to_who_has_it_open() {
    let drive = Drive::new();
    let (a, b) = (drive.path("a"), drive.path("b"));
    fs::write(&a, "old").unwrap();
    fs::write(&b, "new!").unwrap();
    let mut file = read_write(&a);
    fs::rename(&b, &a).unwrap();
    assert_eq!(content(&mut file), b"old");
    let stat = file.metadata().unwrap();
    assert_eq!((stat.len(), stat.nlink()), (3, 0));
    file.write_all(b"X").unwrap();
    file.sync_all().unwrap();
    assert_eq!(content(&mut file), b"oldX");
    drop(file);
    assert_eq!(fs::read(&a).unwrap(), b"new!");
    assert_eq!(names(&drive.device.dir), ["a"]);
    drive.remount();
    assert_eq!(fs::read(&a).unwrap(), b"new!");
}

#[test]
fn open_files_and_working_folders_follow_a_rename() {
    let drive = Drive::new();
    let dir = drive.path("x/y");
    fs::create_dir_all(&dir).unwrap();
    let mut file = read_write(&dir.join("f"));
    file.write_all(b"1").unwrap();
    let mut worker =
        Peer::of(shell("while read line; do echo $line > g; /bin/pwd; done").current_dir(&dir));
    assert_eq!(worker.ask("2"), dir.to_str().unwrap());
    fs::rename(drive.path("x"), drive.path("z")).unwrap();
    file.write_all(b"2").unwrap();
    assert_eq!(worker.ask("3"), drive.path("z/y").to_str().unwrap(), "its working folder moved");
    assert_eq!(fs::read(drive.path("z/y/f")).unwrap(), b"12");
    assert_eq!(fs::read(drive.path("z/y/g")).unwrap(), b"3\n");
    fs::create_dir(drive.path("e")).unwrap();
    let file_over_folder = fs::rename(drive.path("z/y/g"), drive.path("e"));
    fails(file_over_folder, Errno::ISDIR, "a file over a folder");
    fails(fs::rename(drive.path("e"), drive.path("z/y/g")), Errno::NOTDIR, "a folder over a file");
    fails(fs::rename(drive.path("e"), drive.path("z")), Errno::NOTEMPTY, "over a full folder");
    fails(fs::rename(drive.path("z"), drive.path("z/y/q")), Errno::INVAL, "a folder into itself");
    fs::create_dir(drive.path("empty")).unwrap();
    fs::rename(drive.path("z/y"), drive.path("empty")).unwrap();
    assert_eq!(fs::read(drive.path("empty/f")).unwrap(), b"12", "over an empty folder");
}

#[test]
fn a_removed_folder_that_is_open_is_empty_and_takes_nothing() {
    let drive = Drive::new();
    let path = drive.dir("q");
    let mut worker = Peer::of(
        shell("while read line; do (echo $line > f) 2> /dev/null && echo made || echo not; done")
            .current_dir(&path),
    );
    let folder = openat(CWD, &path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    fs::remove_dir(&path).unwrap();
    let left: Vec<_> = Dir::read_from(&folder).unwrap().map(Result::unwrap).collect();
    assert!(left.iter().all(|entry| entry.file_name().to_bytes().starts_with(b".")), "{left:?}");
    assert_eq!(rustix::fs::fstat(&folder).unwrap().st_nlink, 0);
    let create = OFlags::CREATE | OFlags::WRONLY;
    fails(openat(&folder, "f", create, Mode::RUSR), Errno::NOENT, "a file in a removed folder");
    fails(rustix::fs::mkdirat(&folder, "d", Mode::RWXU), Errno::NOENT, "a folder in it");
    assert_eq!(worker.ask("x"), "not", "nor in a working folder that is gone");
    fs::create_dir(&path).unwrap();
    assert_eq!(worker.ask("x"), "not", "another of its name is another folder");
    assert_eq!(names(&path), Vec::<String>::new());
}

#[test]
fn names_are_taken_only_when_free_and_exchanged_in_one_step() {
    let drive = Drive::new();
    let (a, b, c) = (drive.path("a"), drive.path("b"), drive.path("c"));
    let rename = |from: &Path, to: &Path, flags| renameat_with(CWD, from, CWD, to, flags);
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    fails(rename(&a, &b, RenameFlags::NOREPLACE), Errno::EXIST, "a name that is taken");
    rename(&a, &c, RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(&c).unwrap(), b"a");
    fs::create_dir(&a).unwrap();
    fs::write(a.join("inside"), "i").unwrap();
    rename(&a, &b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(&a).unwrap(), fs::read(b.join("inside")).unwrap()),
        (b"b".into(), b"i".into())
    );
    fails(rename(&a, &drive.path("none"), RenameFlags::EXCHANGE), Errno::NOENT, "with nothing");
    fails(
        rename(&b, &b.join("inside"), RenameFlags::EXCHANGE),
        Errno::INVAL,
        "with what is inside",
    );
    drive.crash_after_sync();
    assert_eq!(
        (fs::read(&a).unwrap(), fs::read(b.join("inside")).unwrap()),
        (b"b".into(), b"i".into())
    );
    // While two are exchanged over and over, both names are always there.
    let work = "while read line && test $line = look; do test -e a && test -e b || echo gone; done; \
                echo end";
    let mut watcher = Peer::of(shell(work).current_dir(&drive.device.dir));
    for _ in 0..200 {
        rename(&a, &b, RenameFlags::EXCHANGE).unwrap();
        watcher.tell("look");
    }
    watcher.tell("enough");
    assert_eq!(watcher.rest(), ["end"], "a name was gone for a moment");
    assert_eq!(names(&drive.device.dir), ["a", "b", "c"]);
}

/// FUSE as we speak it cannot make files without a name: who asks is told so, and has another way.
#[test]
fn programs_that_want_a_file_without_a_name_are_told_to_use_another_way() {
    let drive = Drive::new();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let refused = openat(CWD, &drive.device.dir, flags, Mode::RUSR | Mode::WUSR);
    fails(refused, Errno::OPNOTSUPP, "a file without a name");
    let mut file = tempfile::tempfile_in(&drive.device.dir).unwrap();
    file.write_all(b"temporary").unwrap();
    assert_eq!(content(&mut file), b"temporary");
    let named = tempfile::NamedTempFile::new_in(&drive.device.dir).unwrap();
    named.persist_noclobber(drive.path("kept")).unwrap();
    assert_eq!(names(&drive.device.dir), ["kept"]);
    // An open file gets a second name by its number.
    let file = read_write(&drive.path("kept"));
    let by_number = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, by_number, CWD, drive.path("second"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 2);
    sh(
        &drive.device.dir,
        "sort -T . -S 64K -o sorted /dev/null && (seq 20000 | sort -T . -S 64K | wc -l)",
    );
}

#[test]
fn a_folder_is_listed_whole_while_names_come_and_go() {
    let drive = Drive::new();
    let dir = drive.dir("busy");
    sh(&dir, "seq -f f%g 1500 | xargs touch");
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        fs::remove_file(entry.path()).unwrap();
        seen += 1;
    }
    assert_eq!((seen, names(&dir).len()), (1_500, 0), "each is seen once while it is removed");
    sh(&dir, "seq -f f%g 1500 | xargs touch");
    let mut stay = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with('f') {
            continue;
        }
        let number = stay.len();
        if number % 10 == 0 {
            fs::rename(dir.join(&name), dir.join(format!("g{number}"))).unwrap();
            fs::write(dir.join(format!("h{number}")), b"").unwrap();
        }
        stay.push(name);
    }
    let all = stay.len();
    stay.sort();
    stay.dedup();
    assert_eq!((stay.len(), all), (1_500, 1_500), "each that was there is seen once");
    sh(
        &dir,
        "ls | wc -l | grep -qx 1650 && ls -U | tail -1 > /dev/null && find . -mindepth 1 -delete",
    );
    assert_eq!(names(&dir), Vec::<String>::new());
}
