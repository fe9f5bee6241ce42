//! What outlives the mount: everything an unmount, and all that fsync confirmed a kill.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use crate::copy::{assert_same, describe, make_tree};
use crate::drive::{Drive, names, noise, pick, sh};

#[test]
fn a_tree_is_the_same_after_mounting_again() {
    let drive = Drive::new();
    let tree = drive.dir("tree");
    make_tree(&tree);
    let want = describe(&tree);
    drive.remount();
    assert_same(&describe(&tree), &want, "after mounting again");
    sh(&tree, "mv 'dir 0' moved && rm -r 'dir 1' && chmod 700 exe && setfattr -x user.k exe");
    sh(&tree, "setfacl -b exe && ln -sfn elsewhere dangling && truncate -s 5 'dir 2/súb/f3'");
    let want = describe(&tree);
    drive.remount();
    drive.remount();
    assert_same(&describe(&tree), &want, "after changes and mounting twice");
}

#[test]
fn plain_files_are_the_same_after_mounting_again() {
    let drive = Drive::new();
    let bytes = |n: usize| noise(&format!("file {n}"), pick(&format!("size {n}"), 200_000));
    for n in 0..100 {
        fs::write(drive.path(&format!("f{n}")), bytes(n)).unwrap();
    }
    fs::rename(drive.path("f0"), drive.path("renamed")).unwrap();
    fs::remove_file(drive.path("f1")).unwrap();
    for round in 1..=3 {
        File::options()
            .append(true)
            .create(true)
            .open(drive.path("app"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        drive.remount();
        assert_eq!(names(&drive.device.dir).len(), 100, "round {round}");
        assert_eq!(fs::metadata(drive.path("app")).unwrap().len(), round, "appended");
        assert!(fs::read(drive.path("renamed")).unwrap() == bytes(0), "round {round}");
        for n in 2..100 {
            assert!(
                fs::read(drive.path(&format!("f{n}"))).unwrap() == bytes(n),
                "f{n}, round {round}"
            );
        }
    }
}

#[test]
fn a_tree_that_was_synced_is_the_same_after_the_death_of_the_mount() {
    let drive = Drive::new();
    let tree = drive.dir("tree");
    make_tree(&tree);
    sh(&tree, "find . -type f -exec sync {} + && sync . ..");
    let want = describe(&tree);
    drive.crash();
    assert_same(&describe(&tree), &want, "everything was synced");
    // And the drive goes on from there.
    sh(&tree, "mv 'dir 0' moved && rm -r 'dir 1' && echo more >> exe && sync exe . moved");
    let want = describe(&tree);
    drive.crash();
    drive.remount();
    assert_same(&describe(&tree), &want, "after a second death");
}

/// What each operation did is there once the folder it was done in is synced.
#[test]
fn a_synced_folder_has_its_names_after_the_death_of_the_mount() {
    let drive = Drive::new();
    let dir = drive.dir("names");
    sh(
        &dir,
        "for i in 1 2 3 4 5 6; do echo $i > f$i; done; mkdir d; echo 7 > d/f7; sync f* d/f7 .",
    );
    sh(
        &dir,
        "mv f1 g1; rm f2; ln f3 g3; mv f4 f5; mv d/f7 .; rmdir d; ln -s f6 s; mkdir e; sync . ..",
    );
    drive.crash();
    assert_eq!(names(&dir), ["e", "f3", "f5", "f6", "f7", "g1", "g3", "s"]);
    assert_eq!(sh(&dir, "cat g1 f3 f5 f6 f7 s"), "1\n3\n4\n6\n7\n6\n");
    assert_eq!(fs::metadata(dir.join("g3")).unwrap().nlink(), 2);
}

/// Who writes beside and renames over finds the old or the new, and never less.
#[test]
fn a_file_replaced_while_the_mount_dies_is_the_old_or_the_new() {
    let drive = Drive::new();
    let doc = drive.path("doc");
    let version = |number: usize| noise(&format!("version {number}"), 20_000 + number);
    let mut known = 0;
    fs::write(&doc, version(0)).unwrap();
    File::open(&doc).unwrap().sync_all().unwrap();
    for round in 1..=3 {
        let first = known + 1;
        known = std::thread::scope(|scope| {
            let saves = scope.spawn(|| {
                for number in first.. {
                    let temp = drive.path("doc.tmp");
                    if fs::write(&temp, version(number)).is_err()
                        || fs::rename(&temp, &doc).is_err()
                    {
                        return number;
                    }
                }
                unreachable!("the mount dies first")
            });
            std::thread::sleep(std::time::Duration::from_millis(100 * round));
            drive.device.kill_daemon();
            let last = saves.join().unwrap();
            drive.device.mount();
            let read = fs::read(&doc).unwrap();
            let found = (known..=last).find(|number| version(*number) == read);
            found.unwrap_or_else(|| panic!("{} bytes are no version", read.len()))
        });
        File::open(&doc).unwrap().sync_all().unwrap();
    }
    assert!(known > 0, "no save lasted");
}
