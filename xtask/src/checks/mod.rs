//! What a developer and CI run to see whether Hop works, and what it costs: tests, fuzz targets, measurements.

pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod reproduce;
pub mod size;
mod symbols;
pub mod test;
pub mod words;
