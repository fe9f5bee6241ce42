//! Load on a mounted drive, with an account of what may be found after a crash.
//!
//! Each writer has a folder of its own and makes, overwrites, cuts, renames, unlinks and syncs few
//! files in it. Every file is closed after every step, so the kernel has handed over each step
//! before the next begins. After a crash the folder must look as it did after some step, and not
//! before the last that was promised: what is lost is lost from the end. Only within one write may
//! it lie in between, since the kernel hands over a long one in parts.
//!
//! A writer ends with its first error: whether that step was done is open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Rng;

/// Names in a folder: few, so that they are replaced and renamed over all the time.
const NAMES: u64 = 6;

/// Writers, their folders and what they were promised.
pub struct Work {
    writers: Vec<Mutex<Writer>>,
    /// Nobody begins another step.
    stop: AtomicBool,
    /// What is promised from now on may come from a disk that is cut off already.
    cut: AtomicBool,
}

/// What a folder holds.
type Files = BTreeMap<u64, Arc<Vec<u8>>>;

struct Writer {
    folder: PathBuf,
    rng: Rng,
    /// How the folder looked after each step from the last promised one on, and what the step was.
    states: Vec<(Files, String)>,
    /// The number of the first of them.
    promised: usize,
    /// The last step that made anything of the file of each name.
    touched: BTreeMap<u64, usize>,
    /// The last step that changed a name.
    named: usize,
    /// The last step that the daemon itself answered: what came before it was handed over.
    answered: usize,
    /// Every write is synced before its file is closed, since nobody hears what a close says.
    careful: bool,
    error: Option<io::Error>,
}

#[derive(Debug)]
enum Step {
    Create(u64),
    Write { name: u64, at: u64, bytes: Vec<u8> },
    Truncate { name: u64, size: u64 },
    Rename { from: u64, to: u64 },
    Unlink(u64),
    Sync { name: u64, data: bool },
    SyncFolder,
}

impl Work {
    /// Work for so many writers, in new folders below `dir`.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn new(dir: &Path, writers: usize, seed: u64) -> io::Result<Self> {
        let writer = |n: usize| Writer::new(dir.join(format!("w{n}")), Rng(seed << 8 | n as u64));
        let writers = (0..writers).map(|n| writer(n).map(Mutex::new)).collect::<io::Result<_>>()?;
        Ok(Self { writers, stop: AtomicBool::new(false), cut: AtomicBool::new(false) })
    }

    /// The same, with a sync behind every write: for where calls fail and the daemon lives on.
    pub fn careful(self) -> Self {
        self.each(|writer| writer.careful = true);
        self
    }

    /// Lets everybody work, at most so many steps each, while `meanwhile` runs; then they stop.
    ///
    /// # Panics
    /// When a writer or `meanwhile` does.
    pub fn run<T>(&self, steps: usize, meanwhile: impl FnOnce() -> T) -> T {
        self.stop.store(false, Ordering::Relaxed);
        self.cut.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let work = |writer| {
                scope.spawn(move || lock(writer).work(steps, &self.stop, &self.cut));
            };
            self.writers.iter().for_each(work);
            let stop = Stop(&self.stop);
            let done = meanwhile();
            drop(stop);
            done
        })
    }

    /// Lets everybody do so many steps each, or as many as succeed.
    pub fn script(&self, steps: usize) {
        self.stop.store(false, Ordering::Relaxed);
        self.cut.store(false, Ordering::SeqCst);
        self.each(|writer| writer.work(steps, &self.stop, &self.cut));
    }

    /// From now on no promise counts.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// What each folder holds is what its writer may find there; they go on from it.
    ///
    /// # Panics
    /// With the first folder that lost what was promised, or never looked like this.
    pub fn check(&self, when: &str) {
        self.each(|writer| writer.check(when));
    }

    /// As [`Work::check`], and nothing that was handed over may be missing: for a daemon that died
    /// on a machine that lives on.
    ///
    /// # Panics
    /// As [`Work::check`].
    pub fn check_handed_over(&self, when: &str) {
        self.each(|writer| {
            writer.promise(writer.answered);
            writer.check(when);
        });
    }

    /// Steps that were promised so far, over all writers.
    pub fn promised(&self) -> usize {
        self.writers.iter().map(|writer| lock(writer).promised).sum()
    }

    /// The first error a writer met since the last check.
    pub fn error(&self) -> Option<String> {
        self.writers.iter().find_map(|writer| lock(writer).error.as_ref().map(io::Error::to_string))
    }

    fn each(&self, what: impl Fn(&mut Writer)) {
        self.writers.iter().for_each(|writer| what(&mut lock(writer)));
    }
}

/// Stops everybody, also when what ran meanwhile has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    fn new(folder: PathBuf, rng: Rng) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        File::open(&folder)?.sync_all()?;
        let states = vec![(Files::new(), "the beginning".to_owned())];
        let (touched, named) = (BTreeMap::new(), 0);
        let (promised, answered, careful, error) = (0, 0, false, None);
        Ok(Self { folder, rng, states, promised, touched, named, answered, careful, error })
    }

    fn path(&self, name: u64) -> PathBuf {
        self.folder.join(format!("n{name}"))
    }

    /// What a step would make is noted before it is tried.
    fn work(&mut self, steps: usize, stop: &AtomicBool, cut: &AtomicBool) {
        for _ in 0..steps {
            if stop.load(Ordering::Relaxed) || self.error.is_some() {
                return;
            }
            let mut files = self.states.last().expect("there is a beginning").0.clone();
            let step = Step::random(&mut self.rng, &files);
            step.imagine(&mut files);
            self.states.push((files, format!("{step:?}").chars().take(70).collect()));
            let number = self.promised + self.states.len() - 1;
            self.note(&step, number);
            let done = self.carry_out(&step);
            // The kernel takes a write and a close by itself, also from a daemon that just died.
            if done.is_ok() && !matches!(step, Step::Write { .. } | Step::Truncate { .. }) {
                self.answered = number;
            }
            if cut.load(Ordering::SeqCst) {
                return;
            }
            match done {
                Err(error) => self.error = Some(error),
                Ok(Some(promised)) => self.promise(promised),
                Ok(None) => {}
            }
        }
    }

    /// Carries a step out; returns up to which step all is promised, where that is known.
    fn carry_out(&self, step: &Step) -> io::Result<Option<usize>> {
        let write = |name| File::options().write(true).open(self.path(name));
        let end = |file: File, name: &u64| match self.careful {
            true => file.sync_all().map(|()| self.touched.get(name).copied()),
            false => Ok(None),
        };
        match step {
            Step::Create(n) => end(File::create_new(self.path(*n))?, n),
            Step::Write { name, at, bytes } => {
                let file = write(*name)?;
                file.write_all_at(bytes, *at)?;
                end(file, name)
            }
            Step::Truncate { name, size } => {
                let file = write(*name)?;
                file.set_len(*size)?;
                end(file, name)
            }
            Step::Rename { from, to } => {
                fs::rename(self.path(*from), self.path(*to)).map(|()| None)
            }
            Step::Unlink(n) => fs::remove_file(self.path(*n)).map(|()| None),
            Step::Sync { name, data } => {
                let file = write(*name)?;
                if *data {
                    file.sync_data()?
                } else {
                    file.sync_all()?
                }
                Ok(self.touched.get(name).copied())
            }
            Step::SyncFolder => {
                File::open(&self.folder)?.sync_all()?;
                Ok(Some(self.named))
            }
        }
    }

    fn note(&mut self, step: &Step, number: usize) {
        match step {
            Step::Create(n) => {
                self.touched.insert(*n, number);
                self.named = number;
            }
            Step::Write { name, .. } | Step::Truncate { name, .. } => {
                self.touched.insert(*name, number);
            }
            Step::Rename { from, to } => {
                self.touched.remove(from);
                self.touched.insert(*to, number);
                self.named = number;
            }
            Step::Unlink(n) => {
                self.touched.remove(n);
                self.named = number;
            }
            Step::Sync { .. } | Step::SyncFolder => {}
        }
    }

    fn promise(&mut self, step: usize) {
        if step > self.promised {
            self.states.drain(..step - self.promised);
            self.promised = step;
        }
    }

    fn check(&mut self, when: &str) {
        let found = self.look();
        let met = self.states.iter().any(|(files, _)| *files == found)
            || self.states.windows(2).any(|two| between(&two[0].0, &two[1].0, &found));
        if !met {
            let (first, last) = (&self.states[0].0, &self.states[self.states.len() - 1].0);
            let steps: Vec<_> = self.states.iter().map(|(_, step)| step).collect();
            panic!(
                "{when}: {} never looked like this since step {}:\n found    {}\n promised {}\n \
                 newest   {}\n steps {steps:#?}\n error {:?}",
                self.folder.display(),
                self.promised,
                sketch(&found),
                sketch(first),
                sketch(last),
                self.error
            );
        }
        self.promised += self.states.len() - 1;
        self.named = self.promised;
        self.answered = self.promised;
        self.touched = found.keys().map(|name| (*name, self.promised)).collect();
        self.states = vec![(found, "found".to_owned())];
        self.error = None;
    }

    fn look(&self) -> Files {
        let entries = fs::read_dir(&self.folder).expect("the folder is there");
        let file = |entry: io::Result<fs::DirEntry>| {
            let path = entry.expect("it can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are text");
            let number = name[1..].parse().unwrap_or_else(|_| panic!("a file {name}"));
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (number, Arc::new(bytes))
        };
        entries.map(file).collect()
    }
}

impl Step {
    fn random(rng: &mut Rng, files: &Files) -> Self {
        let (n, other) = (rng.below(NAMES), rng.below(NAMES));
        let len = rng.pick(&[10, 700, 5_000, 90_000, 300_000]);
        match rng.below(14) {
            _ if !files.contains_key(&n) => Self::Create(n),
            0..=4 => {
                let at = rng.pick(&[0, 0, 300, 4_096, 50_000]);
                Self::Write { name: n, at, bytes: noise(rng, len) }
            }
            5 | 6 => Self::Write { name: n, at: files[&n].len() as u64, bytes: noise(rng, len) },
            7 => Self::Truncate { name: n, size: rng.below(len) },
            8 | 9 if n != other => Self::Rename { from: n, to: other },
            10 => Self::Unlink(n),
            11 => Self::SyncFolder,
            _ => Self::Sync { name: n, data: rng.below(2) == 0 },
        }
    }

    /// What it makes of a folder.
    fn imagine(&self, files: &mut Files) {
        match self {
            Self::Create(n) => drop(files.insert(*n, Arc::default())),
            Self::Write { name, at, bytes } => {
                let file = Arc::make_mut(files.get_mut(name).expect("it is there"));
                let (at, end) = (*at as usize, *at as usize + bytes.len());
                file.resize(file.len().max(end), 0);
                file[at..end].copy_from_slice(bytes);
            }
            Self::Truncate { name, size } => {
                let file = Arc::make_mut(files.get_mut(name).expect("it is there"));
                file.resize(*size as usize, 0);
            }
            Self::Rename { from, to } => {
                let file = files.remove(from).expect("it is there");
                files.insert(*to, file);
            }
            Self::Unlink(n) => drop(files.remove(n)),
            Self::Sync { .. } | Self::SyncFolder => {}
        }
    }
}

/// Bytes that are no zeros and not twice the same.
fn noise(rng: &mut Rng, len_max: u64) -> Vec<u8> {
    let mut bytes = vec![0; 1 + rng.below(len_max) as usize];
    let seed = rng.below(u64::MAX).to_le_bytes();
    blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut bytes);
    bytes
}

/// Whether a folder is on its way from one state to the next: the same but for one file, which has
/// the old or the new byte in each place, and behind the old end nothing yet.
fn between(old: &Files, new: &Files, found: &Files) -> bool {
    let same_names = old.keys().eq(new.keys()) && new.keys().eq(found.keys());
    same_names
        && found.iter().all(|(name, found)| {
            let (old, new) = (&old[name], &new[name]);
            let lengths = old.len().min(new.len())..=old.len().max(new.len());
            let fits = |(at, byte): (usize, &u8)| {
                let (a, b) = (old.get(at), new.get(at));
                a == Some(byte) || b == Some(byte) || (a.is_none() && *byte == 0)
            };
            lengths.contains(&found.len()) && found.iter().enumerate().all(fits)
        })
}

fn sketch(files: &Files) -> String {
    let file = |(name, bytes): (&u64, &Arc<Vec<u8>>)| {
        let hash = blake3::hash(bytes).to_hex();
        format!("n{name}={}:{}", bytes.len(), &hash[..6])
    };
    files.iter().map(file).collect::<Vec<_>>().join(" ")
}

fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a folder that loses nothing all is well, and whatever is taken from it is noticed.
    #[test]
    fn what_was_promised_and_is_gone_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work::new(dir.path(), 2, 7).unwrap().careful();
        work.script(200);
        assert!(work.promised() > 100);
        assert_eq!(work.error(), None);
        work.check("untouched");
        work.script(1);
        work.check("one more");
        let file = fs::read_dir(dir.path().join("w1")).unwrap().next().unwrap().unwrap().path();
        let good = fs::read(&file).unwrap();
        let harms: [&dyn Fn(); 3] = [
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::write(&file, [&good[..], b"x"].concat()).unwrap(),
            &|| fs::write(dir.path().join("w1/n99"), b"").unwrap(),
        ];
        for harm in harms {
            harm();
            let noticed = std::panic::AssertUnwindSafe(|| work.check("harmed"));
            assert!(std::panic::catch_unwind(noticed).is_err());
            fs::write(&file, &good).unwrap();
        }
    }

    #[test]
    fn a_write_may_be_there_in_part() {
        let files = |bytes: &[u8]| Files::from([(1, Arc::new(bytes.to_vec()))]);
        let (old, new) = (files(b"aaaa"), files(b"abbbbb"));
        for good in [&b"aaaa"[..], b"abba", b"aaaab", b"abbbbb", b"abbb\0b", b"abbb\0\0"] {
            assert!(between(&old, &new, &files(good)), "{good:?}");
        }
        for bad in [&b"aaa"[..], b"abbbbbb", b"acaa", b"a\0aa", b"aaaac"] {
            assert!(!between(&old, &new, &files(bad)), "{bad:?}");
        }
        assert!(!between(&old, &new, &Files::new()));
    }
}
