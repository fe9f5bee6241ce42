//! Reader of what two devices leave each other in a mailbox.

use rdrivefs_remote::identity::SecretKey;
use rdrivefs_sync::keys::WrapSecret;
use rdrivefs_sync::pairing::{JoinAnswer, JoinRequest, PairingCode};
use rdrivefs_sync::seal::Key;

use super::case::{Case, unhex};

/// `code`: the text. With `request` alone that is read by who lets in; with `answer` too, by the
/// device that made the request with the seeds `device` and `wrap`; with neither, the code itself.
pub(super) fn pairing(case: &Case) -> Result<String, String> {
    let code: PairingCode = case.text("code").parse().map_err(said)?;
    let Some(request) = case.find("request").map(unhex) else {
        return Ok(format!("node={} mailbox={}", code.node, hex::encode(code.mailbox().0)));
    };
    let Some(answer) = case.find("answer").map(unhex) else {
        let JoinRequest { device, wrap_key, name, .. } =
            JoinRequest::open(&code, &request).map_err(said)?;
        return Ok(format!(
            "device={device} wrap={} name={name}",
            blake3::hash(wrap_key.as_bytes())
        ));
    };
    let device = SecretKey::from_seed(case.array("device")).public();
    let wrap = WrapSecret::from_seed(Key::from(case.array("wrap")));
    let grant = match JoinAnswer::open(&code, &request, &device, &wrap, &answer).map_err(said)? {
        JoinAnswer::Declined => return Ok("declined".to_owned()),
        JoinAnswer::Granted(grant) => grant,
    };
    let epochs: Vec<String> =
        grant.shared.epochs.iter().map(|epoch| hex::encode(epoch.id().0)).collect();
    Ok(format!(
        "root={} enroller={} number={} remote={} chunker={} seen={} epochs={}",
        grant.shared.root,
        grant.enroller(),
        grant.number.0,
        grant.remote,
        hex::encode(grant.shared.chunker.as_bytes()),
        grant.seen.len(),
        epochs.join(","),
    ))
}

fn said(error: rdrivefs_sync::Error) -> String {
    error.to_string()
}
