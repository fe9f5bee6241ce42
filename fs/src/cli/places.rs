//! Where things are: homes, paths in and beside the mount, and how numbers are written.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rdrivefs_sync::home::{Home, Roots};
use rdrivefs_sync::report::DrivePath;

use crate::cli::args::Common;
use crate::failure::{Exit, Failure, Result};

/// What a drive is called when nobody says otherwise.
const DEFAULT_DRIVE: &str = "default";

/// The directories of this device.
pub(super) fn roots() -> Result<Roots> {
    if let Some(home) = std::env::var_os("RDRIVEFS_HOME") {
        let home = std::path::absolute(home).map_err(Failure::io("find RDRIVEFS_HOME"))?;
        return Ok(Roots::under(&home));
    }
    let dirs = directories::ProjectDirs::from("", "", "rdrivefs").ok_or_else(|| {
        Failure::new(Exit::Failed, "this user has no home directory").next("set RDRIVEFS_HOME")
    })?;
    let state = dirs.state_dir().unwrap_or_else(|| dirs.data_dir());
    Ok(Roots {
        config: dirs.config_dir().to_owned(),
        state: state.to_owned(),
        cache: dirs.cache_dir().to_owned(),
        run: dirs.runtime_dir().map_or_else(|| state.join("run"), Path::to_owned),
    })
}

/// The home of the drive that is meant.
pub(super) fn home(common: &Common) -> Result<Home> {
    let roots = roots()?;
    let name = match &common.drive {
        Some(name) => name.clone(),
        None => {
            let drives = roots.drives()?;
            match drives.as_slice() {
                [only] => only.clone(),
                _ => DEFAULT_DRIVE.to_owned(),
            }
        }
    };
    Ok(roots.home(&name)?)
}

/// Every directory that belongs to a drive on this device.
pub(super) fn own_directories(home: &Home) -> Vec<PathBuf> {
    vec![home.config_dir(), home.state_dir(), home.cache_dir(), home.run_dir()]
}

/// A path as a person gave it, as a path of the drive mounted on `mount`.
pub(super) fn drive_path(path: &Path, common: &Common, mount: Option<&Path>) -> Result<DrivePath> {
    if common.drive_path {
        if !path.is_absolute() {
            return Err(Failure::words(format!("{} does not begin with /", path.display())));
        }
        return Ok(DrivePath(normal(path).as_os_str().as_bytes().to_vec()));
    }
    let Some(mount) = mount else {
        return Err(Failure::words(format!(
            "the drive is not mounted, so {} is no path of it",
            path.display()
        ))
        .next("mount it, or give the path in the drive with --drive-path"));
    };
    let inside = inside(path, mount)?.ok_or_else(|| {
        Failure::words(format!(
            "{} does not lie in the drive mounted on {}",
            path.display(),
            mount.display()
        ))
        .next("give a path inside it, or a path in the drive with --drive-path")
    })?;
    Ok(DrivePath([b"/", inside.as_os_str().as_bytes()].concat()))
}

/// The path below the mount, if it leads there, perhaps by symlinks outside of it.
fn inside(path: &Path, mount: &Path) -> Result<Option<PathBuf>> {
    let below = |path: PathBuf| path.strip_prefix(mount).ok().map(Path::to_owned);
    let real = real(path)?;
    Ok(below(real.clone()).or_else(|| below(real.canonicalize().ok()?)))
}

/// The absolute path with the symlinks of its folder followed, not of its last name.
pub(super) fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(Failure::io("find the path"))?;
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        return Ok(parent.join(name));
    }
    Ok(path.canonicalize().unwrap_or_else(|_| normal(&path)))
}

/// The folder that the settings name, which `mount` takes when it is given none.
pub(super) fn configured(home: &Home) -> Result<PathBuf> {
    let dir = home.config()?.mount.dir;
    let Ok(below) = dir.strip_prefix("~") else { return Ok(dir) };
    let user = directories::BaseDirs::new()
        .ok_or_else(|| Failure::words("this user has no home directory").next("name the folder"))?;
    Ok(user.home_dir().join(below))
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// `10G`, `10GiB`, `500MB`, `1024`: a plain letter and `iB` are powers of 1024, `B` of 1000.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("'{text}' is no size"))?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let letters = ["", "k", "m", "g", "t", "p"];
    let power = letters
        .iter()
        .position(|letter| unit.trim_end_matches("ib").trim_end_matches('b') == *letter);
    let power = power.ok_or_else(|| format!("'{unit}' is no unit of size"))? as i32;
    let base: f64 =
        if unit.ends_with('b') && !unit.ends_with("ib") && unit != "b" { 1000.0 } else { 1024.0 };
    let bytes = number * base.powi(power);
    if bytes.is_finite() && bytes <= 9e18 { Ok(bytes as u64) } else { Err("too large".into()) }
}

/// `30s`, `5m`, `2h`, `1d`, `250ms`, in milliseconds; a plain number is seconds.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("'{text}' is no duration"))?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => return Err(format!("'{other}' is no unit of time")),
    };
    number.checked_mul(unit).ok_or_else(|| "too long".into())
}

/// `99.9%` or `0.999`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text.trim(), 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|_| format!("'{text}' is no share"))? / scale;
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err("must lie between 0 and 1, or 0% and 100%".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_inside_also_by_a_symlink_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let mount = dir.join("mount");
        std::fs::create_dir_all(mount.join("a")).unwrap();
        std::os::unix::fs::symlink(&mount, dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", mount.join("out")).unwrap();
        let below = |path: &str| inside(&dir.join(path), &mount).unwrap();
        assert_eq!(below("mount"), Some(PathBuf::new()));
        assert_eq!(below("mount/a/../b"), Some(PathBuf::from("b")));
        assert_eq!(below("link"), Some(PathBuf::new()));
        assert_eq!(below("link/a/new"), Some(PathBuf::from("a/new")));
        assert_eq!(below("mount/out"), Some(PathBuf::from("out")), "a symlink is itself");
        assert_eq!(below("mount/out/passwd"), None);
        assert_eq!(below("mountain"), None);
    }

    #[test]
    fn sizes_durations_and_shares_are_read_as_people_write_them() {
        assert_eq!(size("10G"), Ok(10 << 30));
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("1.5 MB"), Ok(1_500_000));
        assert_eq!(size("512"), Ok(512));
        assert!(size("ten").is_err() && size("5X").is_err() && size("9999999P").is_err());
        assert_eq!(duration_ms("90"), Ok(90_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert_eq!(duration_ms("2h"), Ok(7_200_000));
        assert!(duration_ms("soon").is_err());
        assert!((share("99.9%").unwrap() - 0.999).abs() < 1e-12);
        assert_eq!(share("0.01"), Ok(0.01));
        assert!(share("100%").is_err() && share("0").is_err());
    }
}
