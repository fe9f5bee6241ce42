//! Devices that write and exchange what they wrote, without a network: what arrives is what was
//! made, nothing is lost that nobody removed, and in the end all show the same.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "merging/authority.rs"]
mod authority;
#[path = "merging/devices.rs"]
mod devices;

use devices::{ME, World, put, read, tell, tell_view};
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::index::devices::DeviceName;
use rdrivefs_sync::tree::words::{Change, Kind, Rename, SetAttr, SetXattr};
use rdrivefs_sync::{Error, tree::Tree};

const ROOT: Ino = Ino::ROOT;

fn find(tree: &Tree, path: &str) -> Ino {
    path.split('/').filter(|name| !name.is_empty()).fold(ROOT, |dir, name| {
        let found = tree.lookup(dir, name.as_bytes());
        found.unwrap_or_else(|e| panic!("{path}: {e} in {:?}", tell(tree))).ino
    })
}

fn mkdir(tree: &Tree, dir: Ino, name: &str) -> Ino {
    tree.make_directory(&ME, dir, name.as_bytes(), 0o755).unwrap().ino
}

fn mv(tree: &Tree, from: (Ino, &str), to: (Ino, &str)) {
    tree.rename((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()), Rename::Replace).unwrap();
}

fn rm(tree: &Tree, dir: Ino, name: &str) {
    tree.unlink(dir, name.as_bytes()).unwrap();
}

fn rmdir(tree: &Tree, dir: Ino, name: &str) {
    tree.remove_directory(dir, name.as_bytes()).unwrap();
}

fn world(count: usize) -> World {
    World::new(count)
}

/// All that is told everywhere, and the same everywhere.
#[track_caller]
fn same(world: &World) -> Vec<String> {
    world.exchange();
    let first = tell_view(&world.view());
    for device in &world.devices {
        assert_eq!(first, tell(&device.tree), "device {} differs", device.number);
    }
    first
}

#[test]
fn what_devices_are_called_is_told_once_and_the_last_name_counts_on_all() {
    let mut w = world(3);
    let names = |w: &World| {
        let of = |at: &devices::Device, device: &devices::Device| {
            let named = at.index.device_name(&device.key()).unwrap();
            named.map_or_else(String::new, |named| named.name)
        };
        let all = |at: &devices::Device| w.devices.iter().map(|d| of(at, d)).collect::<Vec<_>>();
        let first = all(&w.devices[0]);
        assert!(w.devices.iter().all(|at| all(at) == first), "all say the same");
        first
    };
    let call = |device: &devices::Device, name: &str| {
        let named = DeviceName { name: name.to_owned(), stamp: None };
        device.index.set_device_name(&device.key(), &named).unwrap();
        device.tree.flush().unwrap();
    };
    call(&w.devices[0], "desk");
    call(&w.devices[1], "laptop");
    assert_eq!(w.devices[0].publish(), 1, "a name alone is told");
    assert_eq!(w.devices[0].publish(), 0, "and once");
    w.exchange();
    assert_eq!(names(&w), ["desk", "laptop", ""]);
    call(&w.devices[1], "old laptop");
    call(&w.devices[2], "phone");
    put(&w.devices[1].tree, ROOT, "f", b"with a file");
    w.devices[1].reopen();
    w.exchange();
    assert_eq!(names(&w), ["desk", "old laptop", "phone"]);
    assert_eq!(same(&w).len(), 1);
}

#[test]
fn a_directory_moved_into_a_new_one_arrives() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    let dir = mkdir(a, ROOT, "a");
    put(a, dir, "f", b"1");
    same(&w);
    let new = mkdir(a, ROOT, "b");
    mv(a, (ROOT, "a"), (new, "a"));
    same(&w);
    put(b, find(b, "b/a"), "g", b"2");
    assert_eq!(same(&w).len(), 4);
}

#[test]
fn renames_that_follow_one_another_arrive_as_they_were_made() {
    let w = world(2);
    let a = &w.devices[0].tree;
    for name in ["draft", "report", "x", "y", "z"] {
        put(a, ROOT, name, name.as_bytes());
    }
    same(&w);
    mv(a, (ROOT, "report"), (ROOT, "report.old"));
    mv(a, (ROOT, "draft"), (ROOT, "report"));
    a.rename((ROOT, b"x"), (ROOT, b"y"), Rename::Exchange).unwrap();
    same(&w);
    mv(a, (ROOT, "x"), (ROOT, "tmp"));
    mv(a, (ROOT, "z"), (ROOT, "x"));
    mv(a, (ROOT, "tmp"), (ROOT, "z"));
    let lines = same(&w);
    assert!(lines.iter().all(|line| !line.contains("conflict")), "{lines:?}");
    assert_eq!(read(&w.devices[1].tree, find(&w.devices[1].tree, "report")), b"draft");
}

#[test]
fn a_whole_directory_removed_or_emptied_upward_arrives() {
    let w = world(2);
    let a = &w.devices[0].tree;
    let deep = mkdir(a, mkdir(a, ROOT, "d"), "e");
    put(a, deep, "f", b"f");
    let other = mkdir(a, ROOT, "o");
    put(a, other, "g", b"g");
    mkdir(a, other, "sub");
    same(&w);
    rm(a, deep, "f");
    rmdir(a, find(a, "d"), "e");
    rmdir(a, ROOT, "d");
    mv(a, (other, "g"), (ROOT, "g"));
    mv(a, (other, "sub"), (ROOT, "sub"));
    rmdir(a, ROOT, "o");
    assert_eq!(same(&w).len(), 2);
}

#[test]
fn a_moved_directory_keeps_its_count_and_stays_usable() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    let dir = mkdir(a, ROOT, "D");
    for name in ["s1", "s2", "s3"] {
        mkdir(a, dir, name);
    }
    same(&w);
    mv(a, (ROOT, "D"), (ROOT, "E"));
    same(&w);
    let dir = find(b, "E");
    assert_eq!(b.attr(dir).unwrap().nlink, 5);
    b.remember(dir, 1);
    rmdir(b, dir, "s1");
    rmdir(b, dir, "s2");
    rmdir(b, dir, "s3");
    put(b, dir, "f", b"f");
    b.forget(dir, 1);
    assert_eq!(same(&w).len(), 2);
}

#[test]
fn an_edit_survives_a_removal_in_either_order() {
    for editor in [0, 1] {
        let w = world(3);
        let (remover, editor) = (&w.devices[1 - editor].tree, &w.devices[editor].tree);
        let dir = mkdir(remover, ROOT, "d");
        put(remover, dir, "x", b"old");
        same(&w);
        rm(remover, find(remover, "d"), "x");
        rmdir(remover, ROOT, "d");
        editor.write(find(editor, "d/x"), 0, b"new").unwrap();
        same(&w);
        assert_eq!(read(remover, find(remover, "d/x")), b"new");
        // It can be removed all the same, by whoever has seen it.
        rm(remover, find(remover, "d"), "x");
        assert_eq!(same(&w).len(), 1, "the directory was seen empty, and stays");
    }
}

#[test]
fn a_file_moved_elsewhere_meanwhile_survives_a_removal() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    let big = vec![7; 200];
    let ino = put(a, ROOT, "x", &big);
    same(&w);
    // What was written last is seen by nobody.
    a.write(ino, 0, b"last").unwrap();
    rm(a, ROOT, "x");
    mv(b, (ROOT, "x"), (ROOT, "y"));
    same(&w);
    assert_eq!(read(a, find(a, "y")), big);
}

#[test]
fn both_sides_of_a_concurrent_edit_stand_beside_each_other() {
    let w = world(3);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x.txt", b"old");
    same(&w);
    a.write(find(a, "x.txt"), 0, b"aaa").unwrap();
    b.write(find(b, "x.txt"), 0, b"bbb").unwrap();
    let lines = same(&w);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("conflict, ") && lines[0].contains(".txt "), "{lines:?}");
    // The copy is worked on, its file removed.
    let copy = a.list(ROOT, 0, 9).unwrap().into_iter().find(|e| e.name.len() > 5).unwrap();
    a.write(copy.attr.ino, 0, b"ccc").unwrap();
    rm(a, ROOT, "x.txt");
    let lines = same(&w);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(read(b, find(b, std::str::from_utf8(&copy.name).unwrap())), b"ccc");
}

#[test]
fn an_untouched_copy_goes_with_the_version_it_shows() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x", b"old");
    same(&w);
    a.write(find(a, "x"), 0, b"aaa").unwrap();
    w.devices[0].publish();
    b.write(find(b, "x"), 0, b"b").unwrap();
    w.devices[1].publish();
    b.write(find(b, "x"), 0, b"bbb").unwrap();
    w.devices[1].publish();
    let lines = same(&w);
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn a_removed_copy_does_not_come_back() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x", b"old");
    same(&w);
    a.write(find(a, "x"), 0, b"aaa").unwrap();
    b.write(find(b, "x"), 0, b"bbb").unwrap();
    same(&w);
    let copy = a.list(ROOT, 0, 9).unwrap().into_iter().find(|e| e.name.len() > 5).unwrap();
    a.unlink(ROOT, &copy.name).unwrap();
    assert_eq!(same(&w).len(), 1);
}

/// Two versions of a file, of which the first device's lost; and its copy.
fn with_a_copy(w: &World) -> (Ino, Vec<u8>) {
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x", b"old");
    same(w);
    a.write(find(a, "x"), 0, b"aaa").unwrap();
    b.write(find(b, "x"), 0, b"bbb").unwrap();
    same(w);
    let copy = a.list(ROOT, 0, 9).unwrap().into_iter().find(|e| e.name.len() > 5).unwrap();
    (copy.attr.ino, copy.name)
}

#[test]
fn a_copy_that_got_another_name_is_told_of_when_it_loses_its_own() {
    let w = world(2);
    let (copy, name) = with_a_copy(&w);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    a.link(copy, ROOT, b"other").unwrap();
    a.unlink(ROOT, &name).unwrap();
    assert_eq!(same(&w).len(), 2);
    assert_eq!(read(b, find(b, "other")), b"aaa");
}

#[test]
fn a_file_stays_that_was_kept_for_a_version_whose_copy_somebody_works_on_or_removes() {
    for removes in [false, true] {
        let w = world(2);
        let (a, b) = (&w.devices[0], &w.devices[1]);
        put(&a.tree, ROOT, "x", b"old");
        same(&w);
        a.tree.write(find(&a.tree, "x"), 0, b"aaa").unwrap();
        a.publish();
        b.tree.write(find(&b.tree, "x"), 0, b"bbb").unwrap();
        b.publish();
        rm(&b.tree, ROOT, "x");
        assert_eq!(same(&w).len(), 2);
        let copy = b.tree.list(ROOT, 0, 9).unwrap().into_iter().find(|e| e.name.len() > 5).unwrap();
        match removes {
            true => b.tree.unlink(ROOT, &copy.name).unwrap(),
            false => drop(b.tree.write(copy.attr.ino, 0, b"ccc").unwrap()),
        }
        assert_eq!(same(&w).len(), if removes { 1 } else { 2 });
    }
}

#[test]
fn all_names_come_back_of_a_file_one_of_which_was_moved_and_removed_before_that_was_told() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    let ino = put(b, ROOT, "x", b"old");
    b.link(ino, ROOT, b"y").unwrap();
    same(&w);
    mv(b, (ROOT, "y"), (ROOT, "z"));
    rm(b, ROOT, "z");
    rm(b, ROOT, "x");
    a.write(find(a, "x"), 0, b"new").unwrap();
    assert_eq!(same(&w).len(), 2);
    assert_eq!((read(b, find(b, "x")), read(b, find(b, "z"))), (b"new".to_vec(), b"new".to_vec()));
}

#[test]
fn two_files_of_one_name_are_told_apart_everywhere_alike() {
    let w = world(3);
    for device in &w.devices {
        put(&device.tree, ROOT, "x", format!("of {}", device.number).as_bytes());
        let dir = mkdir(&device.tree, ROOT, "dir");
        put(&device.tree, dir, "f", b"f");
    }
    let lines = same(&w);
    assert_eq!(lines.len(), 9, "{lines:?}");
    // The winner goes: the others keep the names they were seen under.
    let a = &w.devices[0].tree;
    rm(a, ROOT, "x");
    assert_eq!(same(&w).len(), 8);
}

#[test]
fn directories_moved_into_each_other_are_cut_apart_alike() {
    let w = world(3);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, mkdir(a, ROOT, "p"), "f", b"f");
    put(a, mkdir(a, ROOT, "q"), "g", b"g");
    same(&w);
    mv(a, (ROOT, "p"), (find(a, "q"), "p"));
    mv(b, (ROOT, "q"), (find(b, "p"), "q"));
    let lines = same(&w);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("(moved, ")), "{lines:?}");
}

#[test]
fn a_file_made_in_a_directory_removed_meanwhile_brings_it_back() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    let dir = mkdir(a, ROOT, "d");
    mkdir(a, dir, "e");
    same(&w);
    rmdir(a, find(a, "d"), "e");
    rmdir(a, ROOT, "d");
    put(b, find(b, "d/e"), "f", b"f");
    assert_eq!(same(&w).len(), 3);
    rm(b, find(b, "d/e"), "f");
    assert_eq!(same(&w).len(), 2, "seen empty, they stay");
}

#[test]
fn what_is_written_through_a_handle_older_than_a_pulled_version_is_kept() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x.db", b"old");
    same(&w);
    let held = find(a, "x.db");
    a.remember(held, 1);
    b.write(find(b, "x.db"), 0, b"new from b").unwrap();
    same(&w);
    assert_ne!(find(a, "x.db"), held);
    a.write(held, 0, b"late").unwrap();
    a.sync(held).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    a.on_change(Box::new(move |change| told.send(change).unwrap()));
    a.forget(held, 1);
    let Change::Entry { parent, name } = heard.try_recv().unwrap() else {
        panic!("the kernel may keep a listing without it")
    };
    assert!(a.lookup(parent, &name).is_ok() && name.len() > 5);
    let lines = same(&w);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let kept = a.list(ROOT, 0, 9).unwrap().into_iter().find(|e| e.name.len() > 5).unwrap();
    assert!(kept.name.starts_with(b"x (conflict, 1, ") && kept.name.ends_with(b".db"));
    assert_eq!(read(b, find(b, std::str::from_utf8(&kept.name).unwrap())), b"late");
}

/// A handle on a file that is removed elsewhere, or replaced as editors replace it.
fn held_while_its_name_goes(w: &World, goes: impl FnOnce(&Tree)) -> Ino {
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, mkdir(a, ROOT, "d"), "x.txt", b"old");
    same(w);
    let held = find(a, "d/x.txt");
    a.remember(held, 1);
    goes(b);
    held
}

fn remove(tree: &Tree) {
    rm(tree, find(tree, "d"), "x.txt");
}

fn remove_with_folder(tree: &Tree) {
    remove(tree);
    rmdir(tree, ROOT, "d");
}

fn save_by_rename(tree: &Tree) {
    put(tree, find(tree, "d"), "x.txt~", b"new");
    mv(tree, (find(tree, "d"), "x.txt~"), (find(tree, "d"), "x.txt"));
}

#[test]
fn what_is_written_through_a_handle_on_a_file_removed_or_replaced_elsewhere_is_kept() {
    type Goes = (fn(&Tree), &'static [&'static str]);
    let goes: [Goes; 3] = [
        (save_by_rename, &["d", "x.txt", "x (conflict, 1, "]),
        (remove, &["d", "x (conflict, 1, "]),
        (remove_with_folder, &["x (conflict, 1, "]),
    ];
    for (goes, there) in goes {
        let w = world(2);
        let held = held_while_its_name_goes(&w, goes);
        same(&w);
        let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
        a.write(held, 0, b"late").unwrap();
        a.sync(held).unwrap();
        a.forget(held, 1);
        let lines = same(&w);
        assert_eq!(lines.len(), there.len(), "{lines:?}");
        there.iter().for_each(|name| assert!(lines.iter().any(|l| l.contains(name)), "{lines:?}"));
        let dir = if there[0] == "d" { find(b, "d") } else { ROOT };
        let kept = b.list(dir, 0, 9).unwrap().into_iter();
        let kept = kept.max_by_key(|entry| entry.name.len()).unwrap();
        assert_eq!(read(b, kept.attr.ino), b"late");
    }
}

#[test]
fn a_handle_nobody_wrote_through_leaves_nothing_when_its_file_is_removed_elsewhere() {
    let w = world(2);
    let held = held_while_its_name_goes(&w, remove);
    same(&w);
    w.devices[0].tree.forget(held, 1);
    assert_eq!(same(&w).len(), 1);
}

/// As [`held_while_its_name_goes`], and a third device, which did not hear of it, moved the file.
fn held_and_moved_meanwhile(w: &World) -> Ino {
    let held = held_while_its_name_goes(w, remove);
    let (b, c) = (&w.devices[1], &w.devices[2].tree);
    mv(c, (find(c, "d"), "x.txt"), (ROOT, "moved.txt"));
    b.publish();
    w.devices[0].hear(b);
    w.devices[0].merge();
    held
}

#[test]
fn what_was_written_so_is_not_what_comes_back_with_the_name() {
    let w = world(3);
    let held = held_and_moved_meanwhile(&w);
    let (a, c) = (&w.devices[0].tree, &w.devices[2].tree);
    let mtime = a.attr(held).unwrap().mtime;
    a.write(held, 0, b"late").unwrap();
    a.set_attr(held, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    a.forget(held, 1);
    let lines = same(&w);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let back = a.attr(find(a, "moved.txt")).unwrap();
    assert_eq!(read(a, back.ino), b"old");
    assert_eq!((back.mtime, back.mode), (mtime, 0o600));
    assert_eq!(c.attr(find(c, "moved.txt")).unwrap().mode, 0o600, "what only he knew is told");
}

#[test]
fn what_was_written_so_is_the_files_own_when_its_name_comes_back_first() {
    let w = world(3);
    let held = held_and_moved_meanwhile(&w);
    let (a, c) = (&w.devices[0].tree, &w.devices[2].tree);
    a.write(held, 0, b"late").unwrap();
    let lines = same(&w);
    assert_eq!(lines.len(), 2, "{lines:?}");
    a.forget(held, 1);
    assert_eq!(same(&w).len(), 2);
    assert_eq!(read(c, find(c, "moved.txt")), b"late");
}

#[test]
fn what_was_written_so_survives_a_crash() {
    let mut w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(a, ROOT, "x", b"old");
    same(&w);
    let held = find(a, "x");
    a.remember(held, 1);
    b.write(find(b, "x"), 0, b"new from b").unwrap();
    same(&w);
    a.write(held, 0, b"late").unwrap();
    a.sync(held).unwrap();
    w.devices[0].reopen();
    assert_eq!(same(&w).len(), 2);
}

#[test]
fn what_was_written_to_a_removed_file_survives_a_crash() {
    for written in [true, false] {
        let mut w = world(2);
        let held = held_while_its_name_goes(&w, save_by_rename);
        same(&w);
        let a = &w.devices[0].tree;
        if written {
            a.write(held, 0, b"late").unwrap();
            a.sync(held).unwrap();
        }
        w.devices[0].reopen();
        assert_eq!(same(&w).len(), if written { 3 } else { 2 });
    }
}

#[test]
fn a_file_the_kernel_holds_gets_a_new_inode_even_if_it_was_empty() {
    let w = world(2);
    let (a, b) = (&w.devices[0].tree, &w.devices[1].tree);
    put(b, ROOT, "x", b"");
    same(&w);
    let held = a.lookup_told(ROOT, b"x").unwrap().ino;
    b.write(find(b, "x"), 0, b"hello").unwrap();
    same(&w);
    let now = a.lookup(ROOT, b"x").unwrap();
    assert!(now.ino != held && now.size == 5);
    a.forget(held, 1);
}

#[test]
fn a_tombstone_waits_for_whoever_stands_in_the_place_at_last() {
    let w = world(2);
    let a = &w.devices[0].tree;
    put(a, ROOT, "x", b"old");
    same(&w);
    for name in ["tmp1", "tmp2"] {
        put(a, ROOT, name, &[1; 100_000]);
        mv(a, (ROOT, name), (ROOT, "x"));
    }
    // Not sealed: the content cannot be told yet.
    w.devices[0].publish_unsealed();
    w.deliver();
    assert_eq!(read(&w.devices[1].tree, find(&w.devices[1].tree, "x")), b"old");
}

#[test]
fn a_lookup_of_a_file_whose_row_is_lost_says_so_and_ends() {
    let w = world(1);
    let mut w = w;
    let ino = put(&w.devices[0].tree, ROOT, "x", b"1");
    w.devices[0].publish();
    w.devices[0].tree.checkpoint().unwrap();
    w.devices[0].reopen();
    let a = &w.devices[0];
    a.index.remove_node(ino, true).unwrap();
    let found = a.tree.lookup(ROOT, b"x");
    assert!(found.as_ref().is_err_and(Error::is_corrupt), "{found:?}");
    assert!(matches!(a.tree.attr(ino), Err(Error::Posix(Posix::Stale))));
}

#[path = "merging/many.rs"]
mod many;
#[path = "merging/matrix.rs"]
mod matrix;
#[path = "merging/nonsense.rs"]
mod nonsense;
#[path = "merging/random.rs"]
mod random;
