//! What each step of the seal pipeline costs, on one core.
use rdrivefs_sync::{chunk::Cutter, seal::Key};

fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}
fn main() {
    let mut data = vec![0; 256 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    let cutter = Cutter::new(&Key::from([1; 32]));
    for _ in 0..3 {
        let t = cpu();
        let (mut at, mut n) = (0, 0);
        while let Some(cut) = cutter.cut(&data[at..], true) {
            at += cut;
            n += 1;
        }
        let t = cpu() - t;
        println!(
            "cut {:.0} MB/s {n} chunks {:.2} ns/B",
            data.len() as f64 / t / 1e6,
            t * 1e9 / data.len() as f64
        );
    }
}
