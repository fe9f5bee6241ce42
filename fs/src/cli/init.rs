//! Beginning: a new drive, coming back to one, or joining one.

use std::io::{BufRead as _, Read as _};

use rdrivefs_sync::Error;
use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::pairing::PairingCode;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::remote::identity::PublicKey;

use crate::cli::args::{Common, Init};
use crate::cli::{bars, device, places, say, secrets};
use crate::failure::{Exit, Failure, Result};

/// `init`
pub(super) fn init(common: &Common, args: &Init) -> Result<()> {
    let name = args.name.clone().or_else(|| common.drive.clone());
    let home = places::roots()?.home(name.as_deref().unwrap_or("default"))?;
    if home.has_drive() {
        return Err(Error::DriveExists(home.config_dir().display().to_string()).into());
    }
    match (&args.recover, &args.remote, &args.join) {
        (Some(_), Some(url), _) => recover(common, args, &home, url),
        (_, _, Some(code)) => join(common, args, &home, code),
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
    let (drive, refused) = secrets::with_unlock(&passphrase, |unlock| {
        Ok(Drive::recover(home, &phrase, &url, unlock, Env::real(), &progress)?)
    })?;
    drop(progress);
    tell(common, home, &drive, "back", refused)
}

fn join(common: &Common, args: &Init, home: &Home, code: &str) -> Result<()> {
    let passphrase_on_stdin = common.passphrase_file.as_ref().is_some_and(|f| f.as_os_str() == "-");
    if code == "-" && passphrase_on_stdin && !args.no_passphrase {
        return Err(Failure::words(
            "the code and the passphrase cannot both come on standard input",
        ));
    }
    let code: PairingCode = url_of(code)?.parse()?;
    let passphrase = secrets::chosen(common, args.no_passphrase)?;
    let (progress, name) = (bars::progress(common), device::host_name());
    let tell_own = |own: &PublicKey| {
        let words = format!(
            "This device is {name}:\n  {}\nWaiting until the other device lets it in.",
            own.fingerprint()
        );
        say::hint(common, &words);
    };
    let (drive, enroller, refused) = secrets::with_unlock(&passphrase, |unlock| {
        Ok(Drive::join(home, &code, &name, unlock, Env::real(), &progress, &tell_own)?)
    })?;
    drop(progress);
    say::hint(common, &format!("It was let in by\n  {}", enroller.fingerprint()));
    tell(common, home, &drive, "here", refused)
}

/// What there is now of a drive that others had before.
fn tell(
    common: &Common,
    home: &Home,
    drive: &Drive,
    came: &str,
    refused: Option<Error>,
) -> Result<()> {
    let files = drive.status()?.tree.files;
    drive.shutdown()?;
    if let Some(why) = refused {
        return Err(Failure::new(
            Exit::Damaged,
            format!("the drive is {came} with {files} files, and not whole: {why}"),
        )
        .next(
            "add another remote that keeps it and `rdrivefs sync`, or ask its keeper to mend it",
        ));
    }
    let next = format!(
        "The drive {} is {came} with {files} files, whose contents come when they are read.\n\
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
    let mut line = std::io::stdin().lock().take(4_096);
    line.read_line(&mut url).map_err(Failure::io("read standard input"))?;
    Ok(url.trim().to_owned())
}
