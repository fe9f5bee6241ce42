//! Names: of every byte, of every length, equal to a person and different to a machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::drive::{Drive, fails, names, sh};

fn at(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(name))
}

fn listed(dir: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_vec()).collect();
    names.sort();
    names
}

/// Writes, lists, reads, finds after mounting again, renames and removes files of these names.
fn are_kept(drive: &Drive, kind: &str, wanted: &[&[u8]]) {
    let dir = drive.dir(kind);
    let mut wanted: Vec<_> = wanted.iter().map(|name| name.to_vec()).collect();
    wanted.sort();
    for name in &wanted {
        File::create_new(at(&dir, name)).unwrap_or_else(|e| panic!("{kind}: {name:?}: {e}"));
        fs::write(at(&dir, name), [b"of ", &name[..]].concat()).unwrap();
    }
    drive.remount();
    assert_eq!(listed(&dir), wanted, "{kind}: the listing");
    for name in &wanted {
        assert_eq!(fs::read(at(&dir, name)).unwrap(), [b"of ", &name[..]].concat(), "{kind}");
    }
    for name in &wanted {
        let next = [&name[..name.len() - 1], b"~"].concat();
        fs::rename(at(&dir, name), at(&dir, &next)).unwrap();
        assert_eq!(fs::read(at(&dir, &next)).unwrap(), [b"of ", &name[..]].concat(), "{kind}");
        fs::remove_file(at(&dir, &next)).unwrap();
    }
    assert_eq!(listed(&dir), Vec::<Vec<u8>>::new(), "{kind}: nothing is left");
    sh(&drive.device.dir, &format!("rmdir {kind}"));
}

#[test]
fn names_of_255_bytes_are_kept_and_longer_ones_refused() {
    let drive = Drive::new();
    let (latin, kanji) = ("é".repeat(127) + "a", "日".repeat(85));
    let long = [&[b'n'; 255][..], latin.as_bytes(), kanji.as_bytes(), &[0xff; 255]];
    are_kept(&drive, "long", &long);
    fails(File::create(drive.path(&"n".repeat(256))), Errno::NAMETOOLONG, "256 bytes");
    let dir = drive.path(&"d".repeat(255));
    fs::create_dir_all(dir.join("d".repeat(255))).unwrap();
    fs::write(dir.join("d".repeat(255)).join("f"), "1").unwrap();
    symlink("s".repeat(255), drive.path(&"l".repeat(255))).unwrap();
    fs::rename(&dir, drive.path(&"e".repeat(255))).unwrap();
    fails(
        fs::rename(drive.path(&"e".repeat(255)), drive.path(&"e".repeat(256))),
        Errno::NAMETOOLONG,
        "a rename",
    );
    let moved = drive.path(&"e".repeat(255)).join("d".repeat(255)).join("f");
    assert_eq!(fs::read(moved).unwrap(), b"1");
    let link = fs::read_link(drive.path(&"l".repeat(255))).unwrap();
    assert_eq!(link.as_os_str().len(), 255);
}

#[test]
fn names_that_are_no_text_are_kept() {
    let drive = Drive::new();
    are_kept(&drive, "bytes", &[b"\xff\xfe", b"caf\xe9", b"\x80x", b"a\xc3", b"\xed\xa0\x80"]);
    let control: [&[u8]; 7] =
        [b"a\nb", b"tab\tx", b"\x01\x02", b"bell\x07", b"\x7f", b"cr\rx", b"\n"];
    are_kept(&drive, "control", &control);
    let all: Vec<u8> = (1..=254u8).filter(|byte| *byte != b'/').collect();
    are_kept(&drive, "all", &[&all]);
}

#[test]
fn names_that_look_alike_stay_apart() {
    let drive = Drive::new();
    are_kept(
        &drive,
        "case",
        &[b"ReadmeX", b"READMEX", b"readmeX", "Straße1".as_bytes(), b"STRASSE1"],
    );
    let forms = ["\u{e9}1", "e\u{301}1", "\u{c5}1", "\u{212b}1", "A\u{30a}1", "\u{fb01}1", "fi1"];
    are_kept(&drive, "forms", &forms.map(str::as_bytes));
    let emoji = ["😀", "👩‍👩‍👧", "👩👩👧", "\u{200b}a", "a\u{200b}b", "\u{202e}txt.exe", "і"];
    are_kept(&drive, "emoji", &emoji.map(str::as_bytes));
}

#[test]
fn names_that_mean_something_elsewhere_mean_nothing_here() {
    let drive = Drive::new();
    let shell: [&[u8]; 9] =
        [b"-rf x", b" lead", b"trail ", b"back\\s", b"q\"uote", b"x*?", b"<>|", b"$(id)", b"#x#"];
    are_kept(&drive, "shell", &shell);
    let other: [&[u8]; 8] =
        [b"CON", b"nul.txt", b"dot.", b"a:b", b"...", b"%41x", b"a%2fb", b".fuse_hidden0001"];
    are_kept(&drive, "other", &other);
}

#[test]
fn folders_lie_two_hundred_deep_and_deeper_than_a_path_is_long() {
    let drive = Drive::new();
    let mut dir = drive.device.dir.clone();
    for level in 0..200 {
        dir.push(format!("level{level}"));
        fs::create_dir(&dir).unwrap();
    }
    fs::write(dir.join("f"), "deep").unwrap();
    drive.remount();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"deep");
    assert_eq!(sh(&drive.device.dir, "find . -type f | wc -l && du -s level0 | wc -l"), "1\n1\n");
    let below = drive.path("level0/level1/level2");
    fails(fs::rename(drive.path("level0"), below.join("x")), Errno::INVAL, "a folder into itself");
    sh(
        &drive.device.dir,
        "mv level0/level1 . && test -d level1/level2 && cp -a level1 copy && rm -r level0 level1",
    );
    // A path of more than 4096 bytes has no name in one piece; step by step it does.
    let (folder, read) = (OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty());
    let mut here = openat(CWD, &drive.device.dir, folder, read).unwrap();
    let name = "x".repeat(200);
    for _ in 0..30 {
        mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, &name, folder, read).unwrap();
    }
    drop(openat(&here, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap());
    unlinkat(&here, "f", AtFlags::empty()).unwrap();
    drop(here);
    assert_eq!(sh(&drive.device.dir, &format!("find {name} -type d | wc -l")), "30\n");
    sh(&drive.device.dir, "rm -rf x* copy");
    assert_eq!(names(&drive.device.dir), Vec::<String>::new());
}

#[test]
fn symbolic_links_lead_where_they_say() {
    let drive = Drive::new();
    let dir = drive.dir("links");
    let at = |name: &str| dir.join(name);
    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    fails(File::open(at("a")), Errno::LOOP, "a link that leads to itself");
    symlink("x".repeat(4_000), at("long")).unwrap();
    assert_eq!(fs::read_link(at("long")).unwrap().as_os_str().len(), 4_000);
    fs::create_dir(at("real")).unwrap();
    symlink("real", at("way")).unwrap();
    fs::write(at("way/f"), "1").unwrap();
    assert_eq!(fs::read(at("real/f")).unwrap(), b"1");
    assert_eq!(fs::symlink_metadata(at("way")).unwrap().len(), 4, "its size is that of its words");
    symlink(&drive.device.dir, at("absolute")).unwrap();
    assert_eq!(fs::read(at("absolute/links/real/f")).unwrap(), b"1");
    symlink("../links/./real//f", at("winding")).unwrap();
    drive.remount();
    assert_eq!(fs::read(at("winding")).unwrap(), b"1");
    assert_eq!(
        sh(&dir, "readlink winding && cd -P way && pwd -P | grep -c /real$"),
        "../links/./real//f\n1\n"
    );
    fails(fs::write(at("long"), b"x"), Errno::NAMETOOLONG, "a link to a name that is too long");
    sh(
        &dir,
        "ln -sfn elsewhere way && ! test -e way && rm way && test -f real/f && rm -r absolute",
    );
    assert!(drive.path("links/real/f").exists(), "what a link led to stays");
}

#[test]
fn hard_links_are_one_file_by_several_names() {
    let drive = Drive::new();
    let dir = drive.dir("links");
    let at = |name: &str| dir.join(name);
    fs::write(at("a"), "1").unwrap();
    fs::create_dir(at("s")).unwrap();
    fs::hard_link(at("a"), at("s/b")).unwrap();
    let stat = fs::metadata(at("a")).unwrap();
    assert_eq!((stat.nlink(), stat.ino()), (2, fs::metadata(at("s/b")).unwrap().ino()));
    fs::write(at("s/b"), "22").unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"22");
    drive.remount();
    assert_eq!(fs::metadata(at("a")).unwrap().ino(), fs::metadata(at("s/b")).unwrap().ino());
    fs::remove_file(at("a")).unwrap();
    assert_eq!(
        (fs::metadata(at("s/b")).unwrap().nlink(), fs::read(at("s/b")).unwrap()),
        (1, b"22".to_vec())
    );
    fs::hard_link(at("s/b"), at("c")).unwrap();
    fs::rename(at("c"), at("s/b")).unwrap();
    assert!(
        at("c").exists() && at("s/b").exists(),
        "renaming one name over the other does nothing"
    );
    fails(fs::hard_link(at("c"), at("s/b")), Errno::EXIST, "a link over a name");
    fails(fs::hard_link(at("s"), at("t")), Errno::PERM, "a link to a folder");
    symlink("c", at("soft")).unwrap();
    fs::hard_link(at("soft"), at("hard")).unwrap();
    assert!(fs::symlink_metadata(at("hard")).unwrap().is_symlink(), "a link to a link");
    sh(&dir, "for i in $(seq 500); do ln c n$i; done");
    assert_eq!(fs::metadata(at("c")).unwrap().nlink(), 502);
    assert_eq!(sh(&dir, "find . -samefile c | wc -l && rm n* && stat -c %h c"), "502\n2\n");
}
