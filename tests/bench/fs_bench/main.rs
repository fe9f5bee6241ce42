//! What a drive costs as a filesystem, measured on mounted directories by hand:
//!
//! ```text
//! cargo build --release --workspace --bins && cargo build --release -p rdrivefs --example null
//! cargo run --release -p rdrivefs-tests --example fs_bench -- COMMAND [OPTION…]
//! ```
//!
//! Commands and options are in `tests/bench/README.md`. `--quick` shrinks a command to seconds: it
//! shows that the bench works, and its numbers mean nothing. The tests below run every command so.

mod growth;
mod rows;
mod latency;
mod stream;
mod figures;
mod plot;
mod tree;
mod ground;
mod measure;
mod words;

use std::process::ExitCode;

use serde_json::Value;

use crate::words::Words;

/// A command: it measures, says what it saw, and returns the document.
type Run = fn(&Words) -> Result<Value, String>;

const USAGE: &str = "\
usage: fs_bench rows    [--dir NAME=PATH]… [--reference NAME] [--with-node] [--mib N] [--files N]
       fs_bench growth  [--sizes N,N,…] [--probes N] [--out DIR]
       fs_bench stream  [--gib N]
       fs_bench latency [--gib N]
       fs_bench figures [big] [small] [overwrite] [insert] [mount]
all:   [--repetitions N] [--json FILE] [--quick]";

fn main() -> ExitCode {
    match command(std::env::args().skip(1)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; returns what it measured.
fn command(mut args: impl Iterator<Item = String>) -> Result<Value, String> {
    let command = args.next().ok_or("a command is needed")?;
    let (run, valued, bare): (Run, &[&str], &[&str]) = match command.as_str() {
        "rows" => (rows::rows, &["dir", "reference", "mib", "files"], &["with-node"]),
        "growth" => (growth::growth, &["sizes", "probes", "out"], &[]),
        "stream" => (stream::stream, &["gib"], &[]),
        "latency" => (latency::latency, &["gib"], &[]),
        "figures" => (figures::figures, &[], &[]),
        other => return Err(format!("{other} is no command")),
    };
    let valued = [valued, &["repetitions", "json"]].concat();
    let words = Words::parse(args, &valued, &[bare, &["quick"]].concat())?;
    let document = run(&words)?;
    if let Some(path) = words.path("json") {
        let text = serde_json::to_string_pretty(&document).expect("it is a document");
        std::fs::write(&path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quickly(args: &str) -> Value {
        let args = args.split_whitespace().map(str::to_owned);
        command(args.chain(["--quick".to_owned()])).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Numbers come back from text in their last digit changed; names do not.
    fn row_names(document: &Value) -> Vec<String> {
        let rows = document["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{document:#}");
        rows.iter().map(|row| row["row"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn rows_are_measured_on_every_ground() {
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join("rows.json");
        let (here, json_path) = (dir.path().display(), json.display());
        let rows = quickly(&format!("rows --dir plain={here} --json {json_path} --with-node"));
        let all = rows["rows"].as_array().unwrap();
        assert_eq!(all.len(), 16, "{rows:#}");
        for row in all {
            for ground in ["rdrivefs", "plain"] {
                let seen = row["grounds"][ground]["median"].as_f64();
                assert!(seen.is_some_and(|seen| seen > 0.0), "{ground}: {row:#}");
            }
        }
        assert!(rows["peak_mib"]["rdrivefs"].as_f64().unwrap() > 1.0);
        let written: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(row_names(&written), row_names(&rows));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn growth_writes_numbers_a_table_and_a_plot() {
        let dir = tempfile::tempdir().unwrap();
        let grown = quickly(&format!("growth --out {}", dir.path().display()));
        assert_eq!(grown["sizes"].as_array().unwrap().len(), 2);
        for row in grown["rows"].as_array().unwrap() {
            assert_eq!(row["relative"][0], 1.0, "{row:#}");
            assert!(row["us_per_file"][1].as_f64().unwrap() > 0.0, "{row:#}");
        }
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("growth.md").contains("| files in the drive | 250 | 500 |"));
        assert!(
            read("growth.svg").starts_with("<svg ") && read("growth.svg").ends_with("</svg>\n")
        );
        let written: Value = serde_json::from_str(&read("growth.json")).unwrap();
        assert_eq!(row_names(&written), row_names(&grown));
    }

    #[test]
    fn streams_and_latencies_are_measured() {
        let streamed = quickly("stream");
        assert!(streamed["daemon_peak_mib"].as_f64().unwrap() > 1.0, "{streamed:#}");
        assert_eq!(streamed["looks_written_daemon_node_mib"].as_array().unwrap().len(), 2);
        let waited = quickly("latency");
        assert!(waited["ratio"].as_f64().unwrap() > 0.0, "{waited:#}");
    }

    #[test]
    fn wrong_words_are_refused() {
        for line in
            ["", "grow", "rows --fast", "growth --sizes 9,3", "rows --dir here", "figures x"]
        {
            let args = line.split_whitespace().map(str::to_owned);
            assert!(command(args).is_err(), "{line:?} was taken");
        }
    }
}
