//! The budget of challenges: a day's number, spread evenly over the day.
//!
//! What a computer that was off or asleep did not spend is not made up for.

use std::time::Duration;

use rdrivefs_remote::env::Instant;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A batch about every ten minutes: steady, and a link that sleeps is seldom woken.
const BATCHES_PER_DAY: u64 = 144;

/// The largest batch, which is one request.
const BATCH_MAX: u64 = 128;

/// When the next challenges are due.
#[derive(Debug, Default)]
pub(super) struct Budget {
    per_day: u64,
    next: Option<Instant>,
}

impl Budget {
    pub(super) fn new(per_day: u64) -> Self {
        Self { per_day, next: None }
    }

    /// How many challenges are due; the first after a pause, like all others.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.per_day == 0 {
            return None;
        }
        let first = Instant(now.0 + self.every_ns());
        let next = *self.next.get_or_insert(first);
        (now >= next).then_some(self.batch())
    }

    /// The batch that was due is spent.
    pub(super) fn spend(&mut self, now: Instant) {
        let next = self.next.map_or(now.0, |next| next.0 + self.every_ns());
        self.next = Some(Instant(next.max(now.0)));
    }

    fn batch(&self) -> u64 {
        (self.per_day / BATCHES_PER_DAY).clamp(1, BATCH_MAX)
    }

    fn every_ns(&self) -> u64 {
        let ns = DAY.as_nanos() * u128::from(self.batch()) / u128::from(self.per_day);
        u64::try_from(ns).expect("a day fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are spent in `secs` seconds, asked ten times a second, and the most within one.
    fn spent(budget: &mut Budget, from: u64, secs: u64) -> (u64, u64) {
        let (mut all, mut most) = (0, 0);
        for second in from..from + secs {
            let mut within = 0;
            for tenth in 0..10 {
                let now = Instant(second * 1_000_000_000 + tenth * 100_000_000);
                if let Some(count) = budget.due(now) {
                    budget.spend(now);
                    within += count;
                }
            }
            all += within;
            most = most.max(within);
        }
        (all, most)
    }

    #[test]
    fn a_day_spends_its_number_and_no_second_much_of_it() {
        for (per_day, batch) in [(1, 1), (100, 1), (2_000, 13), (100_000, 128)] {
            let mut budget = Budget::new(per_day);
            spent(&mut budget, 0, 86_400);
            let (all, most) = spent(&mut budget, 86_400, 86_400);
            assert!(all.abs_diff(per_day) <= batch, "{per_day} a day: {all}");
            assert_eq!(most, batch);
        }
    }

    #[test]
    fn none_is_none_and_a_sleep_is_not_made_up_for() {
        assert_eq!(spent(&mut Budget::new(0), 0, 1_000), (0, 0));
        let mut budget = Budget::new(2_000);
        let (first, _) = spent(&mut budget, 0, 60);
        assert_eq!(first, 0, "nothing right after the start");
        let (after, _) = spent(&mut budget, 86_400 * 7, 60);
        assert!(after <= 26, "{after}");
    }
}
