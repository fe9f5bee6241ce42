//! The rounds of a test that takes hours, each with a seed and a world of its own.

use std::ops::Range;

/// Where a run of one test that was broken off goes on: rounds before it are not done again.
/// `tests/run` takes no notice of it.
const FROM: &str = "RDRIVEFS_FROM_ROUND";

/// The numbers of `count` rounds, from the one on that the environment names.
///
/// # Panics
///
/// If it names none of them: nothing would be tested.
pub fn rounds(count: u64) -> Range<u64> {
    let rounds = from(std::env::var(FROM).ok().as_deref(), count);
    if rounds.start > 0 {
        println!("skipped: the {} rounds before {FROM}", rounds.start);
    }
    rounds
}

fn from(named: Option<&str>, count: u64) -> Range<u64> {
    let first = named.map_or(Some(0), |named| named.parse().ok()).filter(|first| *first < count);
    first.unwrap_or_else(|| panic!("{FROM} names none of {count} rounds: {named:?}"))..count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_another_ended_and_never_tests_nothing() {
        assert_eq!(from(None, 3), 0..3);
        assert_eq!(from(Some("2"), 3), 2..3);
        for wrong in ["3", "-1", "", "two"] {
            assert!(std::panic::catch_unwind(|| from(Some(wrong), 3)).is_err(), "{wrong:?}");
        }
    }
}
