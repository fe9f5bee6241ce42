//! Reader of the membership that signed entries make.

use rdrivefs_remote::entry::Entry;
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::member::{Last, Member, Membership};

use super::case::{Case, unhex};

/// `drive`, `root`, and an `entry` a line. Entries that change nothing refuse the case, with what
/// the others make behind the reasons. Whatever the order of the entries, it comes out the same.
pub(super) fn member(case: &Case) -> Result<String, String> {
    let (drive, root) = (DriveId(case.array("drive")), PublicKey(case.array("root")));
    let entries = case
        .all("entry")
        .into_iter()
        .map(|entry| Entry::decode(&unhex(entry)).expect("the entry itself holds"));
    let mut entries: Vec<Entry> = entries.collect();
    let replay = |entries: &[Entry]| {
        Membership::replay(drive, &root, entries).map_err(|error| error.to_string())
    };
    let membership = replay(&entries)?;
    entries.reverse();
    assert_eq!(replay(&entries)?, membership, "the order of entries decides nothing");
    let half = entries.len() / 2;
    entries.rotate_left(half);
    entries.extend(entries.clone());
    assert_eq!(replay(&entries)?, membership, "nor does it matter if they come twice");
    let means = describe(&membership);
    let voids: Vec<&str> = membership.voids().iter().map(|void| void.why).collect();
    if voids.is_empty() { Ok(means) } else { Err(format!("{}; {means}", voids.join(", "))) }
}

fn describe(membership: &Membership) -> String {
    let members: Vec<String> = membership.members().iter().map(describe_member).collect();
    let epochs = membership.epochs().iter().map(|epoch| hex::encode(epoch.id.0));
    let epochs: Vec<String> = epochs.collect();
    let next = membership.next_number().map_or("none".to_owned(), |next| next.to_string());
    format!("members=[{}] epochs=[{}] next={next}", members.join(" "), epochs.join(" "))
}

fn describe_member(member: &Member) -> String {
    let role = if member.admin { "admin" } else { "plain" };
    let mut left = String::new();
    if let Some(revoked) = &member.revoked {
        left.push_str("/revoked");
        for Last { instance, number, hash } in &revoked.last {
            left.push_str(&format!(":{instance}.{number}.{}", hex::encode(hash)));
        }
    }
    let key = blake3::hash(&member.wrap_key);
    format!("{}/{}/{role}/{key}{left}", member.number, member.device)
}
