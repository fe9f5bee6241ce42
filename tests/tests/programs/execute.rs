//! Programs that run from a drive.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};

use rdrivefs_tests::world::wait_until;
use rustix::io::Errno;

use crate::drive::{Drive, fails, names, sh, try_sh};

/// A program that runs until its test ends.
struct Running(Child);

impl Running {
    fn of(program: &std::path::Path) -> Self {
        let this = Self(Command::new(program).arg("600").spawn().unwrap());
        // Between fork and exec it is not that program yet.
        let exe = format!("/proc/{}/exe", this.0.id());
        let program = program.canonicalize().unwrap();
        wait_until("it runs", || fs::read_link(&exe).is_ok_and(|exe| exe == program));
        this
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn programs_and_scripts_run_from_a_drive() {
    let drive = Drive::new();
    let dir = drive.dir("bin");
    fs::copy("/bin/cat", dir.join("cat")).unwrap();
    fs::write(dir.join("data"), b"data").unwrap();
    assert_eq!(sh(&dir, "./cat data"), "data", "a program");
    fs::write(dir.join("script"), "#!/bin/sh\necho hi $1\n").unwrap();
    assert_eq!(try_sh(&dir, "./script x").code, Some(126), "a script that is not executable");
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(sh(&dir, "./script x"), "hi x\n", "a script");
    fs::copy("/bin/sh", dir.join("shell")).unwrap();
    let own = format!("#!{}/shell\necho by $0\n", dir.display());
    fs::write(dir.join("by"), own).unwrap();
    fs::set_permissions(dir.join("by"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(sh(&dir, "./by"), "by ./by\n", "a script whose interpreter lies there too");
    sh(
        &dir,
        "ln cat hard && ln -s cat soft && ./hard data && ./soft data && PATH=.:$PATH cat data",
    );
    drive.remount();
    assert_eq!(sh(&dir, "./cat data && ./by"), "databy ./by\n", "after mounting again");
}

#[test]
fn a_running_program_is_not_written_but_may_be_replaced_and_removed() {
    let drive = Drive::new();
    let dir = drive.dir("bin");
    let program = dir.join("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let first = Running::of(&program);
    fails(File::options().write(true).open(&program), Errno::TXTBSY, "writing a running program");
    fs::copy("/bin/sleep", dir.join("next")).unwrap();
    fs::rename(dir.join("next"), &program).unwrap();
    let exe = fs::read_link(format!("/proc/{}/exe", first.0.id())).unwrap();
    assert!(exe.to_string_lossy().ends_with("(deleted)"), "{exe:?} was replaced");
    let second = Running::of(&program);
    fs::remove_file(&program).unwrap();
    assert_eq!(names(&dir), Vec::<String>::new(), "nothing is left of either");
    for mut running in [first, second] {
        assert!(running.0.try_wait().unwrap().is_none(), "it runs on");
        // Its pages can still be read, also those nobody has touched yet.
        let exe = fs::read(format!("/proc/{}/exe", running.0.id())).unwrap();
        assert!(exe == fs::read("/bin/sleep").unwrap(), "and is what it was");
    }
}

#[test]
fn a_drive_mounted_noexec_runs_nothing() {
    let drive = Drive::with("noexec");
    fs::copy("/bin/true", drive.path("true")).unwrap();
    fails(Command::new(drive.path("true")).spawn(), Errno::ACCESS, "a program of a noexec mount");
}
