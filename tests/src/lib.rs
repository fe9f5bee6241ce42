//! What the tests of rdrivefs share. The tests themselves stand in `tests/tests`, one file a theme.

pub mod tidy;
