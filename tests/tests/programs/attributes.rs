//! What a file has beside its bytes: times, modes, owners, attributes, access lists, a number.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rdrivefs_tests::world::run;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use rustix::io::Errno;

use crate::drive::{Drive, fails, missing, sh, shell};

/// An access time and a modification time, in seconds and nanoseconds.
type Times = [(i64, i64); 2];

fn set_times(path: &Path, times: Times) {
    let [last_access, last_modification] =
        times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
    let times = Timestamps { last_access, last_modification };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn times(path: &Path) -> Times {
    let stat = fs::symlink_metadata(path).unwrap();
    [(stat.atime(), stat.atime_nsec()), (stat.mtime(), stat.mtime_nsec())]
}

fn mtime(path: &Path) -> (i64, i64) {
    times(path)[1]
}

fn ctime(path: &Path) -> (i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ctime(), stat.ctime_nsec())
}

#[test]
fn times_are_kept_to_the_nanosecond_and_change_with_what_changes_them() {
    let drive = Drive::new();
    let (file, dir, link) = (drive.path("t"), drive.dir("d"), drive.path("l"));
    fs::write(&file, "1").unwrap();
    std::os::unix::fs::symlink("t", &link).unwrap();
    let odd = [(1_234_567_890, 123_456_789), (1_234_567_890, 987_654_321)];
    for path in [&file, &dir, &link] {
        set_times(path, odd);
        assert_eq!(times(path), odd, "{path:?}");
    }
    let far = [-1_000_000_000, (1 << 31) + 5, (1 << 32) + 5, -1]
        .map(|secs| [(secs, 1), (secs, 999_999_999)]);
    for (n, far) in far.iter().enumerate() {
        let path = drive.path(&format!("far{n}"));
        fs::write(&path, "1").unwrap();
        set_times(&path, *far);
    }
    drive.remount();
    for (n, far) in far.iter().enumerate() {
        assert_eq!(mtime(&drive.path(&format!("far{n}"))), far[1], "before 1970 and after 2106");
    }
    for path in [&file, &dir, &link] {
        assert_eq!(mtime(path), odd[1], "{path:?} after mounting again");
    }
    File::options().append(true).open(&file).unwrap().write_all(b"2").unwrap();
    assert!(mtime(&file) > odd[1], "writing sets the time of the file");
    set_times(&file, odd);
    File::options().write(true).open(&file).unwrap().set_len(1).unwrap();
    assert!(mtime(&file) > odd[1], "cutting does too");
    for (what, script) in [
        ("a new name", "touch x"),
        ("a rename", "mv x y"),
        ("a link", "ln y z"),
        ("a removal", "rm z"),
        ("a new folder", "mkdir s"),
        ("a removed folder", "rmdir s"),
    ] {
        set_times(&dir, odd);
        sh(&dir, script);
        assert!(mtime(&dir) > odd[1], "{what} sets the time of the folder");
    }
    for (what, script) in [
        ("a mode", "chmod 600 y"),
        ("an owner", "chown 1 y"),
        ("a link", "ln y z"),
        ("a rename", "mv y x && mv x y"),
        ("an attribute", "setfattr -n user.a -v 1 y"),
        ("a removed link", "rm z"),
    ] {
        let before = (ctime(&dir.join("y")), mtime(&dir.join("y")));
        // Clocks of filesystems go in steps of some milliseconds.
        std::thread::sleep(Duration::from_millis(30));
        sh(&dir, script);
        assert!(ctime(&dir.join("y")) > before.0, "{what} sets the time of the inode");
        assert_eq!(mtime(&dir.join("y")), before.1, "{what} leaves the time of the content");
    }
}

#[test]
fn modes_and_owners_are_kept_and_inherited() {
    let drive = Drive::new();
    let dir = drive.dir("m");
    let script = "umask 027; echo x > f; mkdir d; stat -c %a f d
        chown 65534:1 f && chmod 4751 f && stat -c %u:%g:%a f
        mkdir g && chgrp 1 g && chmod 2775 g && echo x > g/f && mkdir g/s && stat -c %g:%a g/f g/s
        chmod 1777 d && stat -c %a d; chmod 0 f && stat -c %a f; chmod 7777 f && stat -c %a f
        umask 0 && touch wide && mkdir wider && stat -c %a wide wider";
    let there = sh(&dir, script);
    assert_eq!(there, sh(&drive.outside("own"), script), "as in a local folder");
    assert!(there.starts_with("640\n750\n65534:1:4751\n1:640\n1:2750\n"), "{there}");
    let all = "stat -c %n:%a:%u:%g * g/*";
    let before = sh(&dir, all);
    drive.remount();
    assert_eq!(sh(&dir, all), before, "and after mounting again");
}

#[test]
fn others_may_do_what_modes_and_lists_let_them() {
    if missing(&["setpriv", "setfacl"], "the rights of other users on a drive") {
        return;
    }
    let drive = Drive::with("allow_other");
    for dir in drive.device.dir.ancestors().take(2) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let dir = drive.dir("rights");
    let other = |script: &str| {
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        let said = run(shell(&format!("exec {nobody} sh -c '{script}'")).current_dir(&dir));
        said.code == Some(0)
    };
    sh(&dir, "echo secret > f && chmod 600 f");
    assert!(!other("cat f") && !other("echo x > f") && !other("touch new"), "nothing is allowed");
    sh(&dir, "setfacl -m u:65534:r f");
    assert!(other("grep -q secret f") && !other("echo x > f"), "reading is");
    sh(&dir, "setfacl -m u:65534:rw f");
    assert!(other("echo more >> f"), "and writing");
    sh(&dir, "setfacl -m m::r f");
    assert!(!other("echo more >> f"), "but for the mask");
    sh(&dir, "chmod 777 . && setfacl -d -m u:65534:rwx,o::- . && echo x > inherits && mkdir sub");
    assert!(other("echo more >> inherits && echo y > sub/own"), "a default is inherited");
    sh(&dir, "setfacl -b f && chmod 644 f && setfacl -m u:65534:- f");
    assert!(!other("cat f"), "a list takes away what the mode gives to all");
    sh(&dir, "mkdir sticky && chmod 1777 sticky && echo x > sticky/roots");
    assert!(other("echo y > sticky/own && rm sticky/own"), "one's own");
    assert!(!other("rm -f sticky/roots && ! test -e sticky/roots"), "not another's");
    assert!(!other("mv sticky/roots sticky/mine"), "nor by a rename");
}

#[test]
fn extended_attributes_are_kept_by_files_folders_and_links() {
    let drive = Drive::new();
    let (file, dir) = (drive.path("x"), drive.dir("d"));
    fs::write(&file, "").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&file, name, value, flags);
    let get = |path: &Path, name: &str| {
        let mut value = vec![0; 65_536];
        rustix::fs::getxattr(path, name, &mut value[..]).map(|len| value[..len].to_vec())
    };
    set("user.a", b"1", XattrFlags::empty()).unwrap();
    set("user.big", &[b'z'; 3_000], XattrFlags::empty()).unwrap();
    set("user.bytes", b"v\0\xff\n", XattrFlags::empty()).unwrap();
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    set("trusted.t", b"t", XattrFlags::empty()).unwrap();
    set("security.s", b"s", XattrFlags::empty()).unwrap();
    fails(set("user.a", b"2", XattrFlags::CREATE), Errno::EXIST, "one that is there");
    fails(set("user.n", b"2", XattrFlags::REPLACE), Errno::NODATA, "one that is not");
    for name in ["user.", "trusted.", "security."] {
        fails(set(name, b"2", XattrFlags::empty()), Errno::INVAL, "a space without a name");
        fails(get(&file, name), Errno::INVAL, "a space without a name");
        fails(rustix::fs::removexattr(&file, name), Errno::INVAL, "a space without a name");
    }
    for name in ["other.n", "system.posix_acl_other"] {
        fails(set(name, b"2", XattrFlags::empty()), Errno::OPNOTSUPP, name);
        fails(get(&file, name), Errno::OPNOTSUPP, name);
        fails(rustix::fs::removexattr(&file, name), Errno::OPNOTSUPP, name);
    }
    for list in ["system.posix_acl_access", "system.posix_acl_default"] {
        rustix::fs::removexattr(&file, list).expect("a list that is not there says what modes say");
        rustix::fs::removexattr(&dir, list).expect("a list that is not there says what modes say");
    }
    let long = format!("user.{}", "n".repeat(251));
    fails(set(&long, b"2", XattrFlags::empty()), Errno::RANGE, "a name of 256 bytes");
    set(&long[..255], b"long", XattrFlags::empty()).unwrap();
    rustix::fs::removexattr(&file, "user.a").unwrap();
    rustix::fs::setxattr(&dir, "user.dir", b"d", XattrFlags::empty()).unwrap();
    sh(&drive.device.dir, "ln -s nowhere l && setfattr -h -n trusted.l -v of-a-link l");
    for round in ["at once", "mounted again"] {
        fails(get(&file, "user.a"), Errno::NODATA, round);
        assert_eq!(get(&file, "user.big").unwrap(), [b'z'; 3_000], "{round}");
        assert_eq!(get(&file, "user.bytes").unwrap(), b"v\0\xff\n", "{round}");
        assert_eq!(get(&file, "user.empty").unwrap(), b"", "{round}");
        assert_eq!(get(&file, "trusted.t").unwrap(), b"t", "{round}");
        assert_eq!(get(&file, "security.s").unwrap(), b"s", "{round}");
        assert_eq!(get(&file, &long[..255]).unwrap(), b"long", "{round}");
        assert_eq!(get(&dir, "user.dir").unwrap(), b"d", "{round}");
        let link = sh(&drive.device.dir, "getfattr -h -n trusted.l --only-values l");
        assert_eq!(link, "of-a-link", "{round}");
        drive.remount();
    }
    sh(
        &drive.device.dir,
        "mv x y && cp -a y z && getfattr -n user.big z > /dev/null && setfattr -x user.big y",
    );
    fails(get(&drive.path("y"), "user.big"), Errno::NODATA, "removed");
    assert_eq!(get(&drive.path("z"), "user.big").unwrap().len(), 3_000, "the copy has its own");
}

#[test]
fn kinds_and_numbers_are_told_by_listings_too() {
    let drive = Drive::new();
    let dir = drive.dir("a");
    sh(&dir, "mkdir b && echo > f && ln -s f l && mkfifo p");
    let mut seen = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let (kind, meta) =
            (entry.file_type().unwrap(), fs::symlink_metadata(entry.path()).unwrap());
        assert_eq!((kind, entry.ino()), (meta.file_type(), meta.ino()), "{entry:?}");
        seen.push((entry.file_name().into_string().unwrap(), kind.is_dir(), kind.is_symlink()));
    }
    seen.sort();
    let want = [("b", true, false), ("f", false, false), ("l", false, true), ("p", false, false)];
    assert_eq!(seen, want.map(|(name, dir, link)| (name.to_owned(), dir, link)));
    let links = fs::metadata(&dir).unwrap().nlink();
    assert!(links == 1 || links == 3, "a folder with one folder in it has {links} links");
    let number = |path: &str| fs::metadata(drive.path(path)).unwrap().ino();
    assert_eq!((number("a/b/.."), number("a/.")), (number("a"), number("a")));
    assert_eq!(sh(&dir, "find . -type d | wc -l && find . -type l -o -type p | wc -l"), "2\n2\n");
}

#[test]
fn a_file_keeps_its_number() {
    let drive = Drive::new();
    let number = |name: &str| fs::symlink_metadata(drive.path(name)).unwrap().ino();
    fs::write(drive.path("a"), "1").unwrap();
    fs::create_dir(drive.path("d")).unwrap();
    std::os::unix::fs::symlink("a", drive.path("l")).unwrap();
    let want = ["a", "d", "l"].map(number);
    let moved = ["d/b", "d", "d/l"];
    fs::rename(drive.path("a"), drive.path("d/b")).unwrap();
    fs::rename(drive.path("l"), drive.path("d/l")).unwrap();
    File::options().append(true).open(drive.path("d/b")).unwrap().write_all(b"2").unwrap();
    assert_eq!(moved.map(number), want, "after a rename and a write");
    drive.remount();
    assert_eq!(moved.map(number), want, "after mounting again");
    drive.crash_after_sync();
    assert_eq!(moved.map(number), want, "after the death of the mount");
    fs::remove_file(drive.path("d/b")).unwrap();
    fs::write(drive.path("d/b"), "another").unwrap();
    assert_ne!(number("d/b"), want[0], "another file has another");
}
