//! pjdfstest: what POSIX says of some twenty system calls, case by case.
//!
//! Run by root it changes users itself and tries every kind of file and every refusal; run by
//! nobody it does what one user can, on a mount that belongs to another.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::{Bed, open_to_all};
use crate::child::{Ended, run};
use crate::tools::installed;
use crate::verdict::Verdict;

/// Longest the suite may take; it takes seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(900);

/// What the drive promises, and how long a case sleeps for a timestamp to change: longer than a
/// tick of any kernel. The users are those that every system has.
const FEATURES: &str = "[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\n\
    rename_ctime = {}\nstat_st_birthtime = {}\n[settings]\nnaptime = 0.02\n\
    allow_remount = true\n";

/// Of 398 cases 397 run: nobody knows how many links a file may have. A container may not allow the
/// 13 that mount the drive anew, to be read only.
const FLOOR_ROOT: usize = 380;

/// Cases that need no privilege.
const FLOOR_NOBODY: usize = 240;

#[test]
fn pjdfstest_as_root_finds_nothing() {
    let bed = Bed::new();
    let mut verdict = posix(&bed, "pjdfstest", None);
    bed.settle(&mut verdict);
    verdict.judge(FLOOR_ROOT);
}

#[test]
fn pjdfstest_as_nobody_finds_nothing() {
    let bed = Bed::new();
    let mut verdict = posix(&bed, "pjdfstest-nobody", Some(User::named("nobody")));
    bed.settle(&mut verdict);
    verdict.judge(FLOOR_NOBODY);
}

fn posix(bed: &Bed, suite: &'static str, user: Option<User>) -> Verdict {
    let (folder, aside) = (bed.short_folder("p"), bed.aside("suite"));
    // The target folder may lie where nobody may look.
    let program = aside.join("pjdfstest");
    fs::copy(installed("pjdfstest"), &program).unwrap();
    let config = aside.join("config.toml");
    fs::write(&config, configuration()).unwrap();
    fs::create_dir(aside.join("second")).unwrap();
    for path in [&program, &config] {
        open_to_all(path);
    }
    let mut command = Command::new(&program);
    command.arg("-c").arg(&config).arg("-p").arg(&folder).arg("-s").arg(aside.join("second"));
    for path in [folder, aside.join("second")] {
        let owner = user.as_ref().map(|user| (user.uid, user.gid));
        std::os::unix::fs::chown(path, owner.map(|o| o.0), owner.map(|o| o.1)).unwrap();
    }
    if let Some(user) = &user {
        command.uid(user.uid).gid(user.gid);
    }
    let ended = run(&mut command, LIMIT);
    let mut verdict = Verdict::new(suite);
    read(&ended, &mut verdict);
    verdict
}

/// What it said: `NAME ok`, `NAME FAILED`, `NAME skipped`, each with a reason in a line of its own.
fn read(ended: &Ended, verdict: &mut Verdict) {
    let text = without_colours(&ended.text);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("Summary: ") {
            return match ended.well() || !verdict.failed().is_empty() {
                true => (),
                false => verdict.fail("(ended badly)", ended.why(&["Error"])),
            };
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let reason = lines.peek().and_then(|next| next.strip_prefix('\t')).unwrap_or("");
        match words[..] {
            [name, "ok"] if is_case(name) => verdict.pass(name),
            [name, "FAILED"] if is_case(name) => verdict.fail(name, reason),
            [name, "skipped"] if is_case(name) => verdict.skip(name, reason),
            _ => (),
        }
    }
    verdict.fail("(no end)", ended.why(&["Error", "error"]));
}

fn is_case(name: &str) -> bool {
    name.contains("::")
}

fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

fn configuration() -> String {
    let entry = |name| format!("[\"{name}\", \"{}\"]", User::named(name).group);
    let entries = [entry("nobody"), entry("daemon")].join(", ");
    format!("{FEATURES}[dummy_auth]\nentries = [{entries}]\n")
}

/// A user of this system and the group it belongs to.
struct User {
    uid: u32,
    gid: u32,
    group: String,
}

impl User {
    fn named(name: &str) -> Self {
        let user = entry("/etc/passwd", |fields| fields[0] == name);
        let user = user.unwrap_or_else(|| panic!("(missing) there is no user {name}"));
        let group = entry("/etc/group", |fields| fields[2] == user[3]);
        let group = group.unwrap_or_else(|| panic!("(missing) {name} has no group"));
        let number = |text: &str| text.parse().unwrap();
        Self { uid: number(&user[2]), gid: number(&user[3]), group: group[0].clone() }
    }
}

fn entry(file: &str, is: impl Fn(&[String]) -> bool) -> Option<Vec<String>> {
    let text = fs::read_to_string(Path::new(file)).unwrap();
    let mut entries = text.lines().map(|line| line.split(':').map(str::to_owned).collect());
    entries.find(|fields: &Vec<_>| fields.len() >= 4 && is(fields))
}

#[test]
fn a_failed_case_and_a_suite_that_breaks_off_are_seen() {
    let said = |text: &str, code| {
        let mut verdict = Verdict::new("pjdfstest");
        read(&Ended { code: Some(code), text: text.into() }, &mut verdict);
        verdict
    };
    let ok = "\u{1b}[34mchmod::a\u{1b}[0m     \u{1b}[32mok\u{1b}[0m\n";
    let bad =
        "\u{1b}[34mchmod::b::regular\u{1b}[0m \u{1b}[31mFAILED\u{1b}[0m\n\tleft is not right\n";
    let end = "\n\u{1b}[1mSummary\u{1b}[0m: 1 failed, 0 skipped, 1 passed\n";
    let verdict = said(&format!("{ok}{bad}{end}"), 1);
    assert_eq!(verdict.failed()["chmod::b::regular"], "left is not right");
    assert_eq!(verdict.line(), "pjdfstest: 1 passed, 1 failed, 0 skipped");
    assert!(said(&format!("{ok}{end}"), 0).failed().is_empty());
    assert!(said(&format!("{ok}{end}"), 1).failed().contains_key("(ended badly)"));
    assert!(said(ok, 0).failed().contains_key("(no end)"));
}
