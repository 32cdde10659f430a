//! The only place that knows the machine: how it logs, how it stops, how it counts instructions.

pub mod mps2_an386;
