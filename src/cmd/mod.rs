//! One file for each command: what was typed, and how its result is shown.

pub mod pack;
pub mod sample;
pub mod torch;
