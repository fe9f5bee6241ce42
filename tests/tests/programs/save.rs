//! How editors, office programs and scripts save: beside, over, in place, with locks and backups.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::drive::{Drive, missing, names, noise, sh, shell, try_sh, wait_for};
use rdrivefs_tests::peer::Peer;

#[test]
fn vim_saves_in_each_of_its_ways_and_leaves_nothing_behind() {
    if missing(&["vim"], "saving with vim on a drive") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("docs");
    for way in ["yes", "no", "auto"] {
        let doc = dir.join(format!("doc-{way}.txt"));
        fs::write(&doc, "hello\n").unwrap();
        fs::set_permissions(&doc, fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(&doc, dir.join(format!("link-{way}"))).unwrap();
        for line in ["two", "three"] {
            let vim = format!(
                "vim -u NONE -i NONE -es -c 'set backupcopy={way} writebackup backupskip= swapfile' \
                 -c 'normal Goline {line}' -c wq doc-{way}.txt"
            );
            sh(&dir, &vim);
        }
        assert_eq!(fs::read_to_string(&doc).unwrap(), "hello\nline two\nline three\n", "{way}");
        assert_eq!(fs::metadata(&doc).unwrap().mode() & 0o777, 0o640, "the mode, with {way}");
    }
    // It keeps links where it writes in place, and where it finds that there are any.
    let linked = |way: &str| fs::metadata(dir.join(format!("link-{way}"))).unwrap().nlink();
    assert_eq!((linked("yes"), linked("no"), linked("auto")), (2, 1, 2));
    let docs: Vec<_> = names(&dir).into_iter().filter(|name| !name.starts_with("link")).collect();
    assert_eq!(docs, ["doc-auto.txt", "doc-no.txt", "doc-yes.txt"], "no swap or backup file stays");
    // A killed editor leaves its swap file, and the next one finds what was typed in it.
    let script = "vim -u NONE -i NONE -es -c 'set swapfile' -c 'normal Golost' -c preserve \
        -c 'silent !kill -9 $PPID' doc-no.txt";
    try_sh(&dir, script);
    assert!(names(&dir).contains(&".doc-no.txt.swp".to_owned()), "{:?}", names(&dir));
    sh(
        &dir,
        "vim -u NONE -i NONE -es -r -c 'w! recovered' -c 'qa!' doc-no.txt; grep -qx lost recovered",
    );
}

/// Reads `doc` over and over and says how often it was seen whole; torn or missing is a failure.
fn read_whole(doc: &Path, end: &AtomicBool) -> usize {
    let mut seen = 0;
    while !end.load(Ordering::Relaxed) {
        let read = fs::read(doc).unwrap_or_else(|e| panic!("a reader saw no document: {e}"));
        let (number, body) = read.split_at(read.len().min(2));
        assert!(read.len() >= 2 && number[0] == b'v', "a reader saw {} odd bytes", read.len());
        assert_eq!(body.len(), usize::from(number[1]) * 1_000, "a reader saw a torn document");
        seen += 1;
    }
    seen
}

fn version(number: u8) -> Vec<u8> {
    let mut bytes = vec![b'v', number];
    bytes.resize(2 + usize::from(number) * 1_000, b'x');
    bytes
}

#[test]
fn an_office_program_saves_while_others_read() {
    let drive = Drive::new();
    let dir = drive.dir("office");
    let doc = dir.join("report.odt");
    fs::write(&doc, version(0)).unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_whole(&doc, &end));
        // LibreOffice: a lock file, a temporary file, fsync, rename over, fsync of the folder.
        for number in 1..=30 {
            let lock = dir.join(".~lock.report.odt#");
            let mut lock_file = File::options();
            let mut lock_file = lock_file.write(true).create_new(true).mode(0o600).open(&lock);
            lock_file.as_mut().unwrap().write_all(b",me,here;").unwrap();
            let temp = dir.join(format!("lu{number}.tmp"));
            let mut file = File::create(&temp).unwrap();
            file.write_all(&version(number)).unwrap();
            file.sync_all().unwrap();
            drop(file);
            fs::rename(&temp, &doc).unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            assert!(fs::read(&doc).unwrap() == version(number), "save {number} reads back");
            fs::remove_file(&lock).unwrap();
        }
        end.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0, "somebody read");
    });
    // The other way: the old one aside, the new one in its place, the old one away.
    for number in 31..=40 {
        fs::write(dir.join("A1B2.tmp"), version(number)).unwrap();
        fs::rename(&doc, dir.join("old.tmp")).unwrap();
        fs::rename(dir.join("A1B2.tmp"), &doc).unwrap();
        fs::remove_file(dir.join("old.tmp")).unwrap();
    }
    assert_eq!(names(&dir), ["report.odt"], "nothing else is left");
    drive.remount();
    assert!(fs::read(&doc).unwrap() == version(40));
}

#[test]
fn shell_tools_edit_install_split_and_sort_in_place() {
    let drive = Drive::new();
    let own = drive.outside("own");
    let dir = drive.dir("tools");
    let there = dir.to_str().unwrap();
    let lines = "one\ntwo\n".repeat(5_000);
    fs::write(own.join("a"), &lines).unwrap();
    sh(&own, "chmod 640 a && touch -d @1000000000.000000007 a");
    sh(&own, &format!("cp -a a {there}/a && mv a {there}/b"));
    for name in ["a", "b"] {
        let stat = fs::metadata(dir.join(name)).unwrap();
        let seen = (stat.mode() & 0o777, stat.mtime(), stat.mtime_nsec());
        assert_eq!(seen, (0o640, 1_000_000_000, 7), "{name} came as it was");
    }
    sh(&dir, "sed -i s/one/1/ a");
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), lines.replace("one", "1"), "sed -i");
    sh(&dir, "perl -i.bak -pe 's/two/2/' a && grep -c 2 a && grep -qx two a.bak");
    sh(&dir, "split -b 7000 b x. && cat x.* | cmp - b && rm x.* && sort -o b b && sort -c b");
    sh(&dir, "install -D -m 755 b c/b && cmp b c/b && test -x c/b");
    sh(&dir, "dd if=/dev/urandom of=r bs=64k count=32 conv=fsync status=none && cp r s && cmp r s");
    sh(&dir, "dd if=/dev/zero of=r bs=1k seek=100 count=3 conv=notrunc status=none");
    let mut want = fs::read(dir.join("s")).unwrap();
    want[100 << 10..103 << 10].fill(0);
    assert!(fs::read(dir.join("r")).unwrap() == want, "dd in the middle");
    sh(&dir, "cp s t && (diff -u a b > p || true) && cp a q && patch -s q p && cmp q b");
    sh(&dir, "f=$(mktemp -p . XXXXXX) && d=$(mktemp -d -p . XXXXXX) && rm $f && rmdir $d");
    sh(&dir, "truncate -s 1M t && truncate -s 1000 t && head -c 1000 s | cmp - t");
    sh(&dir, "shred -u -n 1 t && ! test -e t && tee u v < s > /dev/null && cmp u v && cat u >> v");
    assert_eq!(fs::metadata(dir.join("v")).unwrap().len(), 4 << 20);
}

#[test]
fn what_is_thrown_away_lies_in_the_drives_own_trash() {
    if missing(&["gio"], "throwing a file of a drive away as a desktop does") {
        return;
    }
    let drive = Drive::new();
    let home = drive.outside("home");
    fs::write(drive.path("letter.txt"), "dear\n").unwrap();
    fs::create_dir(drive.path("folder")).unwrap();
    fs::write(drive.path("folder/letter.txt"), "too\n").unwrap();
    let script = format!("HOME={} gio trash letter.txt folder", home.display());
    let said = try_sh(&drive.device.dir, &script);
    if said.code != Some(0) && said.err.contains("not supported") {
        eprintln!("SKIPPED, as gio does not here: the trash of a drive: {}", said.err.trim());
        return;
    }
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!drive.path("letter.txt").exists() && !drive.path("folder").exists());
    let trash = names(&drive.device.dir);
    assert!(trash.len() == 1 && trash[0].starts_with(".Trash"), "{trash:?}");
    let kept =
        sh(&drive.device.dir, "cat .Trash*/files/letter.txt .Trash*/files/folder/letter.txt");
    assert_eq!(kept, "dear\ntoo\n");
    let info = sh(&drive.device.dir, "cat .Trash*/info/letter.txt.trashinfo");
    assert!(info.contains("Path=letter.txt") && info.contains("DeletionDate="), "{info}");
}

#[test]
fn a_log_is_followed_while_it_grows_and_turns() {
    let drive = Drive::new();
    let dir = drive.dir("log");
    let log = dir.join("log");
    let append = |line: &str| {
        let mut file = File::options().append(true).create(true).open(&log).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    append("first");
    let mut tail =
        Peer::of(Command::new("tail").args(["-n+1", "-s0.1", "-F", "log"]).current_dir(&dir));
    assert_eq!(tail.hear(), "first");
    for number in 0..5 {
        append(&format!("line {number}"));
        assert_eq!(tail.hear(), format!("line {number}"));
    }
    fs::rename(&log, dir.join("log.1")).unwrap();
    append("in the next");
    assert_eq!(tail.hear(), "in the next");
    // copytruncate: what was written stays in the copy, and the writer goes on from nothing.
    let mut writer = File::options().append(true).open(&log).unwrap();
    writer.write_all(&noise("log", 100_000)).unwrap();
    sh(&dir, "cp log log.2 && truncate -s 0 log");
    writer.write_all(b"anew\n").unwrap();
    assert_eq!(fs::read(&log).unwrap(), b"anew\n");
    assert_eq!(fs::metadata(dir.join("log.2")).unwrap().len(), 12 + 100_000);
}

#[test]
fn many_shells_write_and_read_under_one_folder() {
    let drive = Drive::new();
    let dir = drive.dir("many");
    let work = "mkdir $0; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        echo $0 $i > $0/t; mv $0/t $0/$i; cp $0/$i shared.$0; cat shared.* > /dev/null; done";
    let mut shells: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| shell(work).arg(name).current_dir(&dir).spawn().unwrap())
        .into();
    for shell in &mut shells {
        wait_for("a shell ends", || shell.try_wait().unwrap().is_some());
        assert!(shell.wait().unwrap().success());
    }
    assert_eq!(sh(&dir, "cat a/* b/* c/* d/* | sort -u | wc -l"), "48\n");
    assert_eq!(sh(&dir, "cat shared.a shared.d"), "a 12\nd 12\n");
}
