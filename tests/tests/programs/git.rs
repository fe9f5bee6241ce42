//! git, on a drive: its locks, its renames, its hard links, its trust in times and inode numbers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::drive::{Drive, noise, pick, sh};

/// Writes 60 files in seven folders, other ones each time.
fn fill(repo: &Path, round: usize) {
    for file in 0..60 {
        let dir = repo.join(format!("d{}", file % 7));
        fs::create_dir_all(&dir).unwrap();
        let seed = format!("{round}/{file}");
        fs::write(dir.join(format!("f{file}")), noise(&seed, pick(&seed, 5_000))).unwrap();
    }
}

/// A repository of three commits, with a program and a link in it.
fn repository(drive: &Drive, name: &str) -> std::path::PathBuf {
    let repo = drive.dir(name);
    sh(&repo, "git init -q");
    for round in 0..3 {
        fill(&repo, round);
        fs::write(repo.join("run.sh"), format!("#!/bin/sh\necho {round}\n")).unwrap();
        fs::set_permissions(repo.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        if round == 0 {
            symlink("d0/f0", repo.join("link")).unwrap();
        }
        sh(&repo, &format!("git add -A && git commit -qm c{round}"));
    }
    assert_eq!(sh(&repo, "git status --porcelain"), "", "clean after a commit");
    repo
}

#[test]
fn git_merges_rebases_collects_and_finds_nothing_wrong() {
    let drive = Drive::new();
    let repo = repository(&drive, "repo");
    sh(&repo, "git gc -q --prune=now && git fsck --strict");
    sh(
        &repo,
        "git checkout -q -b side HEAD~1 && echo x > new && git add new && git commit -qm side",
    );
    sh(&repo, "git checkout -q main && git merge -q -m merged side && git rebase -q HEAD~1");
    assert_eq!(sh(&repo, "git status --porcelain"), "", "clean after merge and rebase");
    assert_eq!(sh(&repo, "./run.sh"), "2\n", "the bit to execute came along");
    assert_eq!(fs::read_link(repo.join("link")).unwrap().to_str(), Some("d0/f0"));
    sh(&repo, "git repack -qadf && git reflog expire --expire=now --all && git prune");
    sh(&repo, "git fsck --strict --no-dangling");
    sh(&repo, "git mv d0 renamed && git commit -qm moved && git log --follow --oneline renamed/f0");
    drive.remount();
    assert_eq!(sh(&repo, "git status --porcelain"), "", "clean after mounting again");
    sh(&repo, "git fsck --strict --no-dangling");
}

#[test]
fn git_clones_with_hard_links_and_without() {
    let drive = Drive::new();
    let repo = repository(&drive, "repo");
    sh(&repo, "git gc -q");
    sh(&drive.device.dir, "git clone -q repo linked && git clone -q --no-local repo copied");
    sh(
        &drive.device.dir,
        "git clone -q --bare --shared repo bare.git && git clone -q bare.git again",
    );
    for clone in ["linked", "copied", "again"] {
        let dir = drive.path(clone);
        assert_eq!(sh(&dir, "git status --porcelain"), "", "{clone}");
        sh(&dir, "git fsck --strict");
    }
    let packs = sh(&drive.path("linked"), "ls .git/objects/pack/*.pack");
    let pack = fs::metadata(drive.path("linked").join(packs.trim())).unwrap();
    assert_eq!(pack.nlink(), 2, "the clone shares its pack by a hard link");
    sh(&drive.device.dir, "rm -rf repo/.git/objects/pack && git -C linked fsck --strict");
    sh(&drive.path("copied"), "echo more >> run.sh && git commit -qam more");
    sh(
        &drive.path("linked"),
        "git pull -q --ff-only ../copied main && tail -1 run.sh | grep -qx more",
    );
}

#[test]
fn git_keeps_worktrees_stashes_and_submodules() {
    let drive = Drive::new();
    let repo = repository(&drive, "repo");
    sh(&repo, "git branch side HEAD~1 && git worktree add -q ../tree side");
    let tree = drive.path("tree");
    sh(&tree, "echo side > of-side && git add -A && git commit -qm of-side");
    sh(&repo, "echo main > of-main && echo changed >> run.sh && git stash -q -u");
    assert_eq!(sh(&repo, "git status --porcelain"), "", "all is in the stash");
    sh(&repo, "git stash pop -q && grep -qx main of-main && git add -A && git commit -qm of-main");
    assert_eq!(sh(&repo, "git merge -q -m both side && cat of-side of-main"), "side\nmain\n");
    // Two at once in two trees of one repository: each has its own index and lock.
    let script = "(for i in 1 2 3 4 5 6; do echo $i > m; git add m; git commit -qm m$i; done) &
        (cd ../tree; for i in 1 2 3 4 5 6; do echo $i > s; git add s; git commit -qm s$i; done)
        wait $!";
    sh(&repo, script);
    assert_eq!(sh(&repo, "git log --oneline main side | grep -c ' [ms][1-6]$'"), "12\n");
    sh(&drive.device.dir, "git init -q outer && git -C outer submodule add -q ../repo inner");
    sh(&drive.path("outer"), "git commit -qm module && git submodule update -q --init");
    sh(
        &repo,
        "git worktree remove ../tree && git worktree prune && git fsck --strict --no-dangling",
    );
    assert!(!tree.exists());
}

/// git believes size, times and inode number. An edit that keeps the size must show in the times.
#[test]
fn git_sees_an_edit_of_the_same_size_at_once() {
    let drive = Drive::new();
    let repo = drive.dir("repo");
    sh(&repo, "git init -q && echo 0000 > f && git add f && git commit -qm first");
    for round in 1..=20 {
        fs::write(repo.join("f"), format!("{round:04}\n")).unwrap();
        assert_eq!(sh(&repo, "git status --porcelain"), " M f\n", "edit {round} was not seen");
        assert_eq!(sh(&repo, "git commit -qam next && git show HEAD:f"), format!("{round:04}\n"));
    }
    sh(&repo, "git update-index --really-refresh && git diff --exit-code");
}
