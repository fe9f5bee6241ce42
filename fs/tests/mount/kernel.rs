//! What the kernel does behind a filesystem's back: dirty pages, caches, threads that wait.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rdrivefs::adapter::words::{Caller, Change, SetAttr, TimeNs};
use rdrivefs_sync::id::Ino;
use rustix::fs::SeekFrom as Seek2;

use crate::daemon::{Local, Mount, on_each_core};

const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// What the core holds under a name in the root, past all caches.
fn held(local: &Local, name: &str) -> Vec<u8> {
    let attr = local.core.lookup(Ino::ROOT, name.as_bytes()).unwrap();
    local.core.read(attr.ino, 0, u32::MAX).unwrap()
}

fn a_rename_over_another_file_brings_its_dirty_pages_along(mount: Mount) {
    let local = mount("");
    fs::write(local.path("name"), b"old").unwrap();
    let new = vec![7; 3 << 20];
    let mut file = File::create(local.path("temp")).unwrap();
    file.write_all(&new).unwrap();
    fs::rename(local.path("temp"), local.path("name")).unwrap();
    assert!(held(&local, "name") == new, "the new file lacks what was written before the rename");
    // And through the mount, now that its pages are dropped.
    assert!(fs::read(local.path("name")).unwrap() == new);
    file.write_all(b"tail").unwrap();
    drop(file);
    assert_eq!(held(&local, "name").len(), new.len() + 4);
}

fn an_exchange_brings_the_dirty_pages_of_both(mount: Mount) {
    let local = mount("");
    let mut files = ["a", "b"].map(|name| File::create(local.path(name)).unwrap());
    for (file, byte) in files.iter_mut().zip([1u8, 2]) {
        file.write_all(&vec![byte; 100_000]).unwrap();
    }
    let (a, b) = (local.path("a"), local.path("b"));
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).unwrap();
    assert!(held(&local, "a") == vec![2; 100_000] && held(&local, "b") == vec![1; 100_000]);
}

fn a_seek_sees_the_data_that_is_still_dirty(mount: Mount) {
    let local = mount("");
    let file = File::create(local.path("sparse")).unwrap();
    file.write_all_at(&[1; 4096], 8 << 20).unwrap();
    file.set_len(16 << 20).unwrap();
    let seek = |at| rustix::fs::seek(&file, at).unwrap();
    assert_eq!(seek(Seek2::Data(0)), 8 << 20);
    assert_eq!(seek(Seek2::Hole(0)), 0);
    assert!(seek(Seek2::Hole(8 << 20)) <= (8 << 20) + (64 << 10));
    file.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(seek(Seek2::Data(0)), 0);
    let past = rustix::fs::seek(&file, Seek2::Data(16 << 20));
    assert_eq!(past, Err(rustix::io::Errno::NXIO));
}

/// More renames and seeks that wait for dirty pages than there are threads: WRITE still gets one.
fn calling_dirty_pages_in_never_starves_the_writes_it_waits_for(mount: Mount) {
    let local = mount("threads=4");
    let deadline = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for number in 0..24 {
            let dir = local.dir.clone();
            scope.spawn(move || {
                let (temp, name) = (format!("temp{number}"), format!("name{}", number % 5));
                while Instant::now() < deadline {
                    let mut file = File::create(dir.join(&temp)).unwrap();
                    file.write_all(&vec![number; 300_000]).unwrap();
                    rustix::fs::seek(&file, Seek2::Data(0)).unwrap();
                    fs::rename(dir.join(&temp), dir.join(&name)).unwrap();
                    file.write_all(b"more").unwrap();
                }
            });
        }
    });
}

/// As many readers as threads wait for a slow remote; everything else goes on.
#[test]
fn slow_reads_leave_threads_for_the_rest() {
    let local = Local::with("threads=4");
    for number in 0..16 {
        fs::write(local.path(&format!("slow{number}")), vec![1; 4096]).unwrap();
    }
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let waiting = Arc::new(AtomicU64::new(0));
    let (held_gate, counted) = (Arc::clone(&gate), Arc::clone(&waiting));
    local.memory().hook(Box::new(move |op, _| {
        if op == "read" {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut open = held_gate.0.lock().unwrap();
            while !*open {
                open = held_gate.1.wait(open).unwrap();
            }
        }
    }));
    drop_caches();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let path = local.path(&format!("slow{number}"));
            scope.spawn(move || {
                let mut byte = [0];
                // Past the page cache, as it holds what was just written.
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
                let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
                File::from(fd).read_exact(&mut byte).unwrap();
                assert_eq!(byte, [1]);
            });
        }
        while waiting.load(Ordering::SeqCst) < 16 {
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::write(local.path("other"), vec![2; 1 << 20]).unwrap();
        File::open(local.path("other")).unwrap().sync_all().unwrap();
        fs::rename(local.path("other"), local.path("another")).unwrap();
        assert_eq!(fs::read_dir(&local.dir).unwrap().count(), 17);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
    });
}

fn drop_caches() {
    let _only_root_may = fs::write("/proc/sys/vm/drop_caches", "3");
}

#[test]
fn a_panic_costs_one_request() {
    let local = Local::new();
    fs::write(local.path("file"), b"content").unwrap();
    std::os::unix::fs::symlink("target", local.path("link")).unwrap();
    let armed = Arc::new(AtomicBool::new(true));
    let arm = Arc::clone(&armed);
    local.memory().hook(Box::new(move |op, _| {
        assert!(op != "read_link" || !arm.load(Ordering::SeqCst), "as the test wants it");
    }));
    for _ in 0..40 {
        let error = fs::read_link(local.path("link")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }
    armed.store(false, Ordering::SeqCst);
    assert_eq!(fs::read_link(local.path("link")).unwrap().to_str(), Some("target"));
    assert_eq!(fs::read(local.path("file")).unwrap(), b"content");
}

/// Waits for what the thread of announcements does soon.
fn soon(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_change_behind_the_kernel_is_seen_once_announced() {
    let local = Local::new();
    let path = local.path("pulled");
    assert!(!path.exists() && fs::read_dir(&local.dir).unwrap().count() == 0);
    let attr = local.core.create(&ROOT, Ino::ROOT, b"pulled", 0o644).unwrap();
    local.core.write(attr.ino, 0, b"first").unwrap();
    assert!(!path.exists(), "the kernel remembers that the name is free");
    let entry = Change::Entry { parent: Ino::ROOT, name: b"pulled".to_vec() };
    local.memory().announce(entry.clone());
    soon("the new name appears", || path.exists());
    soon("and in the listing", || fs::read_dir(&local.dir).unwrap().count() == 1);
    assert_eq!(fs::read(&path).unwrap(), b"first");
    // Replaced as a pull does it: another inode under the name, the old one as it was.
    let mut open = File::open(&path).unwrap();
    local.core.unlink(Ino::ROOT, b"pulled").unwrap();
    let next = local.core.create(&ROOT, Ino::ROOT, b"pulled", 0o600).unwrap();
    local.core.write(next.ino, 0, b"second").unwrap();
    local.memory().announce(entry);
    soon("the new version appears", || fs::read(&path).unwrap() == b"second");
    let mut old = String::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_string(&mut old).unwrap();
    assert_eq!(old, "first", "who has the old one open keeps it");
    // Attributes. The kernel keeps the times of a file it holds, so the name goes too.
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mtime = Some(TimeNs { secs: 1_000_000, nanos: 7 });
    let set = SetAttr { mode: Some(0o640), mtime, ..Default::default() };
    local.core.set_attr(next.ino, &set).unwrap();
    local.memory().announce(Change::Attributes { ino: next.ino });
    soon("the mode", || fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o640);
    local.memory().announce(Change::Entry { parent: Ino::ROOT, name: b"pulled".to_vec() });
    soon("the time", || fs::metadata(&path).unwrap().mtime() == 1_000_000);
}

/// The pages of one file are locked while a remote does not answer; names change all the same, and
/// so do attributes.
#[test]
fn a_read_that_waits_holds_up_no_name() {
    let local = Local::new();
    let far = local.core.create(&ROOT, Ino::ROOT, b"far", 0o644).unwrap().ino;
    local.core.write(far, 0, &vec![1; 1 << 20]).unwrap();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let shut = Arc::clone(&gate);
    local.memory().hook(Box::new(move |op, _| {
        if op == "read" {
            let open = shut.0.lock().unwrap();
            drop(shut.1.wait_while(open, |open| !*open).unwrap());
        }
    }));
    std::thread::scope(|scope| {
        let path = local.path("far");
        let reader = scope.spawn(move || fs::read(path).unwrap());
        std::thread::sleep(Duration::from_millis(200));
        assert!(!local.path("near").exists());
        local.core.create(&ROOT, Ino::ROOT, b"near", 0o644).unwrap();
        local.memory().announce(Change::Inode { ino: far });
        local.memory().announce(Change::Attributes { ino: far });
        local.memory().announce(Change::Entry { parent: Ino::ROOT, name: b"near".to_vec() });
        soon("the name", || local.path("near").exists());
        assert!(!reader.is_finished());
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(reader.join().unwrap().len(), 1 << 20);
    });
}

fn a_create_on_a_name_that_a_pull_has_filled_opens_it(mount: Mount) {
    let local = mount("");
    assert!(!local.path("name").exists());
    let attr = local.core.create(&ROOT, Ino::ROOT, b"name", 0o644).unwrap();
    local.core.write(attr.ino, 0, b"content").unwrap();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(local.path("name"));
    let mut content = String::new();
    file.as_mut().unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    assert!(!local.path("second").exists());
    local.core.create(&ROOT, Ino::ROOT, b"second", 0o644).unwrap();
    // Truncated as any other file that is there; the kernel would not do that to one it made.
    assert!(!local.path("third").exists());
    let attr = local.core.create(&ROOT, Ino::ROOT, b"third", 0o644).unwrap();
    local.core.write(attr.ino, 0, b"long content").unwrap();
    fs::write(local.path("third"), b"short").unwrap();
    assert_eq!(fs::read(local.path("third")).unwrap(), b"short");
    assert_eq!(local.core.attr(attr.ino).unwrap().size, 5);
    assert!(!local.path("directory").exists());
    local.core.make_directory(&ROOT, Ino::ROOT, b"directory", 0o755).unwrap();
    let refused = fs::write(local.path("directory"), b"short").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::IsADirectory);
    let refused = File::create_new(local.path("second")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
}

/// Every inode the kernel was told of is given back once, and no more: the core counts.
#[test]
fn the_kernels_references_come_back() {
    let local = Local::new();
    fs::create_dir(local.path("dir")).unwrap();
    for number in 0..500 {
        fs::write(local.path(&format!("dir/{number}")), b"x").unwrap();
    }
    for _ in 0..3 {
        for entry in fs::read_dir(local.path("dir")).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
    }
    let open = File::open(local.path("dir/7")).unwrap();
    fs::remove_dir_all(local.path("dir")).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 1);
    drop(open);
    soon("all is forgotten", || {
        drop_caches();
        local.memory().inodes() == 1
    });
}

on_each_core!(
    a_rename_over_another_file_brings_its_dirty_pages_along,
    an_exchange_brings_the_dirty_pages_of_both,
    a_seek_sees_the_data_that_is_still_dirty,
    calling_dirty_pages_in_never_starves_the_writes_it_waits_for,
    a_create_on_a_name_that_a_pull_has_filled_opens_it,
);
