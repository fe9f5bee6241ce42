//! Cases of the recovery phrase.

use rdrivefs_sync::keys::{Phrase, Root};

use crate::{Folder, Inputs, hexed, seeded};

fn words(phrase: &Phrase) -> String {
    phrase.words().collect::<Vec<_>>().join(" ")
}

fn input(text: impl AsRef<[u8]>) -> Inputs {
    vec![("input", hexed(text))]
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_words(folder);
    refused_spellings(folder);
}

fn valid(folder: &Folder) {
    let fixed = [("zeros", 0), ("ones", 0xff), ("sevens", 0x7f), ("eights", 0x80)];
    for (name, byte) in fixed {
        let text = words(&Phrase::from_entropy(&[byte; 32]));
        folder.valid(name, "entropy of one byte repeated", input(text), "root=");
    }
    for name in ["one", "two", "three"] {
        let text = words(&Phrase::generate(&seeded(name)));
        folder.valid(name, "entropy drawn at random", input(text), "drive=");
    }
    let text = words(&Phrase::from_entropy(&[0; 32]));
    let zeros = format!("drive={} ", Root::from(&Phrase::from_entropy(&[0; 32])).drive());
    let upper = text.to_uppercase();
    let mut title = String::new();
    for word in text.split(' ') {
        title.push_str(&word[..1].to_uppercase());
        title.push_str(&word[1..]);
        title.push(' ');
    }
    let same = [
        ("upper_case", "capitals are the same words", upper),
        ("title_case", "so are capitals at the beginning, and a space at the end", title),
        ("lines", "a word a line, as on paper", text.replace(' ', "\r\n")),
        ("tabs", "tabs and many spaces", format!("\t {}", text.replace(' ', " \t  "))),
        ("no_break", "spaces that do not break", text.replace(' ', "\u{a0}")),
    ];
    for (name, comment, text) in same {
        folder.valid(name, comment, input(text), &zeros);
    }
}

fn refused_words(folder: &Folder) {
    let text = words(&Phrase::generate(&seeded("one")));
    let list: Vec<&str> = text.split(' ').collect();
    let with = |at: usize, word: &str| {
        let mut list = list.clone();
        list[at] = word;
        list.join(" ")
    };
    let swapped = |a: usize, b: usize| {
        let mut list = list.clone();
        list.swap(a, b);
        list.join(" ")
    };
    let twelve = ["abandon"; 11].join(" ") + " about";
    let cases = [
        ("empty", "nothing at all", String::new(), "0 words"),
        ("blank", "white space alone", "  \n\t ".to_owned(), "0 words"),
        ("one_word", "one word", "abandon".to_owned(), "1 words"),
        ("twelve", "a good BIP-39 phrase of twelve words", twelve, "12 words"),
        ("first_missing", "the first word is missing", list[1..].join(" "), "23 words"),
        ("last_missing", "the last word is missing", list[..23].join(" "), "23 words"),
        ("one_more", "a word too many", format!("{text} abandon"), "25 words"),
        ("twice", "the whole phrase twice", format!("{text} {text}"), "48 words"),
        ("unknown_first", "a first word that is in no list", with(0, "rdrive"), "word 1, "),
        ("unknown_middle", "a misspelt word in the middle", with(11, "abandom"), "word 12, "),
        ("unknown_last", "a last word that is in no list", with(23, "sealed"), "word 24, "),
        ("french", "a word of the French list", with(4, "abaisser"), "word 5, "),
        ("short", "a word cut to its first four letters", with(6, "aban"), "word 7, "),
        ("joined", "two words grown together", with(6, "abandonability"), "word 7, "),
        ("other_word", "another word of the list", with(8, "zoo"), "checksum"),
        ("other_last", "another last word", with(23, "zoo"), "checksum"),
        ("swapped_first", "the first two words swapped", swapped(0, 1), "checksum"),
        ("swapped_far", "first and last swapped", swapped(0, 23), "checksum"),
        ("all_abandon", "a word 24 times", ["abandon"; 24].join(" "), "checksum"),
        ("all_zoo", "the last word 24 times", ["zoo"; 24].join(" "), "checksum"),
    ];
    for (name, comment, text, why) in cases {
        folder.refused(name, comment, input(text), why);
    }
    let reversed: Vec<&str> = list.iter().rev().copied().collect();
    folder.refused("reversed", "read backwards", input(reversed.join(" ")), "checksum");
}

fn refused_spellings(folder: &Folder) {
    let text = words(&Phrase::from_entropy(&[0; 32]));
    let one = |from: &str, to: &str| text.replacen(from, to, 1);
    let entropy = "0".repeat(64);
    let numbered: Vec<String> =
        text.split(' ').enumerate().map(|(i, word)| format!("{}. {word}", i + 1)).collect();
    let cases = [
        ("commas", "commas between the words", text.replace(' ', ", "), "word 1, "),
        ("hyphens", "hyphens for spaces", text.replace(' ', "-"), "1 words"),
        ("numbered", "a numbered list", numbered.join("\n"), "48 words"),
        ("entropy", "the bytes instead of the words", entropy, "1 words"),
        ("cyrillic", "a letter that only looks right", one("a", "\u{430}"), "word 1, "),
        ("wide", "letters of full width", one("abandon", "ａｂａｎｄｏｎ"), "word 1, "),
        ("zero_width", "a joiner that cannot be seen", one("ab", "a\u{200d}b"), "word 1, "),
        ("accent", "an accent over a letter", one("a", "á"), "word 1, "),
        ("byte_order_mark", "a mark in front", format!("\u{feff}{text}"), "word 1, "),
        ("nul", "a NUL behind", format!("{text}\0"), "word 24, "),
        ("too_long", "good words behind 4 KiB of space", " ".repeat(4096) + &text, "too long"),
    ];
    for (name, comment, text, why) in cases {
        folder.refused(name, comment, input(text), why);
    }
    let latin = [&text.as_bytes()[..text.len() - 1], &[0xe9]].concat();
    folder.refused("not_utf8", "a byte that is no UTF-8", input(latin), "not UTF-8");
}
