//! R19 and R20: what files must do under many hands and at great sizes, with memory bounded.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Command;
use std::time::Duration;

use rdrivefs_tests::daemon::{Bounded, peak_bytes};
use rdrivefs_tests::world::{World, run};

use crate::{alone, holds, noise, user};

/// What the daemon may take, however large the drive: the promise's own number.
const MEMORY_MAX: u64 = 512 << 20;
const SOON: Duration = Duration::from_secs(120);

#[test]
fn r19_eight_processes_append_to_one_file_and_no_line_is_lost() {
    const LINES: usize = 300;
    let world = World::new();
    let (a, user) = (alone(&world), user(&world));
    a.mount();
    let path = a.dir.join("log");
    let tags = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let all = tags.map(|tag| {
        let mut command = Command::new(&user);
        Bounded::start(command.arg("append").arg(&path).args([tag, &LINES.to_string()]))
    });
    for mut one in all {
        assert_eq!(one.ends_within(SOON), Some(0));
    }
    let check = |when: &str| {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), tags.len() * LINES, "{when}");
        for tag in tags {
            let numbers = text.lines().filter_map(|line| {
                let mut words = line.split(' ').take_while(|_| line.starts_with(tag)).skip(1);
                words.next()?.parse::<usize>().ok()
            });
            assert!(numbers.eq(0..LINES), "{when}: the lines of {tag}, each whole and in order");
        }
    };
    check("at once");
    a.unmount();
    a.mount();
    check("mounted again");
}

#[test]
fn r19_a_file_that_is_cut_and_lengthened_shows_nothing_old() {
    let world = World::new();
    let (a, user) = (alone(&world), user(&world));
    a.mount();
    let all = [0, 1, 2, 3].map(|n| {
        let mut command = Command::new(&user);
        Bounded::start(command.arg("truncate").arg(a.dir.join(format!("f{n}"))).arg("40"))
    });
    for mut one in all {
        assert_eq!(one.ends_within(SOON), Some(0));
    }
}

#[test]
fn r19_open_files_outlive_their_names() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let (old, new, gone) = (a.dir.join("name"), a.dir.join("new"), a.dir.join("gone"));
    fs::write(&old, noise("old", 200_000)).unwrap();
    fs::write(&new, noise("new", 300_000)).unwrap();
    let mut open = File::options().read(true).write(true).open(&old).unwrap();
    fs::rename(&new, &old).unwrap();
    holds(&a.dir, "name", &noise("new", 300_000));
    open.write_all_at(b"still", 0).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"still") && bytes[5..] == noise("old", 200_000)[5..]);

    let mut open = File::create_new(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    open.write_all(&noise("gone", 500_000)).unwrap();
    open.sync_all().unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    a.ok(&["sync"]);
    drop(open);
    assert_eq!(fs::read_dir(&a.dir).unwrap().count(), 1);
}

#[test]
fn r19_offsets_beyond_four_gib_and_holes_are_kept() {
    let world = World::new();
    let a = alone(&world);
    a.mount();
    let places = [0, (4 << 30) - 3, (4 << 30) + 99, 1 << 40, (1 << 42) - 7];
    let file = File::create(a.dir.join("far")).unwrap();
    for at in places {
        file.write_all_at(format!("at {at:x}").as_bytes(), at).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    for when in ["at once", "mounted again"] {
        let mut file = File::open(a.dir.join("far")).unwrap();
        for at in places {
            let text = format!("at {at:x}");
            let mut bytes = vec![0; text.len()];
            file.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, text.as_bytes(), "{when}");
        }
        let mut hole = [1; 4096];
        file.read_exact_at(&mut hole, 1 << 35).unwrap();
        assert_eq!(hole, [0; 4096], "{when}");
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1 << 36)).unwrap();
        assert!(data <= 1 << 40 && data > (1 << 40) - (1 << 20), "{when}: data at {data}");
        let len = file.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(len, (1 << 42) - 7 + format!("at {:x}", places[4]).len() as u64, "{when}");
        drop(file);
        a.unmount();
        a.mount();
    }
}

/// A directory of so many files, the longest names there are among them.
fn large_directory(files: usize) {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let pid = a.daemon().unwrap();
    let dir = a.dir.join("many");
    fs::create_dir(&dir).unwrap();
    let name = |n: usize| match n % 10 {
        0 => format!("{n:0>255}"),
        _ => format!("{n}"),
    };
    for n in 0..files {
        let mut file = File::create_new(dir.join(name(n))).unwrap();
        if n % 100 == 0 {
            file.write_all(name(n).as_bytes()).unwrap();
        }
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), files);
    for n in (0..files).step_by(100) {
        holds(&dir, &name(n), name(n).as_bytes());
    }
    a.ok(&["sync"]);
    let peak = peak_bytes(pid);
    println!("{files} files: {} MiB at most", peak >> 20);
    assert!(peak <= MEMORY_MAX, "{} MiB for {files} files", peak >> 20);
    a.unmount();
    a.mount();
    let pid = a.daemon().unwrap();
    let said = run(Command::new("ls").args(["-U", "-l"]).arg(&dir));
    assert_eq!(said.out.lines().count(), files + 1, "every name, each once, and the total");
    assert!(peak_bytes(pid) <= MEMORY_MAX, "{} MiB to list them", peak_bytes(pid) >> 20);
}

#[test]
fn r20_a_large_directory_takes_bounded_memory() {
    large_directory(20_000);
}

#[test]
#[ignore = "long: a million files"]
fn r20_long_a_large_directory_takes_bounded_memory() {
    large_directory(1_000_000);
}

#[test]
fn r20_a_sparse_file_of_a_hundred_gib_takes_bounded_memory() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let pid = a.daemon().unwrap();
    let path = a.dir.join("disk.img");
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(100 << 30).unwrap();
    for at in 0..100u64 {
        file.write_all_at(&at.to_le_bytes(), at << 30).unwrap();
    }
    file.sync_all().unwrap();
    a.ok(&["sync"]);
    assert!(a.cache_bytes() < 64 << 20, "holes take {} bytes", a.cache_bytes());
    a.ok(&["verify", "--all"]);
    a.ok(&["evict", a.dir_str()]);
    for at in 0..100u64 {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at << 30).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), at);
    }
    let peak = peak_bytes(pid);
    println!("100 GiB of holes: {} MiB at most", peak >> 20);
    assert!(peak <= MEMORY_MAX, "{} MiB", peak >> 20);
}
