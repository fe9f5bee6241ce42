//! `device add`: a code on this computer, the other one that comes with it, and a person's word.

use std::io::IsTerminal as _;

use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::report::{DeviceInfo, Joiner, PairingOffer};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::args::{Common, DeviceAdd};
use crate::cli::{ask, bars, places, say};
use crate::control::{self, Request, execute};
use crate::failure::{Exit, Failure, Result};

/// How long one question to the node lasts; whoever breaks off is heard after it.
const STEP_MS: u64 = 5_000;

/// Whoever has the drive open, to be asked.
type Ask<'a> = dyn FnMut(Request) -> Result<Value> + 'a;

/// `device add`
pub(super) fn add(common: &Common, args: &DeviceAdd) -> Result<()> {
    let home = places::home(common)?;
    if !args.yes && !std::io::stdin().is_terminal() {
        let why = "somebody must confirm the device that comes, and there is no terminal";
        return Err(Failure::words(why)
            .next("say --yes if whoever has the code may come in, or run it on a terminal"));
    }
    if control::is_served(&home.socket()) {
        return pair(common, args, &mut |request| ask::ask_daemon(common, &home, request));
    }
    ask::with_drive(common, &home, |drive| {
        pair(common, args, &mut |request| execute(drive, request, &Progress::silent()))
    })
}

fn pair(common: &Common, args: &DeviceAdd, ask: &mut Ask<'_>) -> Result<()> {
    let open = Request::PairOpen { remote: args.remote.clone(), lifetime_ms: args.expires };
    let offer: PairingOffer = said(ask(open)?)?;
    say::offered(common, &offer);
    let joiner = wait(common, &offer, ask)?;
    let confirmed = args.yes || say::confirmed(&joiner)?;
    let answer = Request::PairAnswer {
        remote: offer.remote,
        code: offer.code,
        device: joiner.key,
        granted: confirmed,
    };
    let answered = ask(answer)?;
    if !confirmed {
        return Err(Failure::new(Exit::Refused, "the device was not let in, as you said")
            .next("the code is used up; `rdrivefs device add` prints another"));
    }
    say::joined(common, &said::<DeviceInfo>(answered)?);
    Ok(())
}

fn wait(common: &Common, offer: &PairingOffer, ask: &mut Ask<'_>) -> Result<Joiner> {
    let _bar = bars::waiting(common, "waiting for the other device", offer.expires_ms);
    loop {
        let wait = Request::PairWait {
            remote: offer.remote.clone(),
            code: offer.code.clone(),
            timeout_ms: STEP_MS,
        };
        if let Some(joiner) = said(ask(wait)?)? {
            return Ok(joiner);
        }
    }
}

fn said<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|e| Failure::new(Exit::Failed, format!("an answer that makes no sense: {e}")))
}

/// What this computer calls itself.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match rdrivefs_sync::record::check_device_name(&name) {
        Ok(()) => name,
        Err(_) => "unnamed".to_owned(),
    }
}
