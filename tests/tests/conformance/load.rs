//! dbench, which replays what clients of a file server did, and fs_mark, which makes many small
//! files and syncs them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::bed::Bed;
use crate::child::run;
use crate::tools::system;
use crate::verdict::Verdict;

/// Where the package has the clients' doings.
const CLIENTS: &str = "/usr/share/dbench/client.txt";

const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn dbench_goes_through() {
    let bed = Bed::new();
    let mut verdict = dbench(&bed, "dbench", &[2], 5);
    bed.settle(&mut verdict);
    verdict.judge(1);
}

#[test]
#[ignore = "long: two minutes of clients"]
fn dbench_goes_through_with_more_clients() {
    let bed = Bed::new();
    let mut verdict = dbench(&bed, "dbench-long", &[1, 4, 16], 40);
    bed.settle(&mut verdict);
    verdict.judge(3);
}

#[test]
fn fs_mark_goes_through() {
    let bed = Bed::new();
    let mut verdict = fs_mark(&bed, "fs_mark", &[1], 200);
    bed.settle(&mut verdict);
    verdict.judge(1);
}

#[test]
#[ignore = "long: a thousand files in each of four ways to sync"]
fn fs_mark_goes_through_with_every_way_to_sync() {
    let bed = Bed::new();
    let mut verdict = fs_mark(&bed, "fs_mark-long", &[0, 1, 3, 5], 1_000);
    bed.settle(&mut verdict);
    verdict.judge(4);
}

fn dbench(bed: &Bed, suite: &'static str, clients: &[u32], seconds: u32) -> Verdict {
    let (program, folder) = (system("dbench"), bed.folder("dbench"));
    let mut verdict = Verdict::new(suite);
    for clients in clients {
        let mut command = Command::new(&program);
        command.arg("-D").arg(&folder).args(["-c", CLIENTS, "-t", &seconds.to_string()]);
        let ended = run(command.arg(clients.to_string()), LIMIT);
        let throughput = after(&ended.text, "Throughput ");
        let failed = ["failed for handle", "ERROR", "failed with"];
        let good = throughput > 0.0 && !failed.iter().any(|word| ended.text.contains(word));
        verdict.program(&format!("clients-{clients}"), &ended, good, &failed);
        println!("{throughput} MB/s with {clients} clients");
    }
    verdict
}

fn fs_mark(bed: &Bed, suite: &'static str, ways: &[u32], files: u32) -> Verdict {
    let (program, log) = (system("fs_mark"), bed.aside("suite").join("log"));
    let mut verdict = Verdict::new(suite);
    for way in ways {
        let folder = bed.short_folder(&format!("m{way}"));
        let mut command = Command::new(&program);
        command.arg("-d").arg(&folder).arg("-l").arg(&log).args(["-s", "5000", "-t", "2", "-k"]);
        let ended = run(command.args(["-n", &files.to_string(), "-S", &way.to_string()]), LIMIT);
        let made = fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        let good = made == 2 * files as usize;
        verdict.program(&format!("sync-{way}"), &ended, good, &["fs_mark:", "Error"]);
    }
    verdict
}

/// The number that follows `word`, or zero.
fn after(text: &str, word: &str) -> f64 {
    let number = text.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
