//! From the mount to its end, the orderly and the other ones.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use rdrivefs::mount::{MountError, Options, mount};
use rdrivefs_sync::remote::env::Env;
use rustix::process::Signal;

use crate::daemon::{Local, Remote, is_mounted};
use crate::memory::Memory;

#[test]
fn sigterm_unmounts_and_ends_well() {
    let root = tempfile::tempdir().unwrap();
    let mut remote = Remote::new(&root.path().join("mnt"), "").unwrap();
    fs::write(remote.dir.join("file"), b"content").unwrap();
    remote.signal(Signal::TERM);
    let status = remote.ended_within(Duration::from_secs(10)).expect("it ends");
    assert!(status.success());
    assert!(!is_mounted(&remote.dir));
}

#[test]
fn sigterm_under_open_files_takes_the_mount_out_of_sight_and_waits_for_them() {
    let root = tempfile::tempdir().unwrap();
    let mut remote = Remote::new(&root.path().join("mnt"), "").unwrap();
    let mut file = fs::File::create(remote.dir.join("file")).unwrap();
    file.write_all(b"before").unwrap();
    remote.signal(Signal::TERM);
    while is_mounted(&remote.dir) {
        std::thread::sleep(Duration::from_millis(10));
    }
    file.write_all(b"after").unwrap();
    file.sync_all().expect("it is served to the end");
    drop(file);
    let status = remote.ended_within(Duration::from_secs(5)).expect("it ends with the last file");
    assert!(status.success());
}

#[test]
fn an_unmount_from_outside_ends_the_daemon() {
    let root = tempfile::tempdir().unwrap();
    let mut remote = Remote::new(&root.path().join("mnt"), "").unwrap();
    assert!(Command::new("umount").arg(&remote.dir).status().unwrap().success());
    assert!(remote.ended_within(Duration::from_secs(10)).expect("it ends").success());
}

#[test]
fn a_killed_daemon_leaves_a_dead_mount_that_the_next_mount_heals() {
    let root = tempfile::tempdir().unwrap();
    let point = root.path().join("mnt");
    for _ in 0..2 {
        let mut remote = Remote::new(&point, "").unwrap();
        fs::write(remote.dir.join("file"), b"content").unwrap();
        remote.kill();
        let dead = fs::metadata(&remote.dir).unwrap_err();
        assert_eq!(dead.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
        let healed = Remote::new(&point, "").unwrap();
        assert_eq!(fs::read_dir(&healed.dir).unwrap().count(), 0);
        drop(healed);
        assert!(!is_mounted(&remote.dir));
    }
}

#[test]
fn a_living_mount_is_not_covered() {
    let local = Local::new();
    let core = std::sync::Arc::new(Memory::new(Env::real()));
    let refused = mount(&local.dir, &Options::default(), &[], core, Env::real());
    let Err(MountError::Taken { kind, .. }) = refused else { panic!("two mounts on one folder") };
    assert_eq!(kind, "fuse.rdrivefs");
}

#[test]
fn a_mount_inside_the_drives_own_files_is_refused() {
    let local = Local::new();
    let core = std::sync::Arc::new(Memory::new(Env::real()));
    let inside = local.path("inner");
    let state = [local.dir.clone()];
    fs::create_dir(&inside).unwrap();
    let refused = mount(&inside, &Options::default(), &state, core, Env::real());
    assert!(matches!(refused, Err(MountError::InsideItself { .. })));
}

#[test]
fn in_use_it_is_not_unmounted_but_stays_whole() {
    let local = Local::new();
    let file = fs::File::create(local.path("file")).unwrap();
    let unmounted = Command::new("umount").arg(&local.dir).output().unwrap();
    assert!(!unmounted.status.success());
    fs::write(local.path("other"), b"still here").unwrap();
    drop(file);
}

#[test]
fn read_only_refuses_every_change() {
    let local = Local::with("ro");
    let refused = fs::write(local.path("file"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// An ordinary user mounts by fusermount3, and the kernel's own requests, made as root, count.
///
/// It happens in a namespace of its own, where everybody may open /dev/fuse, as udev has it.
#[test]
fn an_ordinary_user_mounts_and_keeps_times() {
    if !rustix::process::geteuid().is_root() {
        return; // Then every other test shows it.
    }
    let root = tempfile::tempdir().unwrap();
    let (point, device) = (root.path().join("mnt"), root.path().join("fuse"));
    fs::create_dir(&point).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let number = fs::metadata("/dev/fuse").unwrap().rdev();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &device, kind, mode, number).unwrap();
    // A place where an ordinary user may run this program from.
    let program = root.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for path in [root.path(), &point, &device, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let bind = "mount --bind \"$0\" /dev/fuse && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", bind]).arg(&device).args(nobody).arg(&program);
    let mut remote = Remote::run(command, &point, "").unwrap();
    let inside = |who: &[&str], script: &str| {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(remote.pid().to_string()).arg("-m").args(who);
        command.args(["sh", "-c", script]).env("DIR", &point).output().unwrap()
    };
    let script = "cd \"$DIR\" && echo content > file && touch -d @1000000000.5 file && \
        exec 3<> file && echo >&3 x && touch -d @1000000001.25 file && exec 3>&- && \
        stat -c %.Y file && grep \"$DIR\" /proc/self/mountinfo";
    let output = inside(&nobody, script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("1000000001.25"), "{output:?}");
    assert!(said.contains("nosuid,nodev") && said.contains("fuse.rdrivefs rdrivefs"), "{said}");
    assert!(!inside(&[], "ls \"$DIR\"").status.success(), "not even root may look in");
    remote.signal(Signal::TERM);
    assert!(remote.ended_within(Duration::from_secs(10)).expect("it ends").success());
}
