//! What the tests of rdrivefs share. The tests themselves stand in `tests/tests`, one file a theme.

pub mod compiled;
pub mod daemon;
pub mod damage;
pub mod loop_disk;
pub mod memory_limit;
pub mod model;
pub mod peer;
pub mod portrait;
pub mod recorded_disk;
pub mod rounds;
pub mod source_tree;
pub mod tidy;
pub mod traced;
pub mod vectors;
pub mod work;
pub mod world;
