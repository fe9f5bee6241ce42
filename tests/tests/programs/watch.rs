//! Those who watch a folder hear of what is changed in it here.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use crate::drive::{Drive, missing, sh};
use rdrivefs_tests::peer::Peer;

#[test]
fn a_watcher_hears_of_every_change_made_here() {
    if missing(&["inotifywait"], "watching a folder of a drive") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("watched");
    fs::write(drive.path("from-elsewhere"), b"x").unwrap();
    // Its first words, on standard error, say that the watch stands.
    let watch = format!("exec inotifywait -m --format '%e %f' {} 2>&1", dir.display());
    let mut watcher = Peer::of(Command::new("sh").args(["-c", &watch]));
    while !watcher.hear().contains("Watches established") {}
    fs::write(dir.join("a"), b"1").unwrap();
    let mut file = fs::File::options().append(true).open(dir.join("a")).unwrap();
    file.write_all(b"2").unwrap();
    drop(file);
    sh(&dir, "chmod 600 a && mv a b && ln b c && rm b && mkdir dd && mv ../from-elsewhere here");
    sh(&dir, "setfattr -n user.k -v v c && mv c .. && rmdir dd && touch last");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line| line != "CLOSE_WRITE,CLOSE last") {
        heard.push(watcher.hear());
    }
    let wanted = [
        "CREATE a",
        "MODIFY a",
        "CLOSE_WRITE,CLOSE a",
        "ATTRIB a",
        "MOVED_FROM a",
        "MOVED_TO b",
        "CREATE c",
        "DELETE b",
        "CREATE,ISDIR dd",
        "MOVED_TO here",
        "ATTRIB c",
        "MOVED_FROM c",
        "DELETE,ISDIR dd",
        "CREATE last",
    ];
    let mut rest = heard.iter();
    for want in wanted {
        assert!(rest.any(|line| line == want), "{want:?} is not there, in this order: {heard:?}");
    }
}
