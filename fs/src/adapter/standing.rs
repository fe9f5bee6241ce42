//! The attribute that tells programs how far a file has come: asked for by name, never listed, so
//! that nothing copies it along, and never stored.

use rdrivefs_sync::report::{FileState, Stage};

/// Its name.
pub(super) const NAME: &[u8] = b"user.rdrivefs.state";

/// The words that `rdrivefs ls --json` has for it, with a space between.
pub(super) fn words(state: &FileState) -> Vec<u8> {
    let mut words = match state.stage {
        Stage::Dirty => "dirty",
        Stage::Sealed => "sealed",
        Stage::Pushed => "pushed",
        Stage::Proven => "proven",
    }
    .to_owned();
    if state.cached {
        words.push_str(" cached");
    }
    if state.pinned {
        words.push_str(" pinned");
    }
    words.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_said_when_it_is_so() {
        let state = FileState { stage: Stage::Proven, cached: true, pinned: true };
        assert_eq!(words(&state), b"proven cached pinned");
        let state = FileState { stage: Stage::Pushed, cached: false, pinned: false };
        assert_eq!(words(&state), b"pushed");
    }
}
