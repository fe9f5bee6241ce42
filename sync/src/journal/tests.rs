//! Crashes, damage, failing and full disks, against a model of what was promised.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdrivefs_remote::env::{Env, Instant, World};

use super::fault::{FaultDisk, Faults};
use super::*;

const KEY: [u8; 32] = [7; 32];

/// Draws numbers from a seed, so that a test's journal is the same each time.
struct Seeded(AtomicU64);

impl World for Seeded {
    fn wall_ns(&self) -> u64 {
        0
    }

    fn instant(&self) -> Instant {
        Instant(0)
    }

    fn fill(&self, out: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(out);
    }
}

fn env(seed: u64) -> Env {
    Env::of(Seeded(AtomicU64::new(seed << 32)))
}

fn small() -> Settings {
    Settings {
        log_segment_bytes: 90 << 10,
        data_segment_bytes: 140 << 10,
        ahead_bytes: 8 << 10,
        ballast_bytes: 10 << 10,
        held_bytes_max: 60 << 10,
        unsynced_bytes_max: 50 << 10,
        shared_bytes_max: 40 << 10,
        ..Settings::default()
    }
}

fn open(disk: &FaultDisk, seed: u64, applied: u64) -> Result<(Journal, Replay)> {
    let disk = Arc::new(disk.clone());
    Journal::open_on(disk, &Key::from(KEY), &env(seed), Position(applied), small())
}

fn replayed(replay: Replay) -> Vec<Replayed> {
    replay.map(|record| record.expect("what is replayed can be read")).collect()
}

/// A record of a test: a number, the bytes it stands for, where those were staged.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
struct Fact {
    #[n(0)]
    number: u64,
    #[n(1)]
    staged: Vec<Place>,
    #[cbor(n(2), with = "minicbor::bytes")]
    inside: Vec<u8>,
}

fn bytes_of(number: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// What was handed to a journal and what it promised.
#[derive(Default)]
struct Model {
    /// What was appended, and last what an append that failed may have left.
    appended: BTreeMap<u64, Vec<u8>>,
    failed: BTreeMap<u64, Vec<Vec<u8>>>,
    confirmed: u64,
    applied: u64,
    errors: u64,
}

impl Model {
    fn append(&mut self, journal: &Journal, fact: &Fact, reserved: bool) -> Option<Appended> {
        let record = minicbor::to_vec(fact).unwrap();
        let done = match (reserved, fact.staged.is_empty()) {
            (true, _) => journal.append_reserved(&record, &fact.staged),
            (false, true) => journal.append(&record),
            (false, false) => journal.append_naming(&record, &fact.staged),
        };
        let Ok(appended) = done else {
            self.errors += 1;
            let next = self.appended.len() as u64 + 1;
            self.failed.entry(next).or_default().push(record);
            return None;
        };
        let position = appended.position.0;
        assert_eq!(position, self.appended.len() as u64 + 1, "positions have no gaps");
        self.appended.insert(position, record);
        Some(appended)
    }

    fn sync(&mut self, journal: &Journal, data: &[u32]) {
        let last = Position(self.appended.len() as u64);
        match journal.sync(last, data) {
            Ok(confirmed) => {
                assert_eq!(confirmed.position(), last);
                self.confirmed = last.0;
            }
            Err(_) => self.errors += 1,
        }
        assert!(journal.confirmed().0 <= last.0);
    }

    fn live(&self) -> Vec<u32> {
        let records = self.appended.range(self.applied + 1..).map(|(_, record)| record);
        let facts = records.map(|record| minicbor::decode::<Fact>(record).unwrap());
        facts.flat_map(|fact| fact.staged.into_iter().map(|place| place.segment)).collect()
    }

    /// Three dozen operations of every sort.
    fn run(&mut self, journal: &Journal) {
        for number in 0..36_u64 {
            let len = [20, 300, 4000, 17_000][(number % 4) as usize];
            let inside = bytes_of(number, len);
            match number % 9 {
                2 | 5 => self.stage(journal, number),
                3 | 7 => {
                    self.append(journal, &Fact { number, staged: vec![], inside }, false);
                    self.sync(journal, &[]);
                }
                6 => {
                    self.append(journal, &Fact { number, staged: vec![], inside }, true);
                }
                8 => {
                    self.applied = self.confirmed.saturating_sub(4);
                    let live = self.live();
                    let freed = journal.free(Position(self.applied), |one| live.contains(&one));
                    self.errors += u64::from(freed.is_err());
                }
                _ => {
                    self.append(journal, &Fact { number, staged: vec![], inside }, false);
                }
            }
        }
        self.sync(journal, &[]);
    }

    fn stage(&mut self, journal: &Journal, number: u64) {
        let data = bytes_of(number, 30_000);
        let mut staged = Vec::new();
        for part in data.chunks(20_000) {
            match journal.stage(number % 2, part) {
                Ok(mut places) => staged.append(&mut places),
                Err(_) => return self.errors += 1,
            }
        }
        let segments: Vec<u32> = staged.iter().map(|place| place.segment).collect();
        if number.is_multiple_of(4) && journal.flush(&segments).is_err() {
            self.errors += 1;
        }
        self.append(journal, &Fact { number, staged, inside: vec![] }, false);
        if number.is_multiple_of(3) {
            self.sync(journal, &segments);
        }
    }

    /// What is replayed is a prefix of what was appended with all that was confirmed, and all it
    /// names can be read. Returns where it ends.
    fn check(&self, journal: &Journal, replay: Vec<Replayed>) -> u64 {
        let mut last = self.applied;
        for record in replay {
            last += 1;
            assert_eq!(record.position.0, last);
            let known = self.appended.get(&last) == Some(&record.record);
            let failed = self.failed.get(&last).is_some_and(|all| all.contains(&record.record));
            assert!(known || (failed && last > self.confirmed), "record {last} was never appended");
            let fact: Fact = minicbor::decode(&record.record).unwrap();
            let range = record.place.len - fact.inside.len() as u32..record.place.len;
            if fact.staged.is_empty() {
                assert_eq!(journal.read(record.place, range).unwrap(), fact.inside);
            }
            let read = |place: &Place| journal.read(*place, 0..place.len).unwrap();
            let data: Vec<u8> = fact.staged.iter().flat_map(read).collect();
            assert!(data.is_empty() || data == bytes_of(fact.number, 30_000));
        }
        assert!(last >= self.confirmed, "confirmed {} but only {last} survive", self.confirmed);
        last
    }

    /// Opens after a crash, goes on, crashes again, opens again.
    fn recover(&self, disk: &FaultDisk, seed: u64) {
        let (journal, replay) =
            open(disk, 1000 + seed, self.applied).expect("a crash is no damage");
        let last = self.check(&journal, replayed(replay));
        let shown = disk.crash(seed);
        let (second, replay) = open(&shown, 2000 + seed, self.applied).unwrap();
        assert_eq!(self.check(&second, replayed(replay)), last, "nothing shown is taken back");
        let extra = second.append(b"after the crash").unwrap();
        assert_eq!(extra.position.0, last + 1);
        let _ = second.sync(extra.position, &[]).unwrap();
        let (_, replay) = open(&shown.crash(seed), 3000 + seed, self.applied).unwrap();
        let records = replayed(replay);
        assert_eq!(records.len() as u64, last + 1 - self.applied);
        assert_eq!(records.last().unwrap().record, b"after the crash");
    }
}

/// The calls that a run without faults makes.
fn calls_of_a_run() -> u64 {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let mut model = Model::default();
    model.run(&journal);
    assert_eq!((model.errors, model.confirmed), (0, model.appended.len() as u64));
    let mut names = disk.lengths().into_iter().map(|(name, _)| name);
    let later = names.find(|name| name.starts_with("log") && name != "log-00000001-0000");
    assert!(later.is_some(), "the run is long enough for the log to roll");
    model.recover(&disk.crash(1), 1);
    disk.calls()
}

#[test]
fn r01_what_was_confirmed_survives_a_power_cut_at_every_disk_call() {
    for die_at in 0..calls_of_a_run() {
        let disk = FaultDisk::new();
        disk.set_faults(Faults { die_at: Some(die_at), ..Faults::default() });
        let mut model = Model::default();
        if let Ok((journal, _)) = open(&disk, 1, 0) {
            model.run(&journal);
        }
        for seed in 0..6 {
            model.recover(&disk.crash(die_at * 100 + seed), seed);
        }
    }
}

#[test]
fn r01_recovery_itself_may_be_cut_at_every_disk_call() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let mut model = Model::default();
    model.run(&journal);
    let fact = Fact { number: 77, staged: vec![], inside: bytes_of(77, 5000) };
    model.append(&journal, &fact, false);
    model.stage(&journal, 78);
    model.append(&journal, &fact, false);
    for seed in 0..24 {
        let first = disk.crash(seed);
        for die_at in 0..20 {
            let torn = first.crash(seed);
            torn.set_faults(Faults { die_at: Some(die_at), ..Faults::default() });
            let opened = open(&torn, 5, model.applied);
            assert!(die_at > 4 || opened.is_err());
            model.recover(&torn.crash(die_at), seed);
        }
    }
}

#[test]
fn r02_a_kill_leaves_everything_that_was_appended() {
    for die_at in 0..calls_of_a_run() {
        let disk = FaultDisk::new();
        let mut model = Model::default();
        disk.set_faults(Faults { die_at: Some(die_at), ..Faults::default() });
        if let Ok((journal, _)) = open(&disk, 1, 0) {
            model.run(&journal);
        }
        let after = disk.copy();
        let (journal, replay) = open(&after, 2, model.applied).unwrap();
        let last = model.check(&journal, replayed(replay));
        assert!(last >= model.appended.len() as u64, "killed at call {die_at}");
        for seed in 0..3 {
            let dark = after.crash(seed);
            let (journal, replay) = open(&dark, 3, model.applied).unwrap();
            assert_eq!(model.check(&journal, replayed(replay)), last, "shown and taken back");
        }
    }
}

/// A journal with everything in it, synced, and the places of all its bytes.
fn small_journal(settings: &Settings) -> (FaultDisk, Vec<Place>, Vec<Vec<u8>>) {
    let disk = FaultDisk::new();
    let open = Journal::open_on(
        Arc::new(disk.clone()),
        &Key::from(KEY),
        &env(1),
        Position(0),
        settings.clone(),
    );
    let (journal, _) = open.unwrap();
    let (mut places, mut records) = (Vec::new(), Vec::new());
    for number in 0..5_u64 {
        let record = bytes_of(number, 40);
        let staged = journal.stage(1, &bytes_of(number, 100)).unwrap();
        let place = journal.append_naming(&record, &staged).unwrap();
        let _ = journal.sync(place.position, &[]).unwrap();
        places.extend(staged);
        records.push(record);
    }
    (disk, places, records)
}

#[test]
fn r02_any_damaged_byte_is_named_or_beyond_what_was_confirmed() {
    let settings = Settings { ahead_bytes: 600, ..small() };
    let (whole, places, records) = small_journal(&settings);
    let (mut named, mut harmless) = (0, 0);
    for (name, len) in whole.lengths() {
        for at in 0..len {
            let disk = whole.copy();
            disk.flip(&name, at, 0x10);
            let key = Key::from(KEY);
            let files = disk.lengths();
            let disk = Arc::new(disk);
            let opened =
                Journal::open_on(disk.clone(), &key, &env(2), Position(0), settings.clone());
            let error = match opened {
                Err(error) => {
                    assert_eq!(disk.lengths(), files, "nothing was changed");
                    Some(error)
                }
                Ok((journal, replay)) => {
                    let replay = replayed(replay);
                    let got: Vec<_> = replay.into_iter().map(|one| one.record).collect();
                    assert_eq!(got, records, "{name} byte {at}");
                    let reads = places.iter().enumerate().map(|(number, place)| {
                        let data = journal.read(*place, 0..place.len)?;
                        assert_eq!(data, bytes_of(number as u64, 100));
                        Ok(())
                    });
                    reads.filter_map(|read: Result<()>| read.err()).next()
                }
            };
            match error {
                Some(Error::Corrupt { what, .. } | Error::UnknownVersion { what, .. }) => {
                    let segment = u32::from_str_radix(&name[name.len() - 13..][..8], 16).unwrap();
                    assert!(what.starts_with(&format!("journal segment {segment} at offset ")));
                    named += 1;
                }
                Some(other) => panic!("{name} byte {at}: {other}"),
                None => harmless += 1,
            }
        }
    }
    // The last marker and the zeros behind it are all that nobody needs.
    let unused = whole.lengths().iter().map(|(_, len)| len).sum::<usize>() - named;
    assert_eq!(harmless, unused);
    let blocks = 128 + 5 * (40 + 20 + 88) + 4 * 88 + 128 + 5 * (100 + 88);
    assert_eq!(named, blocks, "every byte of a confirmed block and of a header counts");
}

#[test]
fn r02_a_lost_log_segment_is_damage() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    for number in 0..40 {
        let at = journal.append(&bytes_of(number, 9000)).unwrap().position;
        let _ = journal.sync(at, &[]).unwrap();
    }
    let logs = disk.lengths().into_iter().filter(|(name, _)| name.starts_with("log"));
    let logs: Vec<String> = logs.map(|(name, _)| name).collect();
    assert!(logs.len() > 3);
    for name in &logs[..logs.len() - 1] {
        let less = disk.copy();
        less.remove(name).unwrap();
        assert!(open(&less, 2, 0).unwrap_err().is_corrupt(), "{name}");
    }
    let gone = FaultDisk::new();
    assert!(open(&gone, 2, 3).unwrap_err().is_corrupt());
    assert!(open(&disk, 2, 0).is_ok());
}

#[test]
fn r02_an_index_ahead_of_a_log_that_lost_its_tail_is_followed() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    for number in 0..8 {
        journal.append(&bytes_of(number, 500)).unwrap();
    }
    // No crash keeps all of eight unsynced writes under this seed.
    let torn = disk.crash(3);
    let (journal, replay) = open(&torn, 2, 8).unwrap();
    assert_eq!(replayed(replay), []);
    assert_eq!(journal.append(b"nine").unwrap().position, Position(9));
    let _ = journal.sync(Position(9), &[]).unwrap();
    let (_, replay) = open(&torn.crash(1), 3, 8).unwrap();
    assert_eq!(replayed(replay)[0].record, b"nine");
    assert!(open(&torn, 4, 2).unwrap_err().is_corrupt(), "an older index misses records");
}

#[test]
fn r06_an_error_at_any_call_is_shown_and_nothing_is_confirmed_that_is_not_durable() {
    let calls = calls_of_a_run();
    for again in [false, true] {
        for k in 0..calls {
            let disk = FaultDisk::new();
            let fail_at = Some((k, ErrorKind::Other));
            disk.set_faults(Faults { fail_at, again, ..Faults::default() });
            let mut model = Model::default();
            let Ok((journal, _)) = open(&disk, 1, 0) else {
                disk.set_faults(Faults::default());
                model.recover(&disk.crash(k), 1);
                continue;
            };
            model.run(&journal);
            for seed in 0..3 {
                model.recover(&disk.crash(k * 10 + seed), seed);
            }
            disk.set_faults(Faults::default());
            model.sync(&journal, &[]);
            model.recover(&disk.crash(k), 9);
        }
    }
}

#[test]
fn r06_a_failed_sync_is_made_good_from_memory_or_never_claimed() {
    for (kind, held) in [("log", true), ("data", true), ("data", false)] {
        let disk = FaultDisk::new();
        let settings = Settings { held_bytes_max: if held { 1 << 20 } else { 0 }, ..small() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (journal, _) =
            Journal::open_on(shared, &Key::from(KEY), &env(1), Position(0), settings).unwrap();
        let first = journal.append(b"first").unwrap();
        let _ = journal.sync(first.position, &[]).unwrap();
        let staged = journal.stage(1, &bytes_of(1, 30_000)).unwrap();
        let at = journal.append_naming(b"second", &staged).unwrap().position;
        // The data are synced before the log.
        let fail_at = disk.calls() + if kind == "log" { 2 } else { 0 };
        let fail_at = Some((fail_at, ErrorKind::Other));
        disk.set_faults(Faults { fail_at, ..Faults::default() });
        let _ = journal.sync(at, &[]).unwrap();
        assert!(disk.lengths().iter().any(|(name, _)| name.ends_with("-0001")), "{kind}");
        assert_eq!(journal.read(staged[0], 0..30_000).unwrap(), bytes_of(1, 30_000));
        let third = journal.append(b"third").unwrap().position;
        let _ = journal.sync(third, &[]).unwrap();
        let (journal, replay) = open(&disk.crash(1), 2, 0).unwrap();
        let records: Vec<_> = replayed(replay).into_iter().map(|one| one.record).collect();
        assert_eq!(records, [&b"first"[..], b"second", b"third"]);
        assert_eq!(journal.read(staged[0], 0..30_000).unwrap(), bytes_of(1, 30_000));
    }
}

#[test]
fn r06_a_failed_write_leaves_the_rest_of_its_segment_to_be_made_good() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let good = journal.stage(1, &bytes_of(1, 5000)).unwrap();
    let fail = |calls| {
        let fail_at = Some((calls, ErrorKind::Other));
        disk.set_faults(Faults { fail_at, ..Faults::default() });
    };
    fail(disk.calls());
    assert!(matches!(journal.stage(1, &bytes_of(2, 5000)).unwrap_err(), Error::Io { .. }));
    fail(disk.calls());
    journal.flush(&[good[0].segment]).unwrap();
    let at = journal.append_naming(b"good", &good).unwrap().position;
    let _ = journal.sync(at, &[]).unwrap();
    let (journal, replay) = open(&disk.crash(1), 2, 0).unwrap();
    assert_eq!(replay.count(), 1);
    assert_eq!(journal.read(good[0], 0..5000).unwrap(), bytes_of(1, 5000));
}

#[test]
fn r06_what_a_failed_sync_lost_is_never_claimed() {
    let disk = FaultDisk::new();
    let settings = Settings { held_bytes_max: 0, ..small() };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (journal, _) =
        Journal::open_on(shared, &Key::from(KEY), &env(1), Position(0), settings).unwrap();
    let first = journal.append(b"first").unwrap().position;
    let _ = journal.sync(first, &[]).unwrap();
    let staged = journal.stage(1, &bytes_of(1, 30_000)).unwrap();
    let at = journal.append_naming(b"second", &staged).unwrap().position;
    let fail_at = Some((disk.calls(), ErrorKind::Other));
    disk.set_faults(Faults { fail_at, lose: true, ..Faults::default() });
    for _ in 0..3 {
        assert!(matches!(journal.sync(at, &[]).unwrap_err(), Error::Io { .. }));
        assert_eq!(journal.confirmed(), first);
    }
    assert!(journal.read(staged[0], 0..1).unwrap_err().is_corrupt());
    let (_, replay) = open(&disk.crash(1), 2, 0).unwrap();
    assert_eq!(replayed(replay).len(), 1);
}

#[test]
fn r07_at_zero_bytes_free_deletes_syncs_and_a_restart_go_on() {
    let disk = FaultDisk::new();
    let settings = Settings { ballast_bytes: 6 << 20, ..small() };
    let key = Key::from(KEY);
    let open = |disk: &FaultDisk, applied| {
        let shared = Arc::new(disk.clone());
        Journal::open_on(shared, &key, &env(3), Position(applied), settings.clone()).unwrap()
    };
    let (journal, _) = open(&disk, 0);
    let mut bytes = 0;
    let fill = |disk: &FaultDisk| {
        let used = disk.lengths().iter().map(|(_, len)| *len as u64).sum();
        disk.set_capacity(Some(used));
    };
    // Somebody else takes all that is free.
    fill(&disk);
    let staged = journal.stage(1, &bytes_of(1, 50_000)).unwrap_err();
    assert!(matches!(staged, Error::Posix(Posix::NoSpace)));
    while bytes < 2 << 20 {
        let at = journal.append_reserved(&bytes_of(2, 30_000), &[]).unwrap().position;
        let _ = journal.sync(at, &[]).unwrap();
        bytes += 30_000;
    }
    let last = journal.last();
    drop(journal);
    fill(&disk);
    let (journal, replay) = open(&disk, 0);
    assert_eq!(replay.count() as u64, last.0);
    let at = journal.append_reserved(b"delete", &[]).unwrap().position;
    let _ = journal.sync(at, &[]).unwrap();
    disk.set_capacity(None);
    assert!(journal.free(last, |_| false).unwrap() > 0);
    let ballast = disk.lengths().into_iter().find(|(name, _)| name == "reserve").unwrap();
    assert_eq!(ballast.1, 6 << 20, "the reserve is whole again");
}

#[test]
fn r07_a_full_disk_refuses_in_time_and_still_takes_deletes() {
    let disk = FaultDisk::new();
    disk.set_capacity(Some(RESERVE_BYTES_MIN + (1 << 20)));
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let mut places = Vec::new();
    let full = loop {
        match journal.stage(1, &bytes_of(1, 50_000)) {
            Ok(mut staged) => places.append(&mut staged),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Posix(Posix::NoSpace)), "{full}");
    assert!(disk.free_space().unwrap() >= RESERVE_BYTES_MIN, "the reserve is untouched");
    let full = loop {
        if let Err(error) = journal.append(&bytes_of(1, 3000)) {
            break error;
        }
    };
    assert!(matches!(full, Error::Posix(Posix::NoSpace)), "{full}");
    for _ in 0..300 {
        let at = journal.append_reserved(&bytes_of(2, 50_000), &[]).unwrap().position;
        let _ = journal.sync(at, &[]).unwrap();
    }
    let last = journal.last();
    assert!(journal.available().unwrap() == 0);
    journal.free(last, |_| false).unwrap();
    assert!(journal.free(last, |_| false).unwrap() > 0);
    assert!(journal.append(b"room again").is_ok());
    assert!(journal.stage(1, b"room again").is_ok());
}

#[test]
fn r07_no_space_at_any_write_harms_nothing() {
    let calls = calls_of_a_run();
    for again in [false, true] {
        for k in 0..calls {
            let disk = FaultDisk::new();
            let fail_at = Some((k, ErrorKind::StorageFull));
            disk.set_faults(Faults { fail_at, again, ..Faults::default() });
            let mut model = Model::default();
            let Ok((journal, _)) = open(&disk, 1, 0) else { continue };
            model.run(&journal);
            model.recover(&disk.crash(k), 1);
            disk.set_faults(Faults::default());
            let fact = Fact { number: 99, staged: vec![], inside: vec![] };
            assert!(model.append(&journal, &fact, true).is_some());
            model.sync(&journal, &[]);
            assert_eq!(model.confirmed, model.appended.len() as u64, "it recovers");
            model.recover(&disk.crash(k), 2);
        }
    }
}

#[test]
fn concurrent_syncs_share_flushes() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    disk.set_sync_ms(1);
    let before = disk.syncs();
    let (threads, each) = (8, 40);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..each {
                    let record = bytes_of(thread * 1000 + number, 100);
                    let at = journal.append(&record).unwrap().position;
                    assert!(journal.sync(at, &[]).unwrap().position() >= at);
                }
            });
        }
    });
    let syncs = disk.syncs() - before;
    assert!(syncs < threads * each / 2, "{syncs} flushes for {} syncs", threads * each);
    let (_, replay) = open(&disk.crash(1), 2, 0).unwrap();
    assert_eq!(replay.count() as u64, threads * each);
}

#[test]
fn many_writers_stage_into_one_segment_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::from(KEY);
    let (journal, _) = Journal::open(dir.path(), &key, &Env::real(), Position(0)).unwrap();
    let data = bytes_of(5, 200_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, data) = (&journal, &data);
            scope.spawn(move || {
                for _ in 0..30 {
                    let places = journal.stage(thread % 2, data).unwrap();
                    let at = journal.append_naming(b"four blocks", &places).unwrap();
                    assert_eq!(places.len(), 4);
                    let _ = journal.sync(at.position, &[places[0].segment]).unwrap();
                    let read = |place: &Place| journal.read(*place, 0..place.len).unwrap();
                    let back: Vec<u8> = places.iter().flat_map(read).collect();
                    assert!(&back == data);
                }
            });
        }
    });
    drop(journal);
    let (_, replay) = Journal::open(dir.path(), &key, &Env::real(), Position(0)).unwrap();
    assert_eq!(replay.count(), 120);
}

#[test]
fn a_small_sync_syncs_no_stream_that_no_record_names() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let places = journal.stage(1, &bytes_of(1, 50_000)).unwrap();
    let at = journal.append(b"small").unwrap().position;
    let before = disk.syncs();
    let _ = journal.sync(at, &[]).unwrap();
    assert_eq!(disk.syncs() - before, 1);
    journal.flush(&[places[0].segment]).unwrap();
    let at = journal.append_naming(b"big", &places).unwrap().position;
    let before = disk.syncs();
    let _ = journal.sync(at, &[places[0].segment]).unwrap();
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn a_sync_confirms_no_later_record_whose_data_is_not_durable() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let small = journal.append(b"small").unwrap().position;
    let places = journal.stage(1, &bytes_of(1, 50_000)).unwrap();
    let big = journal.append_naming(b"big", &places).unwrap().position;
    journal.append(b"behind").unwrap();
    let before = disk.syncs();
    assert_eq!(journal.sync(small, &[]).unwrap().position(), small);
    assert_eq!((disk.syncs() - before, journal.confirmed()), (1, small));
    for seed in 0..8 {
        let (journal, replay) = open(&disk.crash(seed), 2, 0).unwrap();
        let count = replay.count();
        assert!(count == 1 || journal.read(places[0], 0..1).is_ok());
    }
    assert_eq!(journal.sync(big, &[]).unwrap().position(), journal.last());
}

#[test]
fn long_streams_are_made_durable_behind_the_writer() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    for number in 0..40 {
        journal.stage(1, &bytes_of(number, 60_000)).unwrap();
    }
    let (stages, files) = (disk.syncs(), disk.lengths().len() as u64);
    assert!(stages + 12 >= files && files >= 20, "{stages} syncs of {files} files");
}

#[test]
fn reads_stay_within_their_block_and_need_the_right_place() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let data = bytes_of(3, 100_000);
    let places = journal.stage(1, &data).unwrap();
    assert_eq!(places.iter().map(|place| place.len).collect::<Vec<_>>(), [65_536, 34_464]);
    assert_eq!(journal.read(places[0], 100..4196).unwrap(), data[100..4196]);
    assert_eq!(journal.read(places[1], 34_460..34_464).unwrap(), data[99_996..]);
    let outside = journal.read(places[1], 34_460..34_465).unwrap_err();
    assert!(matches!(outside, Error::Posix(Posix::Invalid)));
    for wrong in [
        Place { at: places[0].at + 1, ..places[0] },
        Place { len: 65_535, ..places[0] },
        Place { at: places[1].at, ..places[0] },
        Place { segment: 99, ..places[0] },
        Place { at: 0, ..places[0] },
        Place { at: 1 << 40, ..places[0] },
    ] {
        assert!(journal.read(wrong, 0..1).unwrap_err().is_corrupt(), "{wrong:?}");
    }
    let encoded = minicbor::to_vec(places[1]).unwrap();
    assert_eq!(minicbor::decode::<Place>(&encoded).unwrap(), places[1]);
    assert!(journal.append(&vec![0; BLOCK_BYTES_MAX]).is_ok());
    let big = journal.append(&vec![0; BLOCK_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(big, Error::Posix(Posix::TooBig)));
}

#[test]
fn what_is_live_or_not_applied_or_just_staged_is_not_freed() {
    let disk = FaultDisk::new();
    let (journal, _) = open(&disk, 1, 0).unwrap();
    let places = journal.stage(1, &bytes_of(1, 50_000)).unwrap();
    let at = journal.append_naming(b"it", &places).unwrap().position;
    let _ = journal.sync(at, &[]).unwrap();
    let none = |_| false;
    assert_eq!(journal.free(at, none).unwrap(), 0, "just staged");
    assert_eq!(journal.free(Position(0), none).unwrap(), 0, "not applied");
    assert_eq!(journal.free(at, |number| number == places[0].segment).unwrap(), 0, "live");
    let used = journal.bytes_used();
    assert_eq!(journal.free(at, none).unwrap(), 1);
    assert!(journal.bytes_used() <= used - 50_000);
    assert!(journal.read(places[0], 0..1).unwrap_err().is_corrupt());
    assert!(!disk.lengths().iter().any(|(name, _)| name.starts_with("data")));
}

#[test]
fn another_key_opens_nothing() {
    let (disk, ..) = small_journal(&small());
    let disk = Arc::new(disk);
    let other = Key::from([8; 32]);
    let opened = Journal::open_on(disk, &other, &env(1), Position(0), small());
    assert!(opened.unwrap_err().is_corrupt());
}

/// Set for the process that `r01_a_killed_process_…` kills.
const CHILD: &str = "RDRIVEFS_TEST_JOURNAL";

#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let key = Key::from(KEY);
    let (journal, replay) =
        Journal::open(Path::new(&dir), &key, &Env::real(), Position(0)).unwrap();
    drop(replay);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0.. {
                    let data = bytes_of(number, 30_000);
                    let staged = journal.stage(thread, &data).unwrap();
                    let inside = vec![];
                    let record = minicbor::to_vec(Fact { number, staged, inside }).unwrap();
                    let fact: Fact = minicbor::decode(&record).unwrap();
                    let at = journal.append_naming(&record, &fact.staged).unwrap().position;
                    let confirmed = journal.sync(at, &[]).unwrap();
                    // One write of one line: the parent must not see half a number as a promise.
                    println!("confirmed {}", confirmed.position().0);
                }
            });
        }
    });
}

#[test]
fn r01_a_killed_process_loses_nothing_it_confirmed() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let mut lines_before_kill = 3;
    let mut best = 0;
    for _ in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::child_that_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(position) = line.split("confirmed ").nth(1) else { continue };
            best = best.max(position.trim().parse::<u64>().unwrap());
            seen += 1;
            if seen == lines_before_kill {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= lines_before_kill);
        lines_before_kill += 17;
        let key = Key::from(KEY);
        let (journal, replay) = Journal::open(dir.path(), &key, &Env::real(), Position(0)).unwrap();
        let records = replayed(replay);
        assert!(records.len() as u64 >= best, "{} survive, {best} confirmed", records.len());
        for record in records {
            let fact: Fact = minicbor::decode(&record.record).unwrap();
            let read = |place: &Place| journal.read(*place, 0..place.len).unwrap();
            let data: Vec<u8> = fact.staged.iter().flat_map(read).collect();
            assert!(data == bytes_of(fact.number, 30_000));
        }
    }
}
