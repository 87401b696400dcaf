//! Uses of trained weights: evaluation on a split, prediction of pictures, export to other tools. `foreign`
//! opens weights of other programs for them. Nothing here trains.

pub mod box_score;
pub mod evaluate;
pub mod export;
pub mod foreign;
pub mod predict;
pub mod predictions;
pub mod tta;
