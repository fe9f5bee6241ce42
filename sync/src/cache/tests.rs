use rdrivefs_remote::proof::Verified;

use super::*;

const LEN: u64 = 10 * RANGE_BYTES + 5;

/// Gives the bytes of one layer, whatever is asked for.
struct Whole(Bytes);

impl Source for Whole {
    fn fetch(&self, _: &LayerRef, range: Range<u64>) -> Result<Verified> {
        std::thread::sleep(std::time::Duration::from_micros(100));
        Ok(Verified {
            start: range.start,
            bytes: self.0.slice(range.start as usize..range.end as usize),
        })
    }
}

fn layer(seed: u64) -> (LayerRef, Bytes) {
    let mut bytes = vec![0; LEN as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (LayerRef { id: BlobId::of(&bytes), len: LEN }, bytes.into())
}

fn keep(cache: &Cache, seed: u64) -> (LayerRef, Bytes) {
    let (layer, bytes) = layer(seed);
    cache.keep(layer.id, &bytes, &Outboard::of(&bytes).1).unwrap();
    (layer, bytes)
}

/// What the disk says, maps aside.
fn disk_bytes(dir: &Path) -> u64 {
    let files = files(dir).unwrap().into_iter();
    let counted = files.filter(|path| path.extension().is_some_and(|kind| kind != "map"));
    counted.map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

#[test]
fn the_bytes_in_use_are_those_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (first, _) = keep(&cache, 1);
    let (second, bytes) = keep(&cache, 2);
    let check = |cache: &Cache, why: &str| {
        assert_eq!(cache.bytes_used(), disk_bytes(dir.path()), "{why}");
    };
    check(&cache, "kept");
    assert!(cache.evict(&second, &[RANGE_BYTES..4 * RANGE_BYTES]).unwrap() > 0);
    check(&cache, "a part dropped");
    cache.read(&second, 0..3 * RANGE_BYTES, &Whole(bytes)).unwrap();
    check(&cache, "a part fetched");
    cache.flush().unwrap();
    check(&Cache::open(dir.path()).unwrap(), "opened again");
    cache.evict(&first, &[0..LEN]).unwrap();
    cache.evict(&second, &[0..LEN]).unwrap();
    assert_eq!((cache.bytes_used(), cache.layers().unwrap().len()), (0, 0));
}

#[test]
fn layers_know_their_last_use_until_they_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((first, bytes), (second, _)) = (keep(&cache, 1), keep(&cache, 2));
    let used = |cache: &Cache, layer: &LayerRef| {
        let layers = cache.layers().unwrap();
        layers.into_iter().find(|(id, _)| *id == layer.id).and_then(|(_, used)| used)
    };
    assert!(used(&cache, &first) < used(&cache, &second));
    cache.read(&first, 5..6, &Whole(bytes)).unwrap();
    assert!(used(&cache, &first) > used(&cache, &second));
    assert_eq!(used(&Cache::open(dir.path()).unwrap(), &first), None);
    cache.evict(&first, &[0..LEN]).unwrap();
    keep(&cache, 1);
    assert!(used(&cache, &first) > used(&cache, &second));
}

#[test]
fn a_part_without_a_map_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (layer, bytes) = layer(1);
    cache.read(&layer, 0..10, &Whole(bytes)).unwrap();
    assert!(cache.bytes_used() > 0);
    // The process ends here, before the map was written.
    let cache = Cache::open(dir.path()).unwrap();
    assert_eq!((cache.bytes_used(), disk_bytes(dir.path())), (0, 0));
    assert_eq!(cache.present(&layer).unwrap(), 0);
}

#[test]
fn what_is_dropped_under_a_reader_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (layer, bytes) = layer(1);
    let read = |at: u64| {
        let read = cache.read(&layer, at..at + 100, &Whole(bytes.clone()));
        assert!(read.unwrap() == bytes[at as usize..at as usize + 100]);
    };
    let read = &read;
    for round in 0..300 {
        std::thread::scope(|scope| {
            for n in 0..3 {
                scope.spawn(move || read((round * 997 + n * 3 * RANGE_BYTES) % (LEN - 100)));
            }
            scope.spawn(|| cache.evict(&layer, &[0..LEN]).unwrap());
        });
        cache.evict(&layer, &[0..LEN]).unwrap();
        let left = (cache.bytes_used(), disk_bytes(dir.path()));
        assert_eq!(left, (0, 0), "round {round}: nobody knows of these bytes");
    }
}

/// A remote that is silent for a while, and then found to be away.
struct Silent(AtomicU64);

impl Source for Silent {
    fn fetch(&self, _: &LayerRef, _: Range<u64>) -> Result<Verified> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(500));
        Err(rdrivefs_remote::Error::TimedOut(500).into())
    }
}

#[test]
fn who_waits_for_a_silent_remote_shares_its_error_and_the_next_one_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (layer, bytes) = layer(1);
    let silent = Silent(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (cache, silent) = (&cache, &silent);
            scope.spawn(move || {
                let range = (n % 8) * RANGE_BYTES..(n % 8 + 1) * RANGE_BYTES;
                let failed = cache.read(&layer, range, silent).unwrap_err();
                assert!(matches!(failed, Error::Remote(rdrivefs_remote::Error::TimedOut(500))));
            });
        }
    });
    let asked = silent.0.load(Ordering::Relaxed);
    assert!(asked <= 4, "{asked} of 16 asked, one after the other");
    let read = cache.read(&layer, 0..100, &Whole(bytes.clone())).unwrap();
    assert_eq!(read, bytes.slice(0..100));
}
