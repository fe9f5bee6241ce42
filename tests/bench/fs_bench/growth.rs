//! `growth`: what a file costs when there are many others.
//!
//! One drive with a node grows from size to size. At each, once all is pushed, the same work is
//! done several times: some whole folders spread over all that is there are listed, looked at and
//! read, and files in folders of their own are made, added to, saved, renamed and removed. What
//! is told is the time per file, as a multiple of that at the first size; the goal is a bound on
//! the multiple. Numbers, a table and a plot are written side by side.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ground::{Ground, say_how_cold};
use crate::measure::{machine, median, patiently, timed};
use crate::plot::{Line, Plot};
use crate::tree::{PER_FOLDER, Tree};
use crate::words::Words;

/// What a file may cost among many, as a multiple of what it costs among few.
const RATIO_MAX: f64 = 1.5;
/// Folders that are looked at, of those that fill the drive.
const LOOKED_AT: usize = 20;

/// What was seen of one row: for each size, microseconds per file at each repetition.
struct Row {
    name: &'static str,
    us: Vec<Vec<f64>>,
}

/// What was seen beside the rows at one size.
struct Beside {
    files: usize,
    fill_us: f64,
    mount_ms: f64,
    peak_mib: f64,
}

/// How the work is done.
struct Plan {
    probes: usize,
    repetitions: usize,
}

/// Measures, writes three files, and returns the document.
pub(crate) fn growth(words: &Words) -> Result<Value, String> {
    let quick = words.has("quick");
    let count = |full: usize, quickly: usize| if quick { quickly } else { full };
    let full = [10_000, 100_000, 1_000_000];
    let quickly = [PER_FOLDER, 2 * PER_FOLDER];
    let sizes = words.numbers("sizes", if quick { &quickly } else { &full })?;
    if sizes.is_empty() || !sizes.is_sorted_by(|a, b| a < b) {
        return Err("--sizes takes growing numbers".to_owned());
    }
    let plan = Plan {
        probes: words.or("probes", count(2_000, PER_FOLDER))?,
        repetitions: words.or("repetitions", count(5, 1))?,
    };
    let out = words.path("out").unwrap_or_else(|| PathBuf::from("."));
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let (mut rows, mut beside) = (Vec::new(), Vec::new());
    say_how_cold();
    let mut ground = Ground::drive(true);
    let mut from = 0;
    for &size in &sizes {
        eprintln!("growing to {size} files");
        beside.push(grow(&mut ground, from, size));
        for repetition in 0..plan.repetitions {
            eprintln!("  repetition {} of {}", repetition + 1, plan.repetitions);
            let whole = Tree::new(&ground.dir.join("fill"), size);
            probe(&mut ground, &whole, plan.probes, repetition == 0, &mut rows);
        }
        let last = beside.last_mut().expect("it was pushed");
        last.peak_mib = ground.peak_mib().expect("it is a drive");
        from = size;
    }
    let document = document(&rows, &beside, &plan);
    let table = table(&rows, &beside);
    let plot = plot(&rows, &beside).svg();
    println!("{table}");
    let text = serde_json::to_string_pretty(&document).expect("it is a document");
    for (name, text) in [("growth.json", text + "\n"), ("growth.md", table), ("growth.svg", plot)] {
        let path = out.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(document)
}

/// Fills the drive up to `to` files, and mounts it again.
fn grow(ground: &mut Ground, from: usize, to: usize) -> Beside {
    let part = Tree::between(&ground.dir.join("fill"), from, to);
    let seconds = part.create();
    let drive = ground.as_drive().expect("it is a drive");
    patiently(&drive.device, &["sync"]);
    // The peak of the daemon that did this is kept by what cools.
    ground.cool();
    let drive = ground.as_drive().expect("it is a drive");
    patiently(&drive.device, &["unmount", drive.device.dir_str()]);
    let ((), mount_s) = timed(|| drive.device.mount());
    let fill_us = seconds * 1e6 / part.files().max(1) as f64;
    Beside { files: to, fill_us, mount_ms: mount_s * 1e3, peak_mib: 0.0 }
}

/// One repetition at one size.
fn probe(ground: &mut Ground, whole: &Tree, probes: usize, first: bool, rows: &mut Vec<Row>) {
    let drive = ground.as_drive().expect("it is a drive");
    patiently(&drive.device, &["sync"]);
    let some = whole.some(LOOKED_AT);
    let mut seen = |name, tree: &Tree, seconds: f64| {
        let us = seconds * 1e6 / tree.files() as f64;
        let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            rows.push(Row { name, us: Vec::new() });
            rows.len() - 1
        });
        if first {
            rows[at].us.push(Vec::new());
        }
        rows[at].us.last_mut().expect("a first came before").push(us);
    };
    ground.cool();
    seen("list, cold", &some, some.list());
    ground.cool();
    seen("stat, cold", &some, some.stat());
    seen("stat, warm", &some, some.stat());
    ground.cool();
    seen("read, cold", &some, some.read());
    seen("read, warm", &some, some.read());
    let own = Tree::new(&ground.dir.join("probe"), probes);
    seen("create", &own, own.create());
    seen("append", &own, own.append());
    let saved = own.some(1);
    seen("save", &saved, saved.save());
    seen("rename", &own, own.rename());
    let own = own.renamed();
    seen("delete", &own, own.delete());
}

impl Row {
    /// Microseconds per file at each size.
    fn medians(&self) -> Vec<f64> {
        self.us.iter().map(|all| median(all)).collect()
    }

    /// The same as multiples of the first.
    fn relative(&self) -> Vec<f64> {
        let medians = self.medians();
        medians.iter().map(|us| us / medians[0]).collect()
    }

    fn within(&self) -> bool {
        self.relative().iter().all(|ratio| *ratio <= RATIO_MAX)
    }
}

fn document(rows: &[Row], sizes: &[Beside], plan: &Plan) -> Value {
    let row = |row: &Row| {
        json!({
            "row": row.name,
            "us_per_file": row.medians(),
            "relative": row.relative(),
            "within": row.within(),
            "all_us_per_file": row.us,
        })
    };
    let size = |one: &Beside| {
        json!({
            "files": one.files,
            "fill_us_per_file": one.fill_us,
            "mount_ms": one.mount_ms,
            "daemon_peak_mib": one.peak_mib,
        })
    };
    json!({
        "machine": machine(),
        "repetitions": plan.repetitions,
        "probe_files": plan.probes,
        "bound": RATIO_MAX,
        "within": rows.iter().all(Row::within),
        "sizes": sizes.iter().map(size).collect::<Vec<_>>(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// `1000000` as `1,000,000`.
fn spaced(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The table for people: microseconds per file, with the multiple of the first size.
fn table(rows: &[Row], beside: &[Beside]) -> String {
    let mut out = format!(
        "# What a file costs among many\n\n\
        Microseconds per file, and as a multiple of the first column; at most {RATIO_MAX} is the \
        goal.\nMade by `fs_bench growth`; the numbers behind it are in `growth.json`.\n\n\
        | files in the drive |"
    );
    beside.iter().for_each(|one| _ = write!(out, " {} |", spaced(one.files)));
    let rule = format!("\n|---|{}\n", "---:|".repeat(beside.len()));
    out.push_str(&rule);
    for row in rows {
        let mark = if row.within() { "" } else { " **(over)**" };
        _ = write!(out, "| {}{mark} |", row.name);
        for (us, ratio) in row.medians().iter().zip(row.relative()) {
            _ = write!(out, " {us:.1} ({ratio:.2}) |");
        }
        out.push('\n');
    }
    let mut line = |name: &str, of: &dyn Fn(&Beside) -> f64| {
        _ = write!(out, "| {name} |");
        beside.iter().for_each(|one| _ = write!(out, " {:.0} |", of(one)));
        out.push('\n');
    };
    line("*mount, ms*", &|one| one.mount_ms);
    line("*filled, us per file*", &|one| one.fill_us);
    line("*peak memory so far, MiB*", &|one| one.peak_mib);
    out
}

fn plot(rows: &[Row], beside: &[Beside]) -> Plot {
    let line = |row: &Row| Line { name: row.name.to_owned(), values: row.relative() };
    Plot {
        title: "Time per file, as a multiple of that in the smallest drive".to_owned(),
        x_title: "files in the drive".to_owned(),
        y_title: "multiple".to_owned(),
        x: beside.iter().map(|one| (one.files as f64, spaced(one.files))).collect(),
        lines: rows.iter().map(line).collect(),
        bound: RATIO_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(files: usize) -> Beside {
        Beside { files, fill_us: 1.0, mount_ms: 2.0, peak_mib: 3.0 }
    }

    #[test]
    fn what_costs_too_much_among_many_is_marked() {
        let row = |name, us: [f64; 2]| Row { name, us: us.map(|us| vec![us; 3]).to_vec() };
        let rows = [row("flat", [2.0, 2.2]), row("steep", [2.0, 3.2])];
        let sizes = [beside(10_000), beside(1_000_000)];
        let text = table(&rows, &sizes);
        assert!(text.contains("| flat | 2.0 (1.00) | 2.2 (1.10) |"), "{text}");
        assert!(text.contains("| steep **(over)** | 2.0 (1.00) | 3.2 (1.60) |"), "{text}");
        assert!(text.contains("| 10,000 | 1,000,000 |"), "{text}");
        let document = document(&rows, &sizes, &Plan { probes: 1, repetitions: 3 });
        assert_eq!(document["within"], false);
        assert_eq!(document["rows"][0]["within"], true);
    }
}
