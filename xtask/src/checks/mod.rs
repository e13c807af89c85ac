//! Tests, fuzz targets and measurements: whether Hop works, and what it costs.

pub mod bench;
pub mod demo;
pub mod dist;
pub mod fuzz;
pub mod reproduce;
pub mod size;
mod symbols;
pub mod test;
pub mod words;
