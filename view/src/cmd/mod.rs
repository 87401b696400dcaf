//! One file for each command: how its work is begun, and what it prints.

pub mod report;
pub mod view;
