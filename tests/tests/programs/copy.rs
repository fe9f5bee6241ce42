//! Copying whole trees onto a drive and back, with all that tools know to keep.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::drive::{Drive, missing, names, noise, sh, wait_for};

/// Sizes around the bounds of pages and blocks.
const SIZES: [usize; 7] = [0, 1, 4_095, 4_096, 4_097, 70_000, 300_000];

/// A tree with one of everything.
pub fn make_tree(dir: &Path) {
    for i in 0..6 {
        let sub = dir.join(format!("dir {i}/súb"));
        fs::create_dir_all(&sub).unwrap();
        for j in 0..SIZES.len() {
            let seed = format!("{i}/{j}");
            fs::write(sub.join(format!("f{j}")), noise(&seed, SIZES[(i + j) % SIZES.len()]))
                .unwrap();
        }
    }
    fs::write(dir.join("exe"), "#!/bin/sh\n").unwrap();
    fs::write(dir.join("ro"), "r").unwrap();
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"\xff\n\xf0\x9f\x98\x80")), "odd").unwrap();
    fs::hard_link(dir.join("exe"), dir.join("dir 0/exe-hard")).unwrap();
    symlink("../exe", dir.join("dir 1/sym")).unwrap();
    symlink("/nonexistent", dir.join("dangling")).unwrap();
    let more =
        "chmod 755 exe && chmod 444 ro && chmod 2775 'dir 5' && mkfifo -m 600 fifo && mkdir empty
        chown 65534:1 ro && chown -h 1:1 dangling
        setfattr -n user.k -v 0x760077 exe && setfattr -n user.d -v of-a-folder 'dir 2'
        setfacl -m u:1234:rx,g:65534:- exe && setfacl -d -m u:1234:rwx 'dir 3'
        for i in 0 1 2; do touch -d @150000000$i.98765432$i \"dir $i\"; done
        touch -h -d @1400000000.123456789 dangling && touch -d @-5.5 ro";
    sh(dir, more);
}

/// Everything there is to know of a tree, one line a name: what two equal trees agree on.
pub fn describe(dir: &Path) -> String {
    let list = "find . -printf '%P|%y|%m|%U:%G|%l|%T@|' \\
        \\( -type d -printf '\\n' -o -printf '%s|%n\\n' \\) | LC_ALL=C sort";
    let content = "find . -type f -exec sha256sum {} + | LC_ALL=C sort";
    let attributes = "find . -print0 | LC_ALL=C sort -z \\
        | xargs -0 getfattr -h -d --absolute-names -m '^(user|security|trusted)'";
    let lists = "find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n -p";
    sh(dir, &[list, content, attributes, lists].join("\n"))
}

/// Panics with the first line in which two descriptions differ.
#[track_caller]
pub fn assert_same(a: &str, b: &str, what: &str) {
    for (a, b) in a.lines().zip(b.lines()) {
        assert_eq!(a, b, "{what}");
    }
    assert_eq!(a.lines().count(), b.lines().count(), "{what}");
}

#[test]
fn rsync_carries_everything_there_and_back() {
    if missing(&["rsync"], "rsync to a drive and back") {
        return;
    }
    let drive = Drive::new();
    let own = drive.outside("own");
    let from = own.join("from");
    fs::create_dir(&from).unwrap();
    make_tree(&from);
    let want = describe(&from);
    let there = drive.device.dir_str();
    sh(&own, &format!("rsync -aHAX -@-1 from/ {there}/there/"));
    assert_same(&describe(&drive.path("there")), &want, "on the drive");
    assert_eq!(
        sh(&own, &format!("rsync -aHAXnci -@-1 --delete from/ {there}/there/")),
        "",
        "nothing to do"
    );
    drive.remount();
    sh(&own, &format!("rsync -aHAX -@-1 {there}/there/ back/"));
    assert_same(&describe(&own.join("back")), &want, "back again");
    // Then only what changed, in each of its ways to write.
    fs::write(from.join("dir 1/súb/f5"), noise("changed", 70_000)).unwrap();
    fs::remove_file(from.join("dir 2/súb/f0")).unwrap();
    sh(&own, &format!("rsync -aHAX -@-1 --delete from/ {there}/there/"));
    sh(&from, "head -c 100000 /dev/zero >> 'dir 1/súb/f5'");
    sh(&own, &format!("rsync -aHAX -@-1 --append-verify from/ {there}/there/"));
    fs::write(from.join("dir 1/súb/f5"), noise("again", 150_000)).unwrap();
    sh(&own, &format!("rsync -aHAX -@-1 --inplace --no-whole-file from/ {there}/there/"));
    sh(&own, &format!("rsync -aHAX -@-1 --delay-updates --fsync from/ {there}/there/"));
    assert_same(&describe(&drive.path("there")), &describe(&from), "after all changes");
    sh(&own, &format!("rsync -rt from/ {there}/plain/"));
    assert_eq!(
        sh(
            &own,
            &format!("rsync -rtnci from/ {there}/plain/ | grep -v '^skipping non-regular' || true")
        ),
        ""
    );
}

/// A program that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Begins a copy into the drive that does not end before its input does.
fn half_put(drive: &Drive, to: &Path, dir: &Path) -> Ended {
    let before = names(dir).len();
    let mut put = drive.device.command(&["put", "-", to.to_str().unwrap()]);
    let mut put = Ended(put.stdin(Stdio::piped()).spawn().unwrap());
    put.0.stdin.as_mut().unwrap().write_all(&noise("half", 3 << 20)).unwrap();
    wait_for("a temporary file is there", || names(dir).len() > before);
    put
}

#[test]
fn what_a_killed_put_leaves_goes_with_the_next_and_is_never_copied() {
    let drive = Drive::new();
    let (dir, own) = (drive.dir("d"), drive.outside("own"));
    let person = [".rdrivefs-1-1", ".rdrivefs-0123456789abcdef-1"];
    person.iter().for_each(|name| fs::write(dir.join(name), "a person's").unwrap());
    let mut running = half_put(&drive, &dir.join("running"), &dir);
    let kept = names(&dir);
    let mut killed = half_put(&drive, &dir.join("killed"), &dir);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(names(&dir).len(), kept.len() + 1, "{:?}", names(&dir));
    let words = "a put that ended before its time";
    assert!(drive.device.run(&["doctor"]).out.contains(words), "the doctor names it");
    fs::write(own.join("f"), "1").unwrap();
    drive.device.ok(&["put", own.join("f").to_str().unwrap(), drive.device.dir_str()]);
    assert_eq!(names(&dir), kept, "a running copy keeps its own, and persons keep theirs");
    assert!(!drive.device.run(&["doctor"]).out.contains(words), "nothing is left");
    let copy = own.join("copy");
    let said = drive.device.run(&["get", dir.to_str().unwrap(), copy.to_str().unwrap()]);
    assert_eq!((said.code, names(&copy)), (Some(0), vec![person[0].to_owned()]), "{said:?}");
    assert_eq!(said.err.matches("left out: it is not whole yet").count(), 2, "{said:?}");
    drop(running.0.stdin.take());
    assert!(running.0.wait().unwrap().success());
    assert_eq!(fs::read(dir.join("running")).unwrap(), noise("half", 3 << 20));
    // The same without a mount.
    let mut killed = half_put(&drive, &dir.join("killed"), &dir);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    drive.device.unmount();
    drive.device.ok(&["get", "/f", own.join("g").to_str().unwrap()]);
    drive.device.mount();
    assert_eq!(names(&dir), [person[1], person[0], "running"]);
}

#[test]
fn what_goes_from_a_folder_while_it_is_copied_is_left_out() {
    let drive = Drive::new();
    // The descriptor by which this folder is listed is in the list, and gone right after.
    let to = drive.path("descriptors");
    let said = drive.device.run(&["put", "/proc/self/fd", to.to_str().unwrap()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("left out: it went"), "{said:?}");
    assert!(names(&to).len() >= 3, "the others are there: {:?}", names(&to));
}

#[test]
fn tar_keeps_attributes_access_lists_and_holes() {
    let drive = Drive::new();
    let dir = drive.dir("s");
    make_tree(&dir);
    sh(
        &dir,
        "truncate -s 64M holes && printf end | dd of=holes bs=1 seek=30M conv=notrunc status=none",
    );
    let want = describe(&dir);
    let tar = "tar --xattrs --xattrs-include='*' --acls --sparse -cf";
    sh(&drive.device.dir, &format!("{tar} t.tar -C s . && mkdir o"));
    let archive = fs::metadata(drive.path("t.tar")).unwrap().len();
    assert!(archive < 16 << 20, "the hole went into the archive, of {archive} bytes");
    sh(&drive.device.dir, "tar --xattrs --xattrs-include='*' --acls -xpf t.tar -C o");
    assert_same(&describe(&drive.path("o")), &want, "unpacked on the drive");
    let own = drive.outside("own");
    let path = drive.path("t.tar");
    sh(&own, &format!("tar --xattrs --xattrs-include='*' --acls -xpf {}", path.display()));
    assert_same(&describe(&own), &want, "unpacked outside");
    sh(&drive.device.dir, "tar -C s --exclude holes -czf t.tgz . && tar -tzf t.tgz > /dev/null");
    sh(&drive.device.dir, "cp s/exe x && tar -rf t.tar x && tar -df t.tar x");
}

#[test]
fn cp_and_mv_keep_what_they_promise_to_keep() {
    let drive = Drive::new();
    let own = drive.outside("own");
    let from = own.join("from");
    fs::create_dir(&from).unwrap();
    make_tree(&from);
    let want = describe(&from);
    let there = drive.device.dir_str();
    sh(&own, &format!("cp -a from {there}/a && cp -a {there}/a {there}/b && cp -a {there}/b back"));
    for copy in [drive.path("a"), drive.path("b"), own.join("back")] {
        assert_same(&describe(&copy), &want, "cp -a");
    }
    sh(&own, &format!("mv {there}/a moved && mv moved {there}/c && mv {there}/b {there}/c/b"));
    assert_same(&describe(&drive.path("c/b")), &want, "mv");
    sh(&drive.path("c"), "mv b .. && cd .. && mv -n b c/ && test -d c/b && rm -r c/b");
    assert_eq!(sh(&drive.path("c"), "cp -al . ../d && stat -c %h exe ../d/exe"), "4\n4\n", "cp -l");
    sh(&drive.device.dir, "rm -rf d && cp -u c/exe e && cp --backup=numbered c/ro e && ls e.~1~");
    assert_eq!(names(&drive.device.dir), ["c", "e", "e.~1~"]);
}

#[test]
fn a_file_with_a_hole_is_copied_in_each_way_and_stays_small() {
    let drive = Drive::new();
    let dir = drive.dir("holes");
    sh(&dir, "head -c 3M /dev/urandom > a && cp --reflink=auto a b && cmp a b");
    sh(&dir, "printf start > h && truncate -s 24M h && printf end >> h");
    for way in ["always", "never", "auto"] {
        sh(&dir, &format!("cp --sparse={way} h h-{way} && cmp h h-{way}"));
        assert_eq!(fs::metadata(dir.join(format!("h-{way}"))).unwrap().len(), (24 << 20) + 3);
    }
    sh(&dir, "sync h h-always h-auto");
    for name in ["h", "h-always", "h-auto"] {
        let bytes = fs::metadata(dir.join(name)).unwrap().blocks() * 512;
        assert!(bytes < 4 << 20, "a hole of 24 MiB takes {bytes} bytes in {name}");
    }
}

#[test]
fn a_disk_image_made_there_is_sound() {
    if missing(&["mkfs.ext4", "e2fsck", "debugfs"], "a disk image on a drive") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("image");
    fs::create_dir(dir.join("content")).unwrap();
    fs::write(dir.join("content/f"), noise("image", 3_000_000)).unwrap();
    sh(&dir, "mkfs.ext4 -q -d content image 64M && e2fsck -fn image");
    sh(&dir, "debugfs -w -R 'write content/f g' image && debugfs -w -R 'rm f' image");
    drive.remount();
    sh(&dir, "e2fsck -fn image && debugfs -R 'dump g back' image && cmp back content/f");
    let bytes = fs::metadata(dir.join("image")).unwrap().blocks() * 512;
    assert!(bytes < 32 << 20, "an image with 3 MB in it takes {bytes} bytes");
}
