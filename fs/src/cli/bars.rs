//! Progress of long work, on standard error if that is a terminal.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::{Env, Instant};
use rdrivefs_sync::report::{Phase, ProgressEvent};

use crate::cli::args::Common;
use crate::cli::units;

/// Work that is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// One bar for each kind of work.
pub(super) struct Bars {
    all: Option<MultiProgress>,
    env: Env,
    begun: Instant,
    bars: HashMap<Phase, ProgressBar>,
}

impl Bars {
    /// Bars that begin now.
    pub(super) fn new(common: &Common) -> Self {
        let env = Env::real();
        let all = is_wanted(common).then(MultiProgress::new);
        Self { all, begun: env.instant(), env, bars: HashMap::new() }
    }

    /// Shows how far some work has come.
    pub(super) fn show(&mut self, event: &ProgressEvent) {
        let Some(all) = &self.all else { return };
        let elapsed = self.env.instant().since(self.begun);
        if elapsed < PATIENCE {
            return;
        }
        let bar = self.bars.entry(event.phase).or_insert_with(|| {
            let known = event.total_bytes > 0 || event.total_items > 0;
            let style = if known { "{prefix:9} {wide_bar} {msg}" } else { "{prefix:9} {msg}" };
            let style = ProgressStyle::with_template(style).expect("the template is right");
            all.add(ProgressBar::new(0)).with_style(style).with_prefix(title(event.phase))
        });
        let (done, total) = share(event);
        bar.set_length(total.max(done));
        bar.set_position(done);
        bar.set_message(words(event, elapsed));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bars.values().for_each(ProgressBar::finish_and_clear);
    }
}

/// Whether anybody would see bars: who counts work beforehand asks.
pub(super) fn is_wanted(common: &Common) -> bool {
    std::io::stderr().is_terminal() && !common.quiet
}

/// Bars for work that is done in this process.
pub(super) fn progress(common: &Common) -> Progress {
    let bars = Mutex::new(Bars::new(common));
    Progress::new(move |event| {
        if let Ok(mut bars) = bars.lock() {
            bars.show(&event);
        }
    })
}

/// A line that says what is awaited, and until when, for as long as the value is kept.
pub(super) fn waiting(common: &Common, what: &str, until_ms: u64) -> Waiting {
    if !is_wanted(common) {
        return Waiting(ProgressBar::hidden());
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {prefix}, {left} left");
    bar.set_style(style.expect("the template is right").with_key(
        "left",
        move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let left = until_ms.saturating_sub(Env::real().wall_ms().0);
            let _ = out.write_str(&units::span(left));
        },
    ));
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    Waiting(bar)
}

/// Takes its line away when dropped.
pub(super) struct Waiting(ProgressBar);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How much of how much: bytes if they are known, else items.
fn share(event: &ProgressEvent) -> (u64, u64) {
    match event.total_bytes {
        0 => (event.done_items, event.total_items),
        total => (event.done_bytes, total),
    }
}

/// Bytes, items, rate and time left, each as far as it is known.
fn words(event: &ProgressEvent, elapsed: Duration) -> String {
    let of = |done: String, total: Option<String>| match total {
        Some(total) => format!("{done} of {total}"),
        None => done,
    };
    let mut parts = Vec::new();
    if event.done_bytes > 0 || event.total_bytes > 0 {
        let total = (event.total_bytes > 0).then(|| units::bytes(event.total_bytes));
        parts.push(of(units::bytes(event.done_bytes), total));
    }
    let total = (event.total_items > 0).then(|| units::count(event.total_items));
    parts.push(format!("{} {}", of(units::count(event.done_items), total), items(event.phase)));
    let secs = elapsed.as_secs_f64().max(0.001);
    if event.done_bytes > 0 {
        parts.push(format!("{}/s", units::bytes((event.done_bytes as f64 / secs) as u64)));
    }
    let (done, total) = share(event);
    if done > 0 && total > done {
        let left = secs * (total - done) as f64 / done as f64;
        parts.push(format!("{} left", units::span((left * 1_000.0) as u64)));
    }
    parts.join(", ")
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "opening",
        Phase::Seal => "sealing",
        Phase::Push => "sending",
        Phase::Pull => "receiving",
        Phase::Verify => "verifying",
        Phase::Evict => "evicting",
        Phase::Fetch => "fetching",
        Phase::Copy => "copying",
        Phase::Check => "checking",
    }
}

fn items(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "steps",
        Phase::Seal | Phase::Copy => "files",
        Phase::Push | Phase::Evict | Phase::Fetch | Phase::Check => "layers",
        Phase::Pull => "commits",
        Phase::Verify => "challenges",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_bytes_items_rate_and_time_left_as_far_as_they_are_known() {
        let event = |done_bytes, total_bytes, done_items, total_items| ProgressEvent {
            phase: Phase::Copy,
            done_bytes,
            total_bytes,
            done_items,
            total_items,
        };
        let two = Duration::from_secs(2);
        let mib = 1 << 20;
        assert_eq!(
            words(&event(2 * mib, 8 * mib, 1, 3), two),
            "2.0 MiB of 8.0 MiB, 1 of 3 files, 1.0 MiB/s, 6 s left"
        );
        assert_eq!(words(&event(2 * mib, 0, 1, 0), two), "2.0 MiB, 1 files, 1.0 MiB/s");
        assert_eq!(words(&event(0, 0, 1, 2), two), "1 of 2 files, 2 s left");
        assert_eq!(
            words(&event(mib, mib, 2, 2), two),
            "1.0 MiB of 1.0 MiB, 2 of 2 files, 512.0 KiB/s"
        );
    }
}
