//! What the tests of rdrivefs share. The tests themselves stand in `tests/tests`, one file a theme.

pub mod damage;
pub mod model;
pub mod source_tree;
pub mod tidy;
pub mod vectors;
pub mod world;
