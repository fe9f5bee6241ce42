//! Beginning: a new drive, or coming back to one.

use std::io::Read as _;

use rdrivefs_sync::Error;
use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::remote::env::Env;

use crate::cli::args::{Common, Init};
use crate::cli::{bars, places, say, secrets};
use crate::failure::{Failure, Result};

/// `init`
pub(super) fn init(common: &Common, args: &Init) -> Result<()> {
    let name = args.name.clone().or_else(|| common.drive.clone());
    let home = places::roots()?.home(name.as_deref().unwrap_or("default"))?;
    if home.has_drive() {
        return Err(Error::DriveExists(home.config_dir().display().to_string()).into());
    }
    match (&args.recover, &args.remote) {
        (Some(_), Some(url)) => recover(common, args, &home, url),
        _ => found(common, args, &home),
    }
}

fn found(common: &Common, args: &Init, home: &Home) -> Result<()> {
    let passphrase = secrets::chosen(common, args.no_passphrase)?;
    let (drive, phrase) =
        secrets::with_unlock(&passphrase, |unlock| Ok(Drive::create(home, unlock, Env::real())?))?;
    drive.shutdown()?;
    let (kept, shown) = match &args.recovery_file {
        Some(file) => {
            secrets::write_phrase(file, &phrase)?;
            (format!("; write down the phrase in {} and delete it", file.display()), None)
        }
        None => (String::new(), Some(&phrase)),
    };
    let next = format!(
        "The drive {name} is ready{kept}.\nnext: rdrivefs remote add NAME URL   a place for sealed \
         bytes; `rdrivefs-node invite` prints the URL\n      rdrivefs mount [DIR]        the folder",
        name = home.name()
    );
    say::founded(common, home, shown, &next);
    Ok(())
}

fn recover(common: &Common, args: &Init, home: &Home, url: &str) -> Result<()> {
    let file = args.recover.as_ref().expect("it was just looked at");
    if file.as_os_str() == "-" && url == "-" {
        return Err(Failure::words("the phrase and the URL cannot both come on standard input"));
    }
    let phrase = secrets::phrase(file)?;
    let passphrase = secrets::chosen(common, args.no_passphrase)?;
    let url = url_of(url)?.parse().map_err(|e| Failure::words(format!("{e}")))?;
    let progress = bars::progress(common);
    let drive = secrets::with_unlock(&passphrase, |unlock| {
        Ok(Drive::recover(home, &phrase, &url, unlock, Env::real(), &progress)?)
    })?;
    drop(progress);
    let files = drive.status()?.tree.files;
    drive.shutdown()?;
    let next = format!(
        "The drive {} is back with {files} files, whose contents come when they are read.\n\
         next: rdrivefs mount [DIR]",
        home.name()
    );
    say::founded(common, home, None, &next);
    Ok(())
}

/// One-time URLs may be arguments, or come on standard input.
pub(super) fn url_of(words: &str) -> Result<String> {
    if words != "-" {
        return Ok(words.to_owned());
    }
    let mut url = String::new();
    std::io::stdin().take(4_096).read_to_string(&mut url).map_err(Failure::io("read the URL"))?;
    Ok(url.trim().to_owned())
}
