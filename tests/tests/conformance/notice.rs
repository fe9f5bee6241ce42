//! The suites notice when something is wrong: each rule goes red when it is broken.

use std::thread;

use rdrivefs_tests::world::wait_until;

use crate::allow::Allow;
use crate::bed::Bed;
use crate::exerciser::Fsx;
use crate::verdict::Verdict;

fn verdict() -> Verdict {
    let mut verdict = Verdict::new("fsx");
    verdict.pass("plain.1");
    verdict.pass("plain.2");
    verdict
}

fn nothing() -> Allow {
    Allow::default()
}

#[test]
fn a_daemon_that_dies_in_the_midst_of_a_suite_is_a_failure() {
    let bed = Bed::new();
    let fsx = Fsx::on(&bed);
    let mut verdict = Verdict::new("fsx");
    thread::scope(|scope| {
        scope.spawn(|| fsx.run_many(&mut verdict));
        wait_until("fsx has begun", || std::fs::metadata(fsx.file()).is_ok_and(|m| m.len() > 0));
        bed.device().kill_daemon();
    });
    assert_eq!(verdict.failed().keys().collect::<Vec<_>>(), ["plain.1"]);
    bed.settle(&mut verdict);
    assert!(verdict.failed().contains_key("(daemon died)"), "{verdict:?}");
    assert!(!verdict.faults(0, &nothing()).is_empty());
}

#[test]
fn a_daemon_that_was_replaced_is_a_failure() {
    let bed = Bed::new();
    bed.device().kill_daemon();
    bed.device().mount();
    let mut verdict = verdict();
    bed.settle(&mut verdict);
    assert_eq!(verdict.failed().keys().collect::<Vec<_>>(), ["(daemon died)"]);
}

#[test]
fn a_good_bed_is_no_failure() {
    let bed = Bed::new();
    std::fs::write(bed.folder("d").join("f"), b"kept").unwrap();
    let mut verdict = verdict();
    bed.settle(&mut verdict);
    assert_eq!(verdict.faults(2, &nothing()), Vec::<String>::new());
}

#[test]
fn a_failing_name_that_is_not_allowed_is_a_failure() {
    let mut verdict = verdict();
    verdict.fail("punch.1", "EOPNOTSUPP");
    assert_eq!(verdict.faults(3, &nothing()), ["fsx punch.1: EOPNOTSUPP"]);
    let allow = Allow::parse("fsx punch.1  # not there yet").unwrap();
    assert_eq!(verdict.faults(3, &allow), Vec::<String>::new());
    let other = Allow::parse("fio punch.1  # of another suite").unwrap();
    assert_eq!(verdict.faults(3, &other).len(), 1);
}

#[test]
fn an_allowed_name_that_does_not_fail_is_a_failure() {
    for name in ["plain.1", "never-there"] {
        let allow = Allow::parse(&format!("fsx {name}  # it failed once")).unwrap();
        let faults = verdict().faults(2, &allow);
        assert_eq!(faults, [format!("fsx {name}: stale, it is allowed to fail")]);
    }
}

#[test]
fn a_suite_that_ran_too_few_or_nothing_is_a_failure() {
    assert_eq!(verdict().faults(2, &nothing()), Vec::<String>::new());
    assert_eq!(verdict().faults(3, &nothing()), ["fsx (ran too few): 2 of at least 3"]);
    let mut skipped = Verdict::new("fsx");
    skipped.skip("plain.1", "no room");
    assert_eq!(skipped.faults(0, &nothing()), ["fsx (none passed)"]);
    let mut broken = verdict();
    broken.fail("(no end)", "it broke off");
    assert_eq!(broken.faults(3, &nothing()).len(), 2, "what stands in brackets is no case");
}
