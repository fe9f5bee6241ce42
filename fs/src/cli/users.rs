//! Who uses a folder: the processes of this computer that stand in it or have files of it open.

use std::path::{Path, PathBuf};

/// More are not named.
const NAMED_MAX: usize = 5;

/// The names and numbers of processes that keep `point` busy, as far as this user may see them.
pub(super) fn of(point: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name().into_string().unwrap_or_default();
        if name.bytes().all(|b| b.is_ascii_digit()) && uses(&process.path(), point) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(format!("{} ({name})", command.trim()));
        }
    }
    let more = users.len().saturating_sub(NAMED_MAX);
    users.truncate(NAMED_MAX);
    users.extend((more > 0).then(|| format!("{more} more")));
    users
}

fn uses(process: &Path, point: &Path) -> bool {
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(point));
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    ["cwd", "root", "exe"].iter().any(|name| inside(process.join(name)))
        || open.map(|fd| fd.path()).any(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_file_open_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let _open = std::fs::File::create(dir.join("f")).unwrap();
        let own = format!("({})", std::process::id());
        assert!(of(&dir).iter().any(|user| user.ends_with(&own)));
        assert!(of(&dir.join("none")).is_empty());
    }
}
