//! The core against the model: random calls, the same answers, the same sight, also after it was
//! killed or cut off from power at any moment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rdrivefs_tests::model::{Clock, FsOp, Model, Rng, Target, TreeTarget, difference, random_op};

struct Run {
    rng: Rng,
    clock: Clock,
    model: Model,
    tree: TreeTarget,
}

impl Run {
    fn new(seed: u64, dir: &std::path::Path) -> Self {
        let clock = Clock::default();
        clock.advance(1_000_000_000_000);
        let tree = TreeTarget::new(dir, clock.clone()).unwrap();
        let root = tree.tree().attr(rdrivefs_sync::id::Ino::ROOT).unwrap();
        let model = Model::new(clock.clone(), (root.uid, root.gid));
        Self { rng: Rng(seed), clock, model, tree }
    }

    fn step(&mut self) -> FsOp {
        self.clock.advance(1 + self.rng.below(3_000_000_000));
        let op = random_op(&mut self.rng);
        let (expected, got) = (self.model.apply(&op), self.tree.apply(&op));
        assert!(expected == got, "{op:?}: expected {expected:?}, got {got:?}");
        op
    }

    fn compare(&mut self, when: &str) {
        let different = difference(&self.model.seen(), &self.tree.seen());
        assert!(different.is_none(), "{when}: {}", different.unwrap_or_default());
    }
}

fn seeds() -> std::ops::Range<u64> {
    let many = std::env::var("MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let first = std::env::var("MODEL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    first..first + many
}

#[test]
fn the_tree_answers_as_the_model_does() {
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new(seed, dir.path());
        for n in 0..400 {
            let op = run.step();
            if n % 20 == 0 {
                run.compare(&format!("seed {seed}, after call {n}, {op:?}"));
            }
        }
        run.compare(&format!("seed {seed}, at the end"));
    }
}

#[test]
fn it_is_the_same_after_being_killed_at_any_time() {
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new(1000 + seed, dir.path());
        for n in 0..400 {
            let op = run.step();
            let when = format!("seed {seed}, after call {n}, {op:?}");
            match run.rng.below(60) {
                0 => run.tree.tree().flush().unwrap(),
                1 => run.tree.tree().checkpoint().unwrap(),
                2 => run.tree.tree().maintain().unwrap(),
                3 | 4 => {
                    run.tree.reopen().unwrap();
                    run.model.close_all();
                    run.compare(&when);
                }
                _ => {}
            }
        }
        run.tree.tree().flush().unwrap();
        run.tree.reopen().unwrap();
        run.compare(&format!("seed {seed}, at the end"));
    }
}

#[test]
fn sealing_changes_nothing_that_can_be_seen() {
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new(2000 + seed, dir.path());
        let mut jobs = Vec::new();
        for n in 0..400 {
            let op = run.step();
            let when = format!("seed {seed}, after call {n}, {op:?}");
            match run.rng.below(40) {
                // Calls come between the beginning of a seal and its end.
                0 | 1 => jobs.append(&mut run.tree.begin_seal()),
                2 | 3 => {
                    let ended: Vec<_> = std::mem::take(&mut jobs);
                    ended.into_iter().for_each(|job| run.tree.end_seal(job));
                    run.compare(&when);
                }
                4 => run.tree.tree().checkpoint().unwrap(),
                5 => {
                    jobs.clear();
                    run.tree.reopen().unwrap();
                    run.model.close_all();
                    run.compare(&when);
                }
                _ => {}
            }
        }
        run.compare(&format!("seed {seed}, at the end"));
    }
}
