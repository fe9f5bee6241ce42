//! R07: the disk under the drive is full, to the last block.
//!
//! That no write anywhere in the journal fails in a way that harms is held in
//! sync/src/journal/tests.rs (r07), and what a full node means in tests/tests/bad_input.rs.

use std::fs;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::loop_disk::LoopDisk;
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::{Device, Said, World};

use crate::doctor_explains;

/// A device whose home lies on an ext4 of that size, and what making a drive there said. In the
/// order in which they must be dropped, the last one first.
fn on_disk(mib: u64) -> Option<(World, LoopDisk, Device, Said)> {
    let world = World::new();
    let disk = LoopDisk::new(&world.path(""), "disk", "ext4", mib)?;
    let dir = world.path("drive");
    fs::create_dir_all(&dir).unwrap();
    let a = Device { home: disk.dir.join("home"), dir };
    let phrase = world.path("phrase");
    let init = ["init", "--no-passphrase", "--recovery-file", phrase.to_str().unwrap()];
    let said = a.run(&init);
    Some((world, disk, a, said))
}

/// Writes until it is refused for want of room; what it was refused with.
fn write_until_refused(a: &Device, name: &str, mib: u64) -> ErrorKind {
    let mut file = fs::File::create(a.dir.join(name)).unwrap();
    for n in 0..mib {
        let bytes = vec![n as u8 | 1; 1 << 20];
        let written = std::io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync_data());
        if let Err(e) = written {
            return e.kind();
        }
    }
    panic!("{mib} MiB found room");
}

#[test]
fn r07_a_full_disk_is_told_harms_nothing_and_still_takes_deletes() {
    let Some((_world, disk, a, said)) = on_disk(300) else { return };
    assert_eq!(said.code, Some(0), "{said:?}");
    a.mount();
    let work = Work::new(&a.dir, 2, 5).unwrap().careful();
    work.script(60);
    assert_eq!(work.error(), None);
    fs::write(a.dir.join("victim"), vec![7; 3 << 20]).unwrap();
    fs::File::open(a.dir.join("victim")).unwrap().sync_all().unwrap();
    // By the drive's own bytes.
    assert_eq!(write_until_refused(&a, "big", 600), ErrorKind::StorageFull);
    work.check("full by its own bytes");
    // And by somebody else's, down to the last block.
    let filler = disk.fill();
    fs::remove_file(a.dir.join("victim")).unwrap();
    fs::File::open(&a.dir).unwrap().sync_all().expect("a removal is durable on a full disk");
    assert!(!a.dir.join("victim").exists());
    work.check("no byte is free");
    a.kill_daemon();
    a.mount();
    assert!(!a.dir.join("victim").exists(), "what was removed stays removed");
    work.check("killed and mounted while no byte was free");
    fs::remove_file(a.dir.join("big")).unwrap();
    fs::remove_file(&filler).unwrap();
    let again = a.dir.join("again");
    let written =
        || fs::write(&again, vec![9; 4 << 20]).and_then(|()| fs::File::open(&again)?.sync_all());
    // Room is found again by work in the background.
    let works = (0..360).any(|_| {
        let done = written().is_ok();
        if !done {
            sleep(Duration::from_millis(500));
        }
        done
    });
    assert!(works, "writing works again: {:?}", written());
    work.script(30);
    assert_eq!(work.error(), None, "there is room again");
    work.check("there is room again");
    doctor_explains(&a, "after it was full");
    a.unmount();
    a.mount();
    assert!(fs::read(&again).unwrap() == vec![9; 4 << 20]);
    work.check("mounted again");
}

/// So little room that hardly anything fits: each step works or says why not, and what was
/// promised stays.
#[test]
fn r07_a_tiny_disk_refuses_or_works() {
    for mib in [16, 40] {
        let Some((_world, _disk, a, said)) = on_disk(mib) else { return };
        if said.code != Some(0) {
            assert!(said.err.contains("space"), "{mib} MiB: {said:?}");
            println!("{mib} MiB are too little: {}", said.err);
            continue;
        }
        let said = a.run(&["mount", a.dir_str()]);
        if said.code != Some(0) {
            assert!(said.err.contains("space"), "{mib} MiB: {said:?}");
            println!("{mib} MiB are too little: {}", said.err);
            continue;
        }
        let Ok(work) = Work::new(&a.dir, 1, 6) else { continue };
        let work = work.careful();
        for _ in 0..8 {
            work.script(40);
            let error = work.error();
            let room = error.as_ref().is_none_or(|e| e.contains("No space left"));
            assert!(room, "{mib} MiB: {error:?}");
            // What a failed sync did not write the kernel shows until it forgets it.
            a.kill_daemon();
            let said = a.run(&["mount", a.dir_str()]);
            assert_eq!(said.code, Some(0), "{mib} MiB: {said:?}");
            work.check(&format!("{mib} MiB"));
        }
        doctor_explains(&a, &format!("{mib} MiB"));
    }
}
