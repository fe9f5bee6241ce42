//! Cases of where files are cut.

use crate::{Folder, Inputs, hexed};

fn inputs(key: u8, seed: &str, len: usize) -> Inputs {
    vec![
        ("key", hexed([key; 32])),
        ("dedup", hexed([9; 32])),
        ("seed", hexed(seed)),
        ("len", len.to_string()),
    ]
}

pub(crate) fn write(folder: &Folder) {
    let put = |name: &str, comment: &str, inputs: Inputs, means: &str| {
        folder.valid(name, comment, inputs, means);
    };
    put("nothing", "no bytes have no chunks", inputs(1, "a", 0), "chunks=");
    put("one_byte", "a byte is a chunk", inputs(1, "a", 1), "chunks=1:");
    put("shortest", "the shortest chunk", inputs(1, "a", 256 << 10), "chunks=262144:");
    for seed in ["a", "b", "c", "d", "e"] {
        let comment = "6 MiB of random bytes";
        put(&format!("random_{seed}"), comment, inputs(1, seed, 6 << 20), " ");
    }
    put("other_key", "as random_a, under another key", inputs(2, "a", 6 << 20), " ");
    put("odd_length", "as random_a, a little shorter", inputs(1, "a", (6 << 20) - 12_345), " ");
    let mut later = inputs(1, "a", 6 << 20);
    later.push(("inserted", "00".to_owned()));
    put("inserted", "as random_a behind a new byte: later cuts stay", later, " ");
    for byte in ["00", "ff"] {
        let mut same = inputs(1, "a", 9 << 20);
        same[2] = ("byte", byte.to_owned());
        let comment = "one byte over and over";
        put(&format!("all_{byte}"), comment, same, "chunks=4194304:");
    }
}
