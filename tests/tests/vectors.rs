//! Every vector comes out as its file says, and there are enough of them.

use rdrivefs_tests::vectors::{self, Case, FORMATS};

fn check(format: &str) {
    let wrong = vectors::check_folder(&vectors::folder().join(format), vectors::format_of(format));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! formats {
    ($($name:ident),*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

formats!(phrase, keybag, wrap, entry, record, commit, layer, member, pairing, slice, cut);

#[test]
fn every_folder_has_a_reader_and_every_reader_a_test() {
    assert_eq!(vectors::strays(), Vec::<String>::new());
    for format in FORMATS {
        assert!(TESTED.contains(&format.name), "{} is never tested", format.name);
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
    let (valid_min, refused_min) = (10, 25);
    let wrong = || vectors::check_folder(dir.path(), vectors::format_of("phrase"));
    assert!(wrong().is_empty());
    let text = std::fs::read_to_string(&valid[0]).unwrap();
    for (from, to) in [("drive=", "drive=0"), ("input: ", "idle: 00\ninput: "), ("# ", "")] {
        std::fs::write(&valid[0], text.replacen(from, to, 1)).unwrap();
        assert_eq!(wrong().len(), if valid.len() == valid_min { 2 } else { 1 }, "{from}");
    }
    std::fs::write(&valid[0], &text).unwrap();
    valid[valid_min - 1..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(wrong().concat().contains(&format!("{} cases read", valid_min - 1)));
    assert_eq!(vectors::format_of("phrase").refused_min, refused_min);
    assert!(Case::parse("# only a comment").is_err());
}
