//! Every vector comes out as its file says, and there are enough of them.

use rdrivefs_tests::vectors::{self, Case, FORMATS, REFUSED_MIN, VALID_MIN};

fn check(format: &str) {
    let wrong = vectors::check_folder(&vectors::folder().join(format), vectors::reader(format));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! formats {
    ($($name:ident),*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

formats!(phrase, keybag, wrap, entry, record, commit);

#[test]
fn every_folder_has_a_reader_and_every_reader_a_test() {
    assert_eq!(vectors::strays(), Vec::<String>::new());
    for (format, _) in FORMATS {
        assert!(TESTED.contains(format), "{format} is never tested");
    }
}

/// The checker itself must be able to fail.
#[test]
fn a_missing_a_changed_and_an_idle_line_are_noticed() {
    let (from, dir) = (vectors::folder().join("phrase"), tempfile::tempdir().unwrap());
    let mut valid = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = dir.path().join(path.file_name().unwrap());
        std::fs::copy(&path, &to).unwrap();
        if std::fs::read_to_string(&to).unwrap().contains("\nresult: ") {
            valid.push(to);
        }
    }
    let wrong = || vectors::check_folder(dir.path(), vectors::reader("phrase"));
    assert!(wrong().is_empty());
    let text = std::fs::read_to_string(&valid[0]).unwrap();
    for (from, to) in [("drive=", "drive=0"), ("input: ", "idle: 00\ninput: "), ("# ", "")] {
        std::fs::write(&valid[0], text.replacen(from, to, 1)).unwrap();
        assert_eq!(wrong().len(), if valid.len() == VALID_MIN { 2 } else { 1 }, "{from}");
    }
    std::fs::write(&valid[0], &text).unwrap();
    valid[VALID_MIN - 1..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(wrong().concat().contains(&format!("{} cases read", VALID_MIN - 1)));
    const { assert!(REFUSED_MIN > 2 * VALID_MIN, "most vectors are refusals") };
    assert!(Case::parse("# only a comment").is_err());
}
